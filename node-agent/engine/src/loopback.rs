//! A pod's own loopback: connections are made inside its network namespace.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long a connection to a pod may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Connects to a port on `localhost`, IPv4 first; `netns` is `None` on the node's network.
///
/// # Errors
/// Why there is no connection, in containerd's words.
pub async fn connect(netns: Option<&Path>, port: u16) -> Result<TcpStream, String> {
    let v4 = match dial(netns, (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => told("tcp4", (Ipv4Addr::LOCALHOST, port).into(), &error),
    };
    let v6 = match dial(netns, (Ipv6Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => told("tcp6", (Ipv6Addr::LOCALHOST, port).into(), &error),
    };
    let inside = netns.map_or_else(|| "host".into(), Path::to_string_lossy);
    Err(format!("failed to connect to localhost:{port} inside namespace {inside:?}, IPv4: {v4} IPv6 {v6} "))
}

async fn dial(netns: Option<&Path>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match netns {
        None => socket(address)?,
        Some(netns) => socket_in(netns, address).await?,
    };
    let stream = timeout(CONNECT_TIME_MAX, socket.connect(address)).await;
    let stream = stream.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn told(network: &str, address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => format!("connect: {error}"),
    };
    format!("dial {network} {address}: {why}")
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// A socket stays in the namespace it was made in, so a short-lived thread makes it there.
async fn socket_in(netns: &Path, address: SocketAddr) -> io::Result<TcpSocket> {
    let inside = std::fs::File::open(netns)?;
    let (runtime, (sender, receiver)) = (tokio::runtime::Handle::current(), tokio::sync::oneshot::channel());
    let thread = move || {
        let _entered = runtime.enter();
        let entered = nix::sched::setns(&inside, nix::sched::CloneFlags::CLONE_NEWNET);
        // Without a receiver the client has gone.
        let _ = sender.send(entered.map_err(io::Error::from).and_then(|()| socket(address)));
    };
    std::thread::Builder::new().name("netns".to_owned()).spawn(thread)?;
    receiver.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_loopback_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        std::fs::write(&path, "").unwrap();
        let pin = path.clone();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        // The thread holds its mount namespace and its listener until the test is over.
        let (done, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let pod = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
            crate::runtime::namespaces::bring_loopback_up().unwrap();
            let none: Option<&str> = None;
            nix::mount::mount(Some("/proc/thread-self/ns/net"), &pin, none, nix::mount::MsFlags::MS_BIND, none)
                .unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            sender.send(listener.local_addr().unwrap().port()).unwrap();
            drop(listener.accept().unwrap());
            wait.recv().unwrap();
        });
        let port = receiver.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(connect(Some(&path), port));
        done.send(()).unwrap();
        pod.join().unwrap();
        nix::mount::umount(&path).unwrap();
        assert!(connected.is_ok(), "{connected:?}");
    }
}
