//! The environment as tables: pod in, variables or the kubelet's complaint out.

use std::sync::Arc;

use super::*;

struct Objects;

impl Lookup for Objects {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let map = serde_json::json!({ "data": { "color": "blue", "size": "L" } });
        (name == "cfg").then(|| Arc::new(serde_json::from_value(map).unwrap()))
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        let secret = serde_json::json!({ "data": { "password": "aHVudGVyMg==" } });
        (name == "sec").then(|| Arc::new(serde_json::from_value(secret).unwrap()))
    }
}

fn env_of(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "p", "namespace": "ns" },
        "spec": { "containers": [container] },
    }))
    .unwrap();
    let services = BTreeMap::from([("SVC_SERVICE_HOST".to_owned(), "10.96.0.9".to_owned())]);
    let env = environment(&pod, &spec(&pod).containers[0], &services, &Objects, &Surroundings::default());
    env.map(|env| env.into_iter().collect()).map_err(|error| error.to_string())
}

#[test]
fn variables_come_from_every_source_and_may_refer_to_earlier_ones() {
    let env = env_of(serde_json::json!({
        "name": "c",
        "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "cfg" } }, { "secretRef": { "name": "sec" } }],
        "env": [
            { "name": "A", "value": "1" },
            { "name": "B", "value": "$(A)-$(P_color)-$(SVC_SERVICE_HOST)-$(C)" },
            { "name": "C", "valueFrom": { "configMapKeyRef": { "name": "cfg", "key": "size" } } },
            { "name": "D", "valueFrom": { "secretKeyRef": { "name": "sec", "key": "password" } } },
            { "name": "E", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            { "name": "F", "valueFrom": { "configMapKeyRef": { "name": "no", "key": "x", "optional": true } } },
        ],
    }))
    .unwrap();
    assert_eq!(env["B"], "1-blue-10.96.0.9-$(C)");
    assert_eq!((&*env["C"], &*env["D"], &*env["E"]), ("L", "hunter2", "p"));
    assert_eq!((&*env["P_size"], &*env["password"]), ("L", "hunter2"));
    assert!(!env.contains_key("F"));
}

#[test]
fn what_is_missing_is_named_in_the_kubelets_words() {
    for (source, error) in [
        (serde_json::json!({ "configMapKeyRef": { "name": "no", "key": "x" } }), "configmap \"no\" not found"),
        (serde_json::json!({ "secretKeyRef": { "name": "no", "key": "x" } }), "secret \"no\" not found"),
        (
            serde_json::json!({ "configMapKeyRef": { "name": "cfg", "key": "x" } }),
            "couldn't find key x in ConfigMap ns/cfg",
        ),
        (serde_json::json!({ "secretKeyRef": { "name": "sec", "key": "x" } }), "couldn't find key x in Secret ns/sec"),
    ] {
        let container = serde_json::json!({ "name": "c", "env": [{ "name": "A", "valueFrom": source }] });
        assert_eq!(env_of(container).unwrap_err(), error);
    }
    let container = serde_json::json!({ "name": "c", "envFrom": [{ "configMapRef": { "name": "no" } }] });
    assert_eq!(env_of(container).unwrap_err(), "configmap \"no\" not found");
}

#[test]
fn service_links_are_those_of_the_own_namespace_and_always_kubernetes() {
    let service = |namespace: &str, name: &str, ip: &str| -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "clusterIP": ip, "ports": [
                { "name": "http", "port": 80 },
                { "name": "q", "port": 53, "protocol": "UDP" },
            ] },
        }))
        .unwrap()
    };
    let services = [
        service("default", "kubernetes", "10.96.0.1"),
        service("ns", "my-svc", "10.96.0.2"),
        service("ns", "headless", "None"),
        service("other", "x", "10.96.0.3"),
    ];
    let links = |links: bool| {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "namespace": "ns" },
            "spec": { "containers": [], "enableServiceLinks": links },
        }))
        .unwrap();
        service_links(&pod, services.iter())
    };
    let env = links(true);
    assert_eq!(env["MY_SVC_SERVICE_HOST"], "10.96.0.2");
    assert_eq!(env["MY_SVC_SERVICE_PORT_HTTP"], "80");
    assert_eq!(env["MY_SVC_PORT"], "tcp://10.96.0.2:80");
    assert_eq!(env["MY_SVC_PORT_53_UDP"], "udp://10.96.0.2:53");
    assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
    assert!(!env.keys().any(|key| key.starts_with("X_") || key.starts_with("HEADLESS")));
    assert!(links(false).keys().all(|key| key.starts_with("KUBERNETES_")));
}
