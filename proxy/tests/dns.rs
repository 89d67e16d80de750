//! The DNS server on real sockets: what clients send and see.

#![allow(clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reeve_api::rng::{Rng as _, RngExt as _, SeededRng};
use reeve_proxy::dns::answer::{Transport, Verdict, Zone};
use reeve_proxy::dns::{DnsConfig, DnsServer, Records};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

/// A headless Service, `many`, with 200 endpoints: more than fits into a UDP answer. And `ext`, an alias of
/// `example.org`.
struct World;

fn slice() -> EndpointSlice {
    let endpoints: Vec<_> = (1..=200).map(|n| serde_json::json!({"addresses": [format!("10.1.0.{n}")]})).collect();
    serde_json::from_value(serde_json::json!({"addressType": "IPv4", "endpoints": endpoints})).expect("a slice")
}

impl Records for World {
    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "default"
    }
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let spec = match name {
            "many" => serde_json::json!({"clusterIP": "None"}),
            "ext" => serde_json::json!({"type": "ExternalName", "externalName": "example.org"}),
            "inner" => serde_json::json!({"type": "ExternalName", "externalName": "many.default.svc.cluster.local"}),
            "loop" => serde_json::json!({"type": "ExternalName", "externalName": "loop.default.svc.cluster.local"}),
            _ => return None,
        };
        let service = serde_json::json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
        (namespace == "default").then(|| serde_json::from_value(service).expect("a service"))
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

const PATIENCE: Duration = Duration::from_secs(10);

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
    let (length, _) =
        tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("in time").expect("answer");
    Message::from_vec(&buffer[..length]).expect("an answer that parses")
}

async fn write_framed(stream: &mut TcpStream, packet: &[u8]) {
    let length = u16::try_from(packet.len()).expect("short");
    stream.write_all(&[&length.to_be_bytes()[..], packet].concat()).await.expect("sent");
}

async fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let length = tokio::time::timeout(PATIENCE, stream.read_u16()).await.expect("in time").expect("answered");
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.expect("answered");
    bytes
}

/// An upstream server over UDP and TCP that answers with what `answer` makes of a query, and counts what it is asked.
async fn upstream(answer: impl Fn(Message) -> Option<Vec<u8>> + Clone + Send + Sync + 'static) -> (SocketAddr, Asked) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("an address")).await {
            break (udp, tcp);
        }
    };
    let (address, asked) = (udp.local_addr().expect("an address"), Asked::default());
    let (count, make) = (asked.clone(), answer.clone());
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.expect("asked");
            count.0.fetch_add(1, Ordering::SeqCst);
            if let Some(bytes) = make(Message::from_vec(&buffer[..length]).expect("a query")) {
                udp.send_to(&bytes, from).await.expect("sent");
            }
        }
    });
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.expect("accepted");
            let query = read_framed(&mut stream).await;
            count.0.fetch_add(1, Ordering::SeqCst);
            if let Some(bytes) = answer(Message::from_vec(&query).expect("a query")) {
                write_framed(&mut stream, &bytes).await;
            }
        }
    });
    (address, asked)
}

#[derive(Clone, Default)]
struct Asked(Arc<AtomicUsize>);

impl Asked {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// An answer with so many addresses.
fn addresses(query: Message, count: u8) -> Option<Vec<u8>> {
    let mut reply = query.into_response();
    let name = reply.queries[0].name().clone();
    for last in 0..count {
        reply.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A(Ipv4Addr::new(192, 0, 2, last)))));
    }
    reply.to_vec().ok()
}

fn refused(query: Message, code: ResponseCode) -> Option<Vec<u8>> {
    let mut reply = query.into_response();
    reply.metadata.response_code = code;
    reply.to_vec().ok()
}

