//! Passing a UDP NodePort's datagrams on from 127.0.0.1.
//!
//! Each client gets a socket of its own towards the Service, so that its datagrams are one flow there and answers find
//! back. It goes when client and Service have been silent for a while, as the kernel forgets a flow.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

/// Clients of one port at once; datagrams of further ones are dropped until one has been silent for long enough.
const CLIENTS_MAX: usize = 256;
/// Datagrams that wait to be passed on for one client; further ones are dropped, as UDP may.
const WAITING_MAX: usize = 64;
/// How long both sides may be silent. Source: the kernel's `nf_conntrack_udp_timeout_stream`.
const SILENCE_MAX: Duration = Duration::from_secs(120);
const DATAGRAM_MAX: usize = 65_535;

/// Passes datagrams of local clients on to `service`, and its answers back, until it is dropped.
pub(super) async fn relay(socket: UdpSocket, mut service: watch::Receiver<SocketAddr>) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            // Came in before the rules did: there is nothing here for strangers.
            Ok((_, client)) if !client.ip().is_loopback() => continue,
            Ok(received) => received,
            // A client that went away before its answer came.
            Err(err) if err.kind() == ErrorKind::ConnectionRefused => continue,
            Err(err) => {
                warn!(%err, "cannot receive on a NodePort");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if service.has_changed().unwrap_or(false) {
            clients.clear();
        }
        let target = *service.borrow_and_update();
        let datagram = buffer[..length].to_vec();
        let datagram = match clients.get(&client).map(|known| known.try_send(datagram.clone())) {
            Some(Ok(()) | Err(mpsc::error::TrySendError::Full(_))) => continue,
            Some(Err(mpsc::error::TrySendError::Closed(datagram))) => datagram,
            None => datagram,
        };
        if clients.len() >= CLIENTS_MAX {
            clients.retain(|_, known| !known.is_closed());
        }
        if clients.len() < CLIENTS_MAX || clients.contains_key(&client) {
            let (sender, waiting) = mpsc::channel(WAITING_MAX);
            // There is room: nobody else sends.
            let _ = sender.try_send(datagram);
            clients.insert(client, sender);
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                if let Err(err) = pass_on(&socket, client, target, waiting).await {
                    debug!(%client, %target, %err, "a local client of a NodePort ended");
                }
            });
        }
    }
}

/// One client's datagrams and their answers, until both sides are silent, the Service refuses, or the relay ends.
async fn pass_on(
    socket: &UdpSocket,
    client: SocketAddr,
    service: SocketAddr,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    own.connect(service).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        tokio::select! {
            datagram = waiting.recv() => match datagram {
                Some(datagram) => drop(own.send(&datagram).await?),
                None => return Ok(()),
            },
            length = own.recv(&mut buffer) => {
                let length = length?;
                socket.send_to(&buffer[..length], client).await?;
            }
            () = tokio::time::sleep(SILENCE_MAX) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bound() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let address = socket.local_addr().expect("an address");
        (socket, address)
    }

    async fn said(socket: &UdpSocket) -> (String, SocketAddr) {
        let mut buffer = [0; 64];
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv_from(&mut buffer));
        let (length, from) = received.await.expect("in time").expect("received");
        (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
    }

    #[tokio::test]
    async fn each_local_client_gets_its_own_answers_and_a_new_service_takes_over() {
        let ((service, to), (next, to_next)) = (bound().await, bound().await);
        let (socket, port) = bound().await;
        let (told, target) = watch::channel(to);
        let relay = tokio::spawn(relay(socket, target));
        let (one, two) = (bound().await.0, bound().await.0);
        for (client, text) in [(&one, "one"), (&two, "two"), (&one, "one again")] {
            client.send_to(text.as_bytes(), port).await.expect("sent");
            let (heard, from) = said(&service).await;
            assert_eq!(heard, text);
            service.send_to(text.as_bytes(), from).await.expect("answered");
            assert_eq!(said(client).await, (text.to_owned(), port));
        }
        told.send_replace(to_next);
        one.send_to(b"moved", port).await.expect("sent");
        assert_eq!(said(&next).await.0, "moved");
        relay.abort();
    }
}
