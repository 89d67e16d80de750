//! A server that joins: what it is given, and what it is told when it may not.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_apiserver::join::{
    ControlPlane, Group, JoinRequest, JoinToken, Network, Record, Settings, Unjoined, bootstrap_secret, join,
};
use reeve_apiserver::pki::{Pki, public_key_hash};
use reeve_apiserver::registry::UserInfo;
use reeve_store::{Leadership, MemberError, MemberInfo, MemberStatus, MemoryKv, PeerFigures, Role};
use support::Cluster;

/// A group that does what it is told.
struct Told(Mutex<MemberStatus>);

impl Told {
    fn new() -> Arc<Self> {
        let first = MemberInfo { id: 1, address: "127.0.0.1:1".to_owned(), voter: true, progress: None };
        let leadership = Leadership { role: Role::Leader, leader: Some(1), term: 1 };
        Arc::new(Self(Mutex::new(MemberStatus { id: 1, leadership, members: vec![first], ..MemberStatus::default() })))
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.0.lock().unwrap().members.clone()
    }
}

/// The first member reaches nobody.
struct Connections;

impl Network for Connections {
    fn figures(&self) -> Vec<PeerFigures> {
        vec![PeerFigures { id: 7, connected: false, sent_bytes: 5, dropped: 1, disconnects: 2 }]
    }
}

#[async_trait::async_trait]
impl Group for Told {
    async fn status(&self) -> Result<MemberStatus, MemberError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn add_learner(&self, id: u64, address: &str) -> Result<(), MemberError> {
        let members = &mut self.0.lock().unwrap().members;
        if members.iter().any(|member| member.id == id) {
            return Err(MemberError::Exists { id });
        }
        members.push(MemberInfo { id, address: address.to_owned(), voter: false, progress: None });
        Ok(())
    }

    async fn promote(&self, id: u64) -> Result<(), MemberError> {
        let members = &mut self.0.lock().unwrap().members;
        members.iter_mut().filter(|member| member.id == id).for_each(|member| member.voter = true);
        Ok(())
    }

    async fn remove(&self, id: u64) -> Result<(), MemberError> {
        self.0.lock().unwrap().members.retain(|member| member.id != id);
        Ok(())
    }

    async fn lead(&self, id: u64) -> Result<(), MemberError> {
        self.0.lock().unwrap().leadership.leader = Some(id);
        Ok(())
    }
}

struct Bed {
    cluster: Cluster,
    admin: kube::Client,
    group: Arc<Told>,
}