async fn ask(server: SocketAddr, name: &str) -> Message {
    ask_bytes(server, &query(name).to_vec().expect("encoded")).await
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_truncated_and_whole_over_tcp() {
    let server = start(Vec::new()).await;
    let answer = ask(server.address, "MANY.default.svc.cluster.local.").await;
    // 512 bytes without EDNS: as many addresses as fit, and word that there are more.
    assert!(answer.metadata.truncation && (10..40).contains(&answer.answers.len()), "{}", answer.answers.len());
    let mut wider = query("many.default.svc.cluster.local.");
    wider.set_edns(Edns::new().set_max_payload(8192).clone());
    let answer = ask_bytes(server.address, &wider.to_vec().expect("encoded")).await;
    assert!(answer.metadata.truncation && (40..80).contains(&answer.answers.len()), "{}", answer.answers.len());

    let packet = query("many.default.svc.cluster.local.").to_vec().expect("encoded");
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    write_framed(&mut stream, &packet).await;
    assert_eq!(Message::from_vec(&read_framed(&mut stream).await).expect("parses").answers.len(), 200);
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

#[tokio::test]
async fn an_alias_comes_with_the_addresses_it_leads_to() {
    let (elsewhere, _) = upstream(|query| addresses(query, 2)).await;
    let server = start(vec![elsewhere]).await;
    let answer = ask(server.address, "ext.default.svc.cluster.local.").await;
    let kinds: Vec<RecordType> = answer.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A, RecordType::A]);
    assert_eq!(
        (answer.metadata.id, answer.queries[0].name().to_ascii()),
        (77, "ext.default.svc.cluster.local.".into())
    );
    assert_eq!(
        ask(server.address, "inner.default.svc.cluster.local.").await.answers[0].record_type(),
        RecordType::CNAME
    );
    let looping = ask(server.address, "loop.default.svc.cluster.local.").await;
    assert_eq!(looping.metadata.response_code, ResponseCode::ServFail);

    let (nowhere, _) = upstream(|query| refused(query, ResponseCode::NXDomain)).await;
    let answer = ask(start(vec![nowhere]).await.address, "ext.default.svc.cluster.local.").await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NXDomain, 1));
    let answer = ask(start(Vec::new()).await.address, "ext.default.svc.cluster.local.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "no address is not the same as none known");
}

#[tokio::test]
async fn an_upstream_that_is_silent_or_refuses_is_stepped_over_and_not_asked_again_at_once() {
    let (silent, silently_asked) = upstream(|_| None).await;
    let (refusing, _) = upstream(|query| refused(query, ResponseCode::Refused)).await;
    let (good, _) = upstream(|query| addresses(query, 1)).await;
    let server = start(vec![silent, refusing, good]).await;
    for name in ["one.example.org.", "two.example.org.", "three.example.org."] {
        let answer = ask(server.address, name).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
    }
    assert_eq!(silently_asked.times(), 1);
    let last_word = ask(start(vec![refusing]).await.address, "example.org.").await;
    assert_eq!(last_word.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn the_same_question_of_many_clients_is_asked_once() {
    let (silent, asked) = upstream(|_| None).await;
    let server = start(vec![silent]).await;
    let clients: Vec<_> = (0..50).map(|_| tokio::spawn(ask(server.address, "example.org."))).collect();
    for client in clients {
        let answer = client.await.expect("an answer");
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (77, ResponseCode::ServFail));
    }
    assert_eq!(asked.times(), 1);
}

#[tokio::test]
async fn a_server_that_forwards_back_to_us_does_not_make_a_storm() {
    // Passes on to the address it is told, and counts.
    let between = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let server = start(vec![between.local_addr().expect("an address")]).await;
    let (to, passed_on) = (server.address, Asked::default());
    let count = passed_on.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, _) = between.recv_from(&mut buffer).await.expect("asked");
            count.0.fetch_add(1, Ordering::SeqCst);
            let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
            back.send_to(&buffer[..length], to).await.expect("sent");
        }
    });
    let answer = ask(server.address, "example.org.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(passed_on.times(), 1, "its own question came back and joined the one on its way");
}

#[tokio::test]
async fn an_upstreams_long_answer_is_cut_for_udp_and_whole_over_tcp() {
    // Sends all there is, whatever it was told of the client.
    let (generous, _) = upstream(|query| addresses(query, 250)).await;
    let server = start(vec![generous]).await;
    let mut wide = query("example.org.");
    wide.set_edns(Edns::new().set_max_payload(65_535).clone());
    for packet in [query("example.org."), wide] {
        let answer = ask_bytes(server.address, &packet.to_vec().expect("encoded")).await;
        assert!(answer.metadata.truncation && answer.answers.is_empty());
        assert_eq!(answer.queries, packet.queries);
    }
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    write_framed(&mut stream, &query("example.org.").to_vec().expect("encoded")).await;
    let whole = Message::from_vec(&read_framed(&mut stream).await).expect("parses");
    assert_eq!((whole.answers.len(), whole.metadata.id), (250, 77));
}

