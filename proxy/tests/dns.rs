//! The DNS server on real sockets: what clients send and see.

#![allow(clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reeve_api::rng::SeededRng;
use reeve_proxy::dns::{DnsConfig, DnsServer, Records};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

/// One headless Service, `many`, with 200 endpoints: more than fits into a UDP answer.
struct World;

fn slice() -> EndpointSlice {
    let endpoints: Vec<_> = (1..=200).map(|n| serde_json::json!({"addresses": [format!("10.1.0.{n}")]})).collect();
    serde_json::from_value(serde_json::json!({"addressType": "IPv4", "endpoints": endpoints})).expect("a slice")
}

impl Records for World {
    fn has_services(&self, namespace: &str) -> bool {
        namespace == "default"
    }
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let service =
            serde_json::json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": "None"}});
        (namespace == "default" && name == "many").then(|| serde_json::from_value(service).expect("a service"))
    }
    fn slices(&self, _namespace: &str, _service: &str) -> Vec<Arc<EndpointSlice>> {
        vec![Arc::new(slice())]
    }
    fn service_of_ip(&self, _ip: Ipv4Addr) -> Option<Arc<Service>> {
        None
    }
    fn slices_of_ip(&self, _ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
        Vec::new()
    }
}

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn start(upstreams: Vec<SocketAddr>) -> Running {
    let config = DnsConfig { address: Ipv4Addr::LOCALHOST, port: 0, domain: "cluster.local".to_owned(), upstreams };
    let bind = || DnsServer::bind(config.clone(), Arc::new(World), Arc::new(SeededRng::new(1)));
    let mut bound = bind().await;
    // The port that is free for UDP may be somebody's over TCP.
    for _ in 0..20 {
        if bound.is_err() {
            bound = bind().await;
        }
    }
    let server = bound.expect("bound");
    let running = Running { address: server.local_addr().expect("an address"), shutdown: CancellationToken::new() };
    tokio::spawn(server.run(running.shutdown.clone()));
    running
}

fn query(name: &str) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    message
}

async fn ask_bytes(server: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    socket.send_to(packet, server).await.expect("sent");
    let mut buffer = vec![0; 4096];
    let wait = std::time::Duration::from_secs(10);
    let (length, _) =
        tokio::time::timeout(wait, socket.recv_from(&mut buffer)).await.expect("in time").expect("answer");
    Message::from_vec(&buffer[..length]).expect("an answer that parses")
}

async fn ask(server: SocketAddr, name: &str) -> Message {
    ask_bytes(server, &query(name).to_vec().expect("encoded")).await
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_truncated_and_whole_over_tcp() {
    let server = start(Vec::new()).await;
    let answer = ask(server.address, "MANY.default.svc.cluster.local.").await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());

    let packet = query("many.default.svc.cluster.local.").to_vec().expect("encoded");
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_u16(u16::try_from(packet.len()).expect("short")).await.expect("sent");
    stream.write_all(&packet).await.expect("sent");
    let length = stream.read_u16().await.expect("answered");
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.expect("answered");
    assert_eq!(Message::from_vec(&bytes).expect("parses").answers.len(), 200);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_denied_with_the_zones_soa() {
    let server = start(Vec::new()).await;
    let answer = ask(server.address, "nobody.default.svc.cluster.local.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities.first().map(Record::record_type), Some(RecordType::SOA));
    assert_eq!(answer.metadata.id, 77);
}

#[tokio::test]
async fn garbage_is_refused_and_the_server_goes_on() {
    let server = start(Vec::new()).await;
    let answer = ask_bytes(server.address, &[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xff]).await;
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, ResponseCode::FormErr));
    assert_eq!(ask(server.address, "default.svc.cluster.local.").await.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn foreign_names_go_upstream_under_another_id_and_fail_fast_without_one() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let upstream_address = upstream.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        let (length, from) = upstream.recv_from(&mut buffer).await.expect("asked");
        let mut reply = Message::from_vec(&buffer[..length]).expect("a query").into_response();
        let name = reply.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 9)))));
        upstream.send_to(&reply.to_vec().expect("encoded"), from).await.expect("sent");
    });
    let server = start(vec![upstream_address]).await;
    let answer = ask(server.address, "example.org.").await;
    assert_eq!((answer.metadata.id, answer.answers.len()), (77, 1));

    let alone = start(Vec::new()).await;
    assert_eq!(ask(alone.address, "example.org.").await.metadata.response_code, ResponseCode::ServFail);
}