impl Bed {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let group = Told::new();
        let settings = Settings {
            cluster_id: "c1".to_owned(),
            cluster_cidr: "10.64.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
        };
        let kv = Arc::new(MemoryKv::new());
        let members = (Arc::clone(&group) as _, Arc::new(Connections) as _);
        let control_plane = ControlPlane::new(members, kv, cluster.pki.clone(), settings);
        let (_, leadership) = tokio::sync::watch::channel(Leadership::default());
        cluster.server.serve_control_plane(control_plane, leadership);
        let admin = cluster.server.client(UserInfo::new("admin", &["system:masters"]));
        Self { cluster, admin, group }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.admin.clone(), "kube-system")
    }

    async fn token(&self, expires: Option<Timestamp>) -> JoinToken {
        let hash = public_key_hash(self.cluster.pki.ca_pem()).unwrap();
        let token = JoinToken::generate(&SeededRng::from_os(), hash);
        let secret = serde_json::from_value(bootstrap_secret(&token, "", expires)).unwrap();
        self.secrets().create(&PostParams::default(), &secret).await.unwrap();
        token
    }

    async fn join(&self, token: &JoinToken, name: &str, id: u64) -> Result<Vec<String>, Unjoined> {
        let record = Record {
            name: name.to_owned(),
            id,
            peer_address: format!("127.0.0.1:{id}"),
            api_address: "127.0.0.1:6443".to_owned(),
            replaces: None,
        };
        let request = JoinRequest { record, replaces: None, in_etcd: None, version: "test".to_owned() };
        let joined = join(&self.cluster.address.to_string(), token, &request).await?;
        Ok(joined.members.into_iter().map(|record| record.name).collect())
    }

    async fn replace(&self, token: &JoinToken, name: &str, id: u64) -> Result<Option<String>, Unjoined> {
        let address = format!("127.0.0.1:{id}");
        let record =
            Record { name: name.to_owned(), id, peer_address: address.clone(), api_address: address, replaces: None };
        let request = JoinRequest { record, replaces: Some(name.to_owned()), in_etcd: None, version: String::new() };
        let joined = join(&self.cluster.address.to_string(), token, &request).await?;
        Ok(joined.record.replaces)
    }

    async fn ask(&self, method: &str, path: &str, user: UserInfo) -> Result<String, kube::Error> {
        let request = http::Request::builder().method(method).uri(path).body(Vec::new()).unwrap();
        self.cluster.server.client(user).request_text(request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_token_gets_the_keys_and_becomes_a_learner_also_when_it_asks_twice() {
    let bed = Bed::start().await;
    let token = bed.token(None).await;
    assert_eq!(bed.join(&token, "b", 7).await.unwrap(), ["1", "b"]);
    assert_eq!(bed.join(&token, "b", 7).await.unwrap(), ["1", "b"]);
    let learner = bed.group.members().pop().unwrap();
    assert_eq!((learner.id, learner.address.as_str(), learner.voter), (7, "127.0.0.1:7", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_join_make_a_folder_whose_certificates_the_cluster_takes() {
    let bed = Bed::start().await;
    let home = tempfile::tempdir().unwrap();
    let config = reeve_apiserver::pki::PkiConfig {
        dir: home.path().join("pki"),
        addresses: Vec::new(),
        names: Vec::new(),
        service_address: "10.96.0.1".parse().unwrap(),
        cluster_domain: "cluster.local".to_owned(),
    };
    let token = bed.token(None).await;
    let record = Record {
        name: "b".to_owned(),
        id: 7,
        peer_address: "127.0.0.1:7".to_owned(),
        api_address: "127.0.0.1:6443".to_owned(),
        replaces: None,
    };
    let request = JoinRequest { record, replaces: None, in_etcd: None, version: String::new() };
    let joined = join(&bed.cluster.address.to_string(), &token, &request).await.unwrap();
    joined.keys.write(&config.dir).unwrap();
    let pki = Pki::open(&config, RealClock::shared().now()).unwrap();
    assert_eq!(pki.ca_pem(), bed.cluster.pki.ca_pem());
    assert_eq!(pki.peer_ca_pem(), bed.cluster.pki.peer_ca_pem());
    assert_eq!(pki.signing_key_pem(), bed.cluster.pki.signing_key_pem());
    assert_ne!(pki.admin().key_pem, bed.cluster.pki.admin().key_pem);
    let admin = pki.admin();
    bed.cluster.write_kubeconfig("other", admin);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_told_why_it_may_not_join() {
    let bed = Bed::start().await;
    let good = bed.token(None).await;
    let unknown = JoinToken::generate(&SeededRng::from_os(), good.ca_hash.clone());
    let refused = bed.join(&unknown, "b", 7).await.unwrap_err().to_string();
    assert!(refused.contains("there is no such token, or its secret is another one"), "{refused}");
    let expired = bed.token(Some("2020-01-01T00:00:00Z".parse().unwrap())).await;
    let refused = bed.join(&expired, "b", 7).await.unwrap_err().to_string();
    assert!(refused.contains("it has expired at 2020-01-01T00:00:00Z"), "{refused}");
    let mut foreign = good.clone();
    foreign.ca_hash = "0".repeat(64);
    let refused = bed.join(&foreign, "b", 7).await.unwrap_err();
    assert!(matches!(refused, Unjoined::OtherCluster { .. }), "{refused}");
    assert!(!refused.may_pass());
    assert_eq!(bed.group.members().len(), 1);
    bed.join(&good, "b", 7).await.unwrap();
    let refused = bed.join(&good, "b", 8).await.unwrap_err().to_string();
    assert!(refused.contains("there is a member \"b\" already, at 127.0.0.1:7"), "{refused}");
    let refused = bed.join(&good, "B", 9).await.unwrap_err().to_string();
    assert!(refused.contains("invalid server name \"B\""), "{refused}");
    bed.secrets().delete(&format!("bootstrap-token-{}", good.id), &DeleteParams::default()).await.unwrap();
    assert!(bed.join(&good, "c", 8).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_state_would_lie_elsewhere_than_that_of_the_others_may_not_join() {
    let bed = Bed::start().await;
    let token = bed.token(None).await;
    let address = "127.0.0.1:7".to_owned();
    let (peer_address, api_address) = (String::new(), address);
    let record = Record { name: "b".to_owned(), id: 7, peer_address, api_address, replaces: None };
    let request = JoinRequest { record, replaces: None, in_etcd: Some("1".to_owned()), version: String::new() };
    let refused = join(&bed.cluster.address.to_string(), &token, &request).await.unwrap_err().to_string();
    assert!(refused.contains("keeps its state itself: start the new server without --etcd-servers"), "{refused}");
    let refused = join(&bed.cluster.address.to_string(), &token, &JoinRequest { in_etcd: None, ..request }).await;
    assert!(refused.unwrap_err().to_string().contains("invalid peer address \"\""));
    assert_eq!(bed.group.members().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_told_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let token = JoinToken::generate(&SeededRng::new(1), "0".repeat(64));
    let record = Record {
        name: "b".to_owned(),
        id: 7,
        peer_address: address.clone(),
        api_address: address.clone(),
        replaces: None,
    };
    let refused =
        join(&address, &token, &JoinRequest { record, replaces: None, in_etcd: None, version: String::new() })
            .await
            .unwrap_err();
    assert!(refused.to_string().starts_with(&format!("cannot reach a server at {address}")), "{refused}");
    assert!(refused.may_pass());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_listed_promoted_and_removed_by_those_who_may() {
    let bed = Bed::start().await;
    let token = bed.token(None).await;
    bed.join(&token, "b", 7).await.unwrap();
    let admin = || UserInfo::new("admin", &["system:masters"]);
    let list = bed.ask("GET", "/reeve/v1/members", admin()).await.unwrap();
    assert!(list.contains(r#""name":"b""#) && list.contains(r#""role":"learner""#), "{list}");
    let list = bed.ask("POST", "/reeve/v1/members/b/promote", admin()).await.unwrap();
    assert!(list.contains(r#""role":"voter""#), "{list}");
    let list = bed.ask("POST", "/reeve/v1/members/7/lead", admin()).await.unwrap();
    assert!(list.contains(r#""role":"leader""#), "{list}");
    let stranger = || UserInfo::new("jane", &["system:authenticated"]);
    for (method, path) in [("GET", "/reeve/v1/members"), ("DELETE", "/reeve/v1/members/b")] {
        let refused = bed.ask(method, path, stranger()).await.unwrap_err().to_string();
        assert!(refused.contains("cannot"), "{refused}");
    }
    bed.ask("DELETE", "/reeve/v1/members/b", admin()).await.unwrap();
    let gone = bed.ask("DELETE", "/reeve/v1/members/b", admin()).await.unwrap_err().to_string();
    assert!(gone.contains("there is no member"), "{gone}");
    // The name is free again.
    bed.join(&token, "b", 8).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_replaces_a_lost_one_takes_over_its_name() {
    let bed = Bed::start().await;
    let token = bed.token(None).await;
    bed.join(&token, "b", 7).await.unwrap();
    assert!(bed.join(&token, "b", 8).await.is_err());
    assert_eq!(bed.replace(&token, "b", 8).await.unwrap().as_deref(), Some("7"));
    // Again, after a crash of its own.
    assert_eq!(bed.replace(&token, "b", 8).await.unwrap().as_deref(), Some("7"));
    let refused = bed.replace(&token, "z", 9).await.unwrap_err().to_string();
    assert!(refused.contains("there is no member \"z\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_tell_of_every_member_and_a_lost_one_does_not_make_a_server_unready() {
    let bed = Bed::start().await;
    let token = bed.token(None).await;
    bed.join(&token, "b", 7).await.unwrap();
    let admin = || UserInfo::new("admin", &["system:masters"]);
    let health = bed.ask("GET", "/readyz?verbose", admin()).await.unwrap();
    assert!(health.contains("[+]member/1 ok, leader\n[-]member/b not reached, learner\n"), "{health}");
    assert!(health.ends_with("readyz check passed\n"), "{health}");
    let metrics = bed.ask("GET", "/metrics", admin()).await.unwrap();
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_id{server_id=\"1\"} 1",
        "etcd_network_peer_sent_bytes_total{To=\"7\"} 5",
        "etcd_network_disconnected_peers_total{Remote=\"7\"} 2",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}:\n{metrics}");
    }
}
