//! Components in the server's own process: the real `kube` client over the server's tower service.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use reeve_apiserver::registry::UserInfo;
use reeve_kinds::field::FieldError;
use reeve_kinds::shape::Shape;
use reeve_kinds::{Column, Kind, Names, Part};
use serde_json::{Value, json};
use support::Cluster;

fn admin() -> UserInfo {
    UserInfo::new("test", &["system:masters"])
}

fn config_map(name: &str) -> ConfigMap {
    from(json!({"metadata": {"name": name}, "data": {"a": "1"}}))
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_component_reads_and_writes_without_a_socket() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.server.client(admin()), "default");
    let made = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.resource_version.is_some());
    let patch = Patch::Merge(json!({"data": {"b": "2"}}));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    assert_eq!(maps.list(&ListParams::default().fields("metadata.name=a")).await.unwrap().items.len(), 1);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_watcher_sees_what_there_is_and_then_every_change_in_order() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.server.client(admin()), "kube-public");
    maps.create(&PostParams::default(), &config_map("before")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let own = config.fields("metadata.name!=kube-root-ca.crt");
        let mut events = watcher(maps.clone(), own).boxed();
        let mut seen = Vec::new();
        while seen.last().map(String::as_str) != Some("deleted after") {
            let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap();
            let name = |map: &ConfigMap| map.metadata.name.clone().unwrap_or_default();
            seen.push(match &event {
                watcher::Event::Init => "init".to_owned(),
                watcher::Event::InitApply(map) => format!("found {}", name(map)),
                watcher::Event::InitDone => "ready".to_owned(),
                watcher::Event::Apply(map) => format!("applied {}", name(map)),
                watcher::Event::Delete(map) => format!("deleted {}", name(map)),
            });
            if matches!(event, watcher::Event::InitDone) {
                maps.create(&PostParams::default(), &config_map("after")).await.unwrap();
                maps.delete("after", &DeleteParams::default()).await.unwrap();
            }
        }
        assert_eq!(seen, ["init", "found before", "ready", "applied after", "deleted after"]);
    }
}

#[tokio::test]
async fn a_component_has_its_own_rights_and_no_others() {
    let cluster = Cluster::start().await;
    let scheduler = cluster.server.client(UserInfo::new("system:kube-scheduler", &[]));
    Api::<Pod>::all(scheduler.clone()).list(&ListParams::default()).await.unwrap();
    let refused = Api::<Secret>::all(scheduler).list(&ListParams::default()).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(
        status.message,
        r#"secrets is forbidden: User "system:kube-scheduler" cannot list resource "secrets" in API group "" at the cluster scope"#
    );
    let node = cluster.server.client(UserInfo::new("system:node:a", &["system:nodes"]));
    let pods = Api::<Pod>::all(node);
    pods.list(&ListParams::default().fields("spec.nodeName=a")).await.unwrap();
    assert!(pods.list(&ListParams::default().fields("spec.nodeName=b")).await.is_err());
}

#[tokio::test]
async fn a_component_of_this_process_writes_under_the_name_of_its_program() {
    let cluster = Cluster::start().await;
    for (user, program) in [("kubernetes-admin", "reeve"), ("system:node:a", "kubelet")] {
        let client = cluster.server.client(UserInfo::new(user, &["system:masters"]));
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let made = from(json!({"metadata": {"generateName": "a"}, "data": {"a": "b"}}));
        let made = maps.create(&PostParams::default(), &made).await.unwrap();
        let managers = made.metadata.managed_fields.unwrap_or_default();
        let managers: Vec<_> = managers.into_iter().filter_map(|entry| entry.manager).collect();
        assert_eq!(managers, [program]);
    }
}

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to_from_the_moment_it_hears_of_them_until_they_are_gone() {
    let cluster = Cluster::start().await;
    let client = cluster.server.client(admin());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "default"}}))).await.unwrap();
    let node = |name: &str| cluster.server.client(UserInfo::new(format!("system:node:{name}"), &["system:nodes"]));
    let secrets = |name| Api::<Secret>::namespaced(node(name), "default");
    let why = |answer: kube::Result<Secret>| match answer.unwrap_err() {
        kube::Error::Api(status) => status.message.clone(),
        error => panic!("{error}"),
    };
    let stranger = |node: &str| {
        format!(
            "secrets \"s\" is forbidden: User \"system:node:{node}\" cannot get resource \"secrets\" in API group \"\" in \
             the namespace \"default\": no relationship found between node '{node}' and this object"
        )
    };
    let made: Api<Secret> = Api::namespaced(client.clone(), "default");
    made.create(&PostParams::default(), &from(json!({"metadata": {"name": "s"}}))).await.unwrap();
    assert_eq!(why(secrets("a").get("s").await), stranger("a"));
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let own = watcher::Config::default().fields("spec.nodeName=a");
    let mut heard = watcher(Api::<Pod>::all(node("a")), own).boxed();
    // Again and again: the node asks the moment its watch tells of the pod.
    for round in 0..20 {
        let spec = json!({"nodeName": "a", "containers": [{"name": "c", "image": "i",
            "envFrom": [{"secretRef": {"name": "s"}}]}]});
        pods.create(&PostParams::default(), &from(json!({"metadata": {"name": "p"}, "spec": spec}))).await.unwrap();
        let news = async {
            use watcher::Event::{Apply, InitApply};
            while !matches!(heard.next().await.unwrap().unwrap(), InitApply(_) | Apply(_)) {}
        };
        tokio::time::timeout(Duration::from_secs(30), news).await.expect("the node hears of its pod");
        let got = secrets("a").get("s").await;
        assert!(got.is_ok(), "round {round}: {got:?}");
        let selected = ListParams::default().fields("metadata.name=s");
        assert_eq!(secrets("a").list(&selected).await.unwrap().items.len(), 1);
        assert_eq!(why(secrets("b").get("s").await), stranger("b"));
        pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
        assert_eq!(why(secrets("a").get("s").await), stranger("a"));
    }
}

