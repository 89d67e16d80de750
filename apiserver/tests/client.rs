//! Components in the server's own process: the real `kube` client over the server's tower service.

mod support;

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use reeve_apiserver::registry::UserInfo;
use serde_json::json;
use support::Cluster;

fn admin() -> UserInfo {
    UserInfo::new("test", &["system:masters"])
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).unwrap()
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
async fn a_large_list_is_complete_page_by_page() {
    let cluster = Cluster::start().await;
    let client = cluster.server.client(admin());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "many"}})).unwrap();
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
