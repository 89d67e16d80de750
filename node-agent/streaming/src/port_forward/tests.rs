//! Forwarded connections to real sockets on this machine's loopback.

use http::header::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::TcpListener;

use super::*;
use crate::spdy::tests::{Client, Read};

/// Echoes one connection after the other, each to its end.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

/// This machine instead of a pod.
fn here() -> Place {
    let dial = |port| -> futures::future::BoxFuture<'static, _> {
        Box::pin(async move {
            let connected = reeve_engine::loopback::connect(None, port).await;
            connected.map(|stream| Box::new(stream) as reeve_engine::engine::Connection)
        })
    };
    Place::with("s1".to_owned(), dial)
}

fn start() -> Client {
    let (client, server) = duplex(256 * 1024);
    tokio::spawn(spdy_pairs::serve(server, Arc::new(here())));
    Client::new(client)
}

async fn open_pair(client: &mut Client, error: u32, data: u32, port: &str, request: &str) {
    client.open(error, &[("streamtype", "error"), ("port", port), ("requestid", request)]).await;
    client.open(data, &[("streamtype", "data"), ("port", port), ("requestid", request)]).await;
}

/// The next frames that are no replies, by stream.
async fn read_until_closed(client: &mut Client, id: u32) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let Read { kind, id: of, last, body } = client.read().await;
        if kind == 0 && of == id {
            all.extend(body);
            if last {
                return all;
            }
        }
    }
}

#[tokio::test]
async fn several_connections_share_one_spdy_connection() {
    let port = echo().await.to_string();
    let mut client = start();
    open_pair(&mut client, 1, 3, &port, "0").await;
    open_pair(&mut client, 5, 7, &port, "1").await;
    client.data(3, b"first", false).await;
    client.data(7, b"second", true).await;
    assert_eq!(read_until_closed(&mut client, 7).await, b"second");
    client.data(3, b" and more", true).await;
    assert_eq!(read_until_closed(&mut client, 3).await, b"first and more");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_on_the_error_stream() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut client = start();
    open_pair(&mut client, 1, 3, &free.to_string(), "0").await;
    let text = String::from_utf8(read_until_closed(&mut client, 1).await).unwrap();
    assert_eq!(
        text,
        format!(
            "error forwarding port {free} to pod s1, uid : failed to connect to localhost:{free} inside namespace \
             \"host\", IPv4: dial tcp4 127.0.0.1:{free}: connect: connection refused IPv6 dial tcp6 [::1]:{free}: \
             connect: connection refused "
        )
    );
}

#[tokio::test]
async fn streams_without_a_port_or_a_type_are_reset() {
    let mut client = start();
    for (id, headers) in [
        (1, &[("streamtype", "data")][..]),
        (3, &[("port", "0"), ("streamtype", "data")]),
        (5, &[("port", "80")]),
        (7, &[("port", "80"), ("streamtype", "other")]),
    ] {
        client.open(id, headers).await;
        let read = client.read().await;
        assert_eq!((read.kind, read.id), (3, id), "{headers:?}");
    }
}

#[test]
fn the_carrier_follows_from_the_upgrade() {
    let of = |pairs: &[(&'static str, &'static str)], query: &str| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        Carrier::of(&headers, Some(query)).map(|(carrier, _)| carrier).map_err(|answer| answer.status().as_u16())
    };
    let channels_of = |is_base64| Ok(Carrier::Channels { ports: vec![80, 443, 1], is_base64 });
    let socket = ("upgrade", "websocket");
    let key = ("sec-websocket-key", "k");
    assert_eq!(of(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", PROTOCOL)], ""), Ok(Carrier::Spdy));
    assert_eq!(of(&[socket, key, ("sec-websocket-protocol", TUNNEL)], ""), Ok(Carrier::Tunnel));
    let channels = [socket, key, ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")];
    assert_eq!(of(&channels, "port=80%2C443&port=1"), channels_of(false));
    let texts = [socket, key, ("sec-websocket-protocol", "v4.base64.channel.k8s.io")];
    assert_eq!(of(&texts, "port=80,443,1"), channels_of(true));
    assert_eq!(of(&channels, ""), Err(400));
    assert_eq!(ports(Some("port=0")), Err("port \"0\" must be > 0".to_owned()));
    assert_eq!(of(&[("upgrade", "SPDY/3.1")], ""), Err(400));
    assert_eq!(of(&[socket, key, ("sec-websocket-protocol", "v1")], ""), Err(403));
}