#[tokio::test]
async fn queries_of_one_connection_do_not_wait_for_each_other() {
    let (silent, _) = upstream(|_| None).await;
    let server = start(vec![silent]).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    let mut slow = query("example.org.");
    slow.metadata.id = 1;
    let mut both = Vec::new();
    for message in [slow, query("default.svc.cluster.local.")] {
        let packet = message.to_vec().expect("encoded");
        both.extend_from_slice(&u16::try_from(packet.len()).expect("short").to_be_bytes());
        both.extend_from_slice(&packet);
    }
    stream.write_all(&both).await.expect("sent");
    stream.shutdown().await.expect("no more queries");
    let (first, second) = (read_framed(&mut stream).await, read_framed(&mut stream).await);
    let (first, second) = (Message::from_vec(&first).expect("parses"), Message::from_vec(&second).expect("parses"));
    assert_eq!((first.metadata.id, first.metadata.response_code), (77, ResponseCode::NoError));
    assert_eq!((second.metadata.id, second.metadata.response_code), (1, ResponseCode::ServFail));
}

#[test]
fn a_name_without_records_of_a_type_is_not_denied_and_says_for_how_long() {
    let zone = Zone { records: &World, domain: "cluster.local", address: Ipv4Addr::new(10, 96, 0, 10) };
    for (name, aliases) in [("many", 0), ("inner", 1)] {
        let mut asked = query(&format!("{name}.default.svc.cluster.local."));
        asked.queries[0].set_query_type(RecordType::AAAA);
        let Verdict::Answer(bytes) = zone.decide(&asked.to_vec().expect("encoded"), Transport::Udp) else {
            panic!("ours to answer");
        };
        let answer = Message::from_vec(&bytes).expect("parses");
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, aliases), "{name}");
        let RData::SOA(soa) = &answer.authorities[0].data else { panic!("{name}: {:?}", answer.authorities) };
        // RFC 2308: how long the denial may be kept is the smaller of the two.
        assert_eq!((soa.minimum, answer.authorities[0].ttl), (5, 5));
    }
}

/// A packet as a hostile client might send it: a query with some bytes changed, cut, doubled, or nothing but noise.
fn hostile(rng: &SeededRng) -> Vec<u8> {
    let names = ["many.default.svc.cluster.local.", "9.0.96.10.in-addr.arpa.", "example.org.", "cluster.local."];
    let mut message = query(names[usize::try_from(rng.below(4)).expect("small")]);
    message.queries[0].set_query_type(RecordType::from(u16::try_from(rng.below(300)).expect("small")));
    if rng.below(2) == 0 {
        message.set_edns(Edns::new().set_max_payload(u16::try_from(rng.below(65_536)).expect("16 bits")).clone());
    }
    let mut packet = message.to_vec().expect("encoded");
    let at = |rng: &SeededRng, packet: &[u8]| usize::try_from(rng.below(packet.len() as u64)).expect("small");
    for _ in 0..rng.below(6) {
        let index = at(rng, &packet);
        match rng.below(5) {
            0 => packet.truncate(index + 1),
            1 => packet[index] = 0xc0,
            2 => packet.extend_from_within(index..),
            3 => packet.insert(index, (rng.next_u64() & 0xff) as u8),
            _ => packet[index] = (rng.next_u64() & 0xff) as u8,
        }
        packet.truncate(4096);
    }
    packet
}

#[test]
fn no_packet_confuses_the_server() {
    let zone = Zone { records: &World, domain: "cluster.local", address: Ipv4Addr::new(10, 96, 0, 10) };
    let rng = SeededRng::new(20);
    let (mut answered, mut forwarded, mut ignored) = (0, 0, 0);
    for case in 0..20_000 {
        let packet = hostile(&rng);
        match zone.decide(&packet, if case % 2 == 0 { Transport::Udp } else { Transport::Tcp }) {
            Verdict::Answer(bytes) => {
                answered += 1;
                assert_eq!(bytes[..2], packet[..2], "case {case}: the id");
                assert!(bytes[2] & 0x80 != 0, "case {case}: a response");
                assert!(packet[2] & 0x80 == 0, "case {case}: never an answer to an answer");
                assert!(case % 2 == 1 || bytes.len() <= 1232, "case {case}: {} bytes over UDP", bytes.len());
                Message::from_vec(&bytes).unwrap_or_else(|err| panic!("case {case}: our own answer: {err}"));
            }
            Verdict::Forward(query) => {
                forwarded += 1;
                query.to_vec().unwrap_or_else(|err| panic!("case {case}: what is forwarded: {err}"));
            }
            Verdict::Follow(_) => panic!("case {case}: no alias was asked for"),
            Verdict::Ignore => ignored += 1,
        }
    }
    assert!(answered > 1000 && forwarded > 1000 && ignored > 100, "{answered} {forwarded} {ignored}");
}
