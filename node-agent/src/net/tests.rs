//! The node network with real links: the "host" is a network namespace made for the test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use super::*;
use crate::testing::node_config;

/// Runs `test` in a network namespace of its own, in a thread and runtime of its own.
fn in_own_netns<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("a network namespace (needs root)");
        let none: Option<&str> = None;
        nix::mount::mount(none, "/", none, nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE, none)
            .unwrap();
        // sysfs and procfs of the new namespace: /proc/sys/net follows the thread's namespace by itself.
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.join().unwrap();
}

/// A pod's network namespace, pinned as a file like the engine does it.
fn pod_netns(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, "").unwrap();
    let pin = path.clone();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let none: Option<&str> = None;
        nix::mount::mount(Some("/proc/thread-self/ns/net"), &pin, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
    })
    .join()
    .unwrap();
    path
}

fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let file = std::fs::File::open(netns).unwrap();
    std::thread::spawn(move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

fn answer_once(listener: TcpListener) {
    let (mut stream, peer) = listener.accept().unwrap();
    stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
}

fn ask(address: IpAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(address, 8080).into(), Duration::from_secs(2))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn pods_reach_each_other_and_the_host_with_their_own_addresses() {
    in_own_netns(|| async {
        let dir = tempfile::tempdir().unwrap();
        let config = node_config(dir.path());
        let network = PodNetwork::start(&config, "10.244.7.0/24".parse().unwrap()).await.unwrap();
        let (a, b) = (pod_netns(dir.path(), "a"), pod_netns(dir.path(), "b"));
        let ip_a = network.attach("aaaaaaaa1", &a).await.unwrap();
        let ip_b = network.attach("bbbbbbbb1", &b).await.unwrap();
        let listener = inside(&b, || TcpListener::bind("0.0.0.0:8080").unwrap()).join().unwrap();
        let (to_pod, to_host) = tokio::task::spawn_blocking(move || {
            let server = std::thread::spawn(move || {
                answer_once(listener.try_clone().unwrap());
                answer_once(listener);
            });
            let from_pod = inside(&a, move || ask(ip_b)).join().unwrap().unwrap();
            let from_host = inside(Path::new("/proc/thread-self/ns/net"), move || ask(ip_b)).join().unwrap();
            server.join().unwrap();
            (from_pod, from_host.unwrap())
        })
        .await
        .unwrap();
        assert_eq!(to_pod, ip_a.to_string());
        assert_eq!(to_host, "10.244.7.1");
        for name in ["a", "b"] {
            nix::mount::umount(&dir.path().join(name)).unwrap();
        }
    });
}

#[test]
fn addresses_outlive_the_agent_and_detaching_leaves_nothing() {
    in_own_netns(|| async {
        let dir = tempfile::tempdir().unwrap();
        let config = node_config(dir.path());
        let range = "10.244.7.0/24".parse().unwrap();
        let netns = pod_netns(dir.path(), "a");
        let first = PodNetwork::start(&config, range).await.unwrap();
        let ip = first.attach("aaaaaaaa1", &netns).await.unwrap();
        drop(first);
        let second = PodNetwork::start(&config, range).await.unwrap();
        assert_eq!(second.address_of("aaaaaaaa1").await, Some(ip));
        second.detach("aaaaaaaa1").await.unwrap();
        second.detach("aaaaaaaa1").await.unwrap();
        assert_eq!(second.address_of("aaaaaaaa1").await, None);
        cleanup(&config.link_prefix, config.cluster_cidr).await.unwrap();
        cleanup(&config.link_prefix, config.cluster_cidr).await.unwrap();
        let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(!links.contains(&config.link_prefix), "{links}");
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
        assert_eq!(routes.lines().count(), 1, "{routes}");
        nix::mount::umount(&dir.path().join("a")).unwrap();
    });
}

#[test]
fn an_address_that_no_pod_has_is_unreachable_at_once() {
    in_own_netns(|| async {
        let dir = tempfile::tempdir().unwrap();
        let config = node_config(dir.path());
        let _network = PodNetwork::start(&config, "10.244.7.0/24".parse().unwrap()).await.unwrap();
        let error = ask("10.244.7.99".parse().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH), "{error}");
    });
}

#[test]
fn a_pod_cannot_make_the_host_believe_in_neighbours_nor_reach_it_over_link_local_addresses() {
    in_own_netns(|| async {
        let dir = tempfile::tempdir().unwrap();
        let config = node_config(dir.path());
        let network = PodNetwork::start(&config, "10.244.7.0/24".parse().unwrap()).await.unwrap();
        let pod = pod_netns(dir.path(), "a");
        network.attach("aaaaaaaa1", &pod).await.unwrap();
        let link = host_name(&config.link_prefix, "aaaaaaaa1");
        let ipv6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        assert!(!ipv6.contains(&link), "no IPv6 address on {link}: {ipv6}");
        let asked = tokio::task::spawn_blocking(move || {
            inside(&pod, || {
                let ip = |args: &[&str]| std::process::Command::new("ip").args(args).output().unwrap();
                ip(&["addr", "add", "10.244.7.66/32", "dev", "eth0"]);
                // Not by its gateway: now it has to ask for the host's hardware address, in another's name.
                ip(&["route", "add", "10.244.7.1", "dev", "eth0"]);
                let socket = std::net::UdpSocket::bind("10.244.7.66:0").unwrap();
                drop(socket.send_to(b"?", "10.244.7.1:9"));
                std::thread::sleep(Duration::from_millis(200));
                String::from_utf8(ip(&["neigh"]).stdout).unwrap()
            })
            .join()
            .unwrap()
        })
        .await
        .unwrap();
        assert!(asked.contains("10.244.7.1 ") && !asked.contains("REACHABLE"), "unanswered: {asked}");
        let table = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
        assert!(!table.contains("10.244.7.66"), "{table}");
        nix::mount::umount(&dir.path().join("a")).unwrap();
    });
}

#[test]
fn link_names_fit_the_kernels_limit() {
    assert!(host_name("rv1234", &"f".repeat(64)).len() <= 15);
}
