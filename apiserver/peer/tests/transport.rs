//! What the transport promises, over real connections on loopback.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use reeve_peer::{Intake, PeerConfig, PeerTransport, host_of};
use reeve_store::{Parcel, Peer, ReceiveError, Transport as _};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::sync::mpsc;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const GROUP: u64 = 77;

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    fn certify(&self, host: &str) -> Arc<SingleCertAndKey> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap();
        Arc::new(SingleCertAndKey::from(certified))
    }

    fn transport(&self, id: u64, group: u64, host: &str) -> Arc<PeerTransport> {
        self.transport_at(id, group, host, "")
    }

    fn transport_at(&self, id: u64, group: u64, host: &str, address: &str) -> Arc<PeerTransport> {
        let (ca_pem, address, certificate) = (self.pem.clone(), address.to_owned(), self.certify(host));
        PeerTransport::new(PeerConfig { id, cluster: group, ca_pem, address, certificate }).unwrap()
    }

    fn member(&self, id: u64) -> Arc<PeerTransport> {
        self.transport(id, GROUP, &host_of(id))
    }
}

/// Takes everything in, or nothing from one that was removed.
#[derive(Clone)]
struct Taken(mpsc::Sender<Parcel>, bool);

impl Intake for Taken {
    fn receive(&self, parcel: Parcel) -> BoxFuture<'_, Result<(), ReceiveError>> {
        Box::pin(async move {
            if self.1 {
                return Err(ReceiveError::Removed { from: parcel.from });
            }
            self.0.send(parcel).await.map_err(|_| ReceiveError::Closed)
        })
    }
}

/// A member that listens: its address, and what it has got.
fn listening(member: &PeerTransport) -> (String, mpsc::Receiver<Parcel>) {
    listening_on(member, TcpListener::bind("127.0.0.1:0").unwrap(), false)
}

fn listening_on(member: &PeerTransport, on: TcpListener, refuses: bool) -> (String, mpsc::Receiver<Parcel>) {
    let address = on.local_addr().unwrap().to_string();
    let (taken, got) = mpsc::channel(4);
    member.serve(on, Taken(taken, refuses)).unwrap();
    (address, got)
}

fn parcel(text: &str, urgent: bool) -> Parcel {
    Parcel { from: 1, to: 2, message: Bytes::copy_from_slice(text.as_bytes()), urgent }
}