#[tokio::test]
async fn a_large_list_is_complete_page_by_page() {
    let cluster = Cluster::start().await;
    let client = cluster.server.client(admin());
    let namespace: Namespace = from(json!({"metadata": {"name": "many"}}));
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "many");
    for index in 0..25 {
        maps.create(&PostParams::default(), &config_map(&format!("m{index:02}"))).await.unwrap();
    }
    let (mut names, mut page) = (Vec::new(), ListParams::default().limit(10));
    loop {
        let list = maps.list(&page).await.unwrap();
        names.extend(list.items.into_iter().filter_map(|map| map.metadata.name));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, (0..25).map(|index| format!("m{index:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_token_bound_to_a_pod_dies_with_it_and_a_node_gets_only_those_of_its_own_pods() {
    use k8s_openapi::api::authentication::v1::TokenRequest;
    let cluster = Cluster::start().await;
    let client = cluster.server.client(admin());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "robot"}}))).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let spec = json!({"serviceAccountName": "robot", "nodeName": "a", "containers": [{"name": "c", "image": "i"}]});
    let pod =
        pods.create(&PostParams::default(), &from(json!({"metadata": {"name": "p"}, "spec": spec}))).await.unwrap();
    let uid = pod.metadata.uid.unwrap();
    let bound = |uid: &str| -> TokenRequest {
        let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid});
        from(json!({"spec": {"audiences": [], "expirationSeconds": 3607, "boundObjectRef": reference}}))
    };
    let for_audience = |uid: &str, audience: &str| {
        let mut request = bound(uid);
        request.spec.as_mut().unwrap().audiences = Some(vec![audience.to_owned()]);
        request
    };
    let ask = |user: UserInfo, request: TokenRequest| {
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.server.client(user), "default");
        async move { accounts.create_token_request("robot", &PostParams::default(), &request).await }
    };
    let node = |name: &str| UserInfo::new(format!("system:node:{name}"), &["system:nodes"]);
    let made = ask(node("a"), bound(&uid)).await.unwrap();
    for (asker, request, why) in [
        (node("b"), bound(&uid), "no relationship found between node 'b' and this object"),
        (node("a"), from(json!({"spec": {"audiences": []}})), "node requested token not bound to a pod"),
        (node("a"), bound(""), "node requested token with a pod binding without a uid"),
        (
            node("a"),
            bound("another"),
            "the UID in the bound object reference (another) does not match the UID in record",
        ),
        (node("a"), for_audience(&uid, "vault"), "audience \"vault\" not found in pod spec volume"),
    ] {
        let kube::Error::Api(status) = ask(asker, request).await.unwrap_err() else { panic!("{why}") };
        assert!(status.code == 403 && status.message.contains(why), "{why}: {}", status.message);
    }
    let stale = ask(admin(), bound("another")).await.unwrap_err().to_string();
    assert!(
        stale.contains("the UID in the bound object reference (another) does not match the UID in record"),
        "{stale}"
    );
    let token = made.status.unwrap().token.unwrap();
    let request = format!("GET /api HTTP/1.1\r\nHost: k\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    assert!(support::raw(&cluster, None, &request).await.starts_with("HTTP/1.1 200"));
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    // The cache follows the store; the deletion was answered, so it is soon there.
    cluster.server.registry().fresh().await.unwrap();
    assert!(support::raw(&cluster, None, &request).await.starts_with("HTTP/1.1 401"));
}

/// ConfigMaps whose defaults panic: what a bug in a kind would do.
struct Broken(Arc<dyn Kind>);

impl Kind for Broken {
    fn names(&self) -> &Names {
        self.0.names()
    }
    fn shape(&self) -> &'static Shape {
        self.0.shape()
    }
    fn default(&self, object: &mut Value) {
        assert!(object.pointer("/data/a").is_none(), "a bug");
    }
    fn prepare_create(&self, object: &mut Value) {
        self.0.prepare_create(object);
    }
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        self.0.validate_create(object)
    }
    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        self.0.prepare_update(part, object, old);
    }
    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        self.0.validate_update(part, object, old)
    }
    fn columns(&self) -> &[Column] {
        self.0.columns()
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        self.0.row(object, now)
    }
}

#[tokio::test]
async fn a_panic_is_an_error_of_one_request_and_the_server_goes_on() {
    let kinds = reeve_kinds::builtin().into_iter().map(|kind| -> Arc<dyn Kind> {
        if kind.names().plural == "configmaps" { Arc::new(Broken(kind)) } else { kind }
    });
    let cluster = Cluster::start_with(kinds.collect()).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.server.client(admin()), "default");
    let error = maps.create(&PostParams::default(), &config_map("a")).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.message.contains("caused apiserver to panic")), (500, true));
    assert!(maps.list(&ListParams::default()).await.is_ok());
    let sound = from(json!({"metadata": {"name": "b"}}));
    assert!(maps.create(&PostParams::default(), &sound).await.is_ok());
}
