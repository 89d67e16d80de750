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
    ask_at((address, 8080).into())
}

fn ask_at(place: std::net::SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&place, Duration::from_secs(2))?;
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
fn ports_of_the_node_lead_to_their_pod_from_everywhere_until_it_goes() {
    in_own_netns(|| async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        handle.link().set(rtnetlink::LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = node_config(dir.path());
        let range = "10.244.7.0/24".parse().unwrap();
        let network = PodNetwork::start(&config, range).await.unwrap();
        let (server, client) = (pod_netns(dir.path(), "a"), pod_netns(dir.path(), "b"));
        let ip = network.attach("aaaaaaaa1", &server).await.unwrap();
        network.attach("bbbbbbbb1", &client).await.unwrap();
        let ports = serde_json::json!([
            { "containerPort": 8080, "hostPort": 18080 },
            { "containerPort": 8080, "hostPort": 18081, "hostIP": "10.244.7.1" },
        ]);
        let pod = serde_json::json!({ "spec": { "containers": [{ "name": "c", "ports": ports }] } });
        let wanted = host_ports::wanted(&serde_json::from_value(pod).unwrap());
        network.publish("aaaaaaaa1", ip, wanted).await.unwrap();
        let listener = inside(&server, || TcpListener::bind("0.0.0.0:8080").unwrap()).join().unwrap();
        std::thread::spawn(move || {
            loop {
                answer_once(listener.try_clone().unwrap())
            }
        });
        let pods = [server.clone(), client.clone()];
        let asked = async |place: &str| {
            let (place, pods) = (place.parse().unwrap(), pods.clone());
            let ask_all = move || {
                let host = Path::new("/proc/thread-self/ns/net");
                let places = [host, &pods[0], &pods[1]];
                places.map(|from| inside(from, move || ask_at(place)).join().unwrap().map_err(|err| err.kind()))
            };
            tokio::task::spawn_blocking(ask_all).await.unwrap()
        };
        for place in ["10.244.7.1:18080", "10.244.7.1:18081"] {
            let [host, itself, other] = asked(place).await;
            assert_eq!(host.as_deref(), Ok("10.244.7.1"), "{place}");
            assert!(itself.is_ok(), "{place} from the pod itself: {itself:?}");
            assert_eq!(other.as_deref(), Ok("10.244.7.3"), "{place}: who asks is seen");
        }
        let [host, itself, _] = asked("127.0.0.1:18080").await;
        assert!(host.is_ok() && itself.is_err(), "{host:?} {itself:?}: a pod's loopback is its own");
        assert!(asked("127.0.0.1:18081").await[0].is_err(), "that port is for another address");
        drop(network);
        let network = PodNetwork::start(&config, range).await.unwrap();
        assert!(asked("10.244.7.1:18080").await[2].is_ok(), "a new agent goes on");
        assert!(asked("127.0.0.1:18080").await[0].is_ok());
        network.detach("aaaaaaaa1").await.unwrap();
        for place in ["10.244.7.1:18080", "127.0.0.1:18080"] {
            assert_eq!(asked(place).await[0], Err(std::io::ErrorKind::ConnectionRefused), "{place}");
        }
        cleanup(&config.cluster_name, &config.link_prefix, config.cluster_cidr).await.unwrap();
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
        cleanup(&config.cluster_name, &config.link_prefix, config.cluster_cidr).await.unwrap();
        cleanup(&config.cluster_name, &config.link_prefix, config.cluster_cidr).await.unwrap();
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