/// Sends, again and again as Raft does, until something has arrived.
async fn arrives(member: &PeerTransport, parcel: &Parcel, got: &mut mpsc::Receiver<Parcel>) -> Parcel {
    let again = async {
        loop {
            member.send(parcel.clone());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        arrived = got.recv() => arrived.unwrap(),
        () = again => unreachable!(),
        () = tokio::time::sleep(PATIENCE) => panic!("{parcel:?} did not arrive"),
    }
}

async fn settled(what: impl Fn() -> bool) {
    let looked = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap();
}

fn peer(id: u64, address: &str) -> Vec<Peer> {
    vec![Peer { id, address: address.to_owned() }]
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_in_order_with_who_sent_them_and_how_urgent_they_are() {
    let authority = Authority::new();
    let (one, two) = (authority.member(1), authority.member(2));
    let (address, mut got) = listening(&two);
    one.set_peers(peer(2, &address));
    settled(|| one.figures().iter().any(|own| own.connected)).await;
    let first = arrives(&one, &parcel("first", true), &mut got).await;
    assert_eq!(first, parcel("first", true));
    for number in 0..200 {
        one.send(parcel(&number.to_string(), false));
    }
    let mut numbers = Vec::new();
    while numbers.len() < 200 {
        let next = tokio::time::timeout(PATIENCE, got.recv()).await.unwrap().unwrap();
        if !next.urgent {
            numbers.push(String::from_utf8(next.message.to_vec()).unwrap().parse::<u32>().unwrap());
        }
    }
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_message_overtakes_those_that_a_slow_member_has_not_read() {
    let authority = Authority::new();
    let (one, two) = (authority.member(1), authority.member(2));
    let (address, mut got) = listening(&two);
    one.set_peers(peer(2, &address));
    settled(|| one.figures().iter().any(|own| own.connected)).await;
    arrives(&one, &parcel("open", false), &mut got).await;
    let large = "x".repeat(1024 * 1024);
    (0..30).for_each(|_| one.send(parcel(&large, false)));
    let mut seen = 0;
    one.send(parcel("urgent", true));
    // The reader of the large ones is full: they wait in queues and windows.
    loop {
        let next = tokio::time::timeout(PATIENCE, got.recv()).await.unwrap().unwrap();
        if next.urgent {
            break;
        }
        seen += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen < 30, "{seen}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_comes_back_is_found_again_also_at_another_address() {
    let authority = Authority::new();
    let one = authority.member(1);
    let two = authority.member(2);
    let (address, mut got) = listening(&two);
    one.set_peers(peer(2, &address));
    arrives(&one, &parcel("a", false), &mut got).await;
    two.stop().await;
    drop(two);
    settled(|| one.figures().iter().all(|own| !own.connected)).await;
    let two = authority.member(2);
    let (_, mut got) = listening_on(&two, TcpListener::bind(&address).unwrap(), false);
    assert_eq!(arrives(&one, &parcel("b", false), &mut got).await, parcel("b", false));
    two.stop().await;
    let two = authority.member(2);
    let (address, mut got) = listening(&two);
    one.set_peers(peer(2, &address));
    assert_eq!(arrives(&one, &parcel("c", false), &mut got).await, parcel("c", false));
    one.set_peers(Vec::new());
    assert!(one.figures().is_empty());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_of_the_group_is_not_heard() {
    let authority = Authority::new();
    let two = authority.member(2);
    let (address, mut got) = listening(&two);
    let strangers = [
        // Another authority, as that of users and nodes is.
        Authority::new().member(1),
        // A certificate that names no member.
        authority.transport(1, GROUP, "kubernetes-admin"),
        // Another member's.
        authority.transport(1, GROUP, &host_of(3)),
        // Another group.
        authority.transport(1, GROUP + 1, &host_of(1)),
    ];
    for stranger in &strangers {
        stranger.set_peers(peer(2, &address));
    }
    let shouting = async {
        loop {
            strangers.iter().for_each(|stranger| stranger.send(parcel("let me in", true)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        got = got.recv() => panic!("{got:?}"),
        () = shouting => {}
        () = tokio::time::sleep(Duration::from_millis(1500)) => {}
    }
    // A server of no member is not spoken to.
    let pretender = authority.transport(2, GROUP, &host_of(9));
    let (false_address, mut false_got) = listening(&pretender);
    let one = authority.member(1);
    one.set_peers(peer(2, &false_address));
    one.send(parcel("secret", true));
    assert!(tokio::time::timeout(Duration::from_millis(500), false_got.recv()).await.is_err());
    one.set_peers(peer(2, &address));
    assert_eq!(arrives(&one, &parcel("hello", true), &mut got).await, parcel("hello", true));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_removed_is_told_so() {
    let authority = Authority::new();
    let (one, two) = (authority.member(1), authority.member(2));
    let (address, _got) = listening_on(&two, TcpListener::bind("127.0.0.1:0").unwrap(), true);
    let mut removed = one.removed();
    one.set_peers(peer(2, &address));
    let told = async {
        while !*removed.borrow_and_update() {
            one.send(parcel("hello", true));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_comes_back_elsewhere_is_found_before_the_group_knows() {
    let authority = Authority::new();
    let one = authority.member(1);
    let (address_of_one, _got_by_one) = listening(&one);
    // Where the second was: nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    one.set_peers(peer(2, &gone));
    let on = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = on.local_addr().unwrap().to_string();
    let two = authority.transport_at(2, GROUP, &host_of(2), &address);
    let (_, mut got) = listening_on(&two, on, false);
    two.set_peers(peer(1, &address_of_one));
    assert_eq!(arrives(&one, &parcel("found", true), &mut got).await, parcel("found", true));
    // The group goes on telling the old address until it has agreed on the new one.
    one.set_peers(peer(2, &gone));
    assert_eq!(arrives(&one, &parcel("again", false), &mut got).await.message, "again");
    one.stop().await;
    two.stop().await;
}
