//! The real kubectl against the API server over TLS on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use support::{Cluster, has_kubectl};

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  color: blue\n";

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_changed_and_deleted() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    // A typed create: kubectl sends protobuf.
    assert_eq!(cluster.ok(&["create", "configmap", "typed", "--from-literal=a=b"]), "configmap/typed created\n");
    assert_eq!(cluster.ok(&["get", "configmap", "typed", "-o", "jsonpath={.data.a}"]), "b");
    assert!(cluster.fails(&["create", "configmap", "typed"]).contains("configmaps \"typed\" already exists"));
    let file = cluster.write("config.yaml", CONFIG);
    assert_eq!(cluster.ok(&["create", "-f", &file, "--save-config"]), "configmap/settings created\n");
    let file = cluster.write("config.yaml", &CONFIG.replace("blue", "green"));
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "configmap/settings configured\n");
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "configmap/settings unchanged\n");
    cluster.ok(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"size":"7"}}"#]);
    cluster.ok(&["patch", "configmap", "settings", "--type=json", "-p", r#"[{"op":"remove","path":"/data/color"}]"#]);
    cluster.ok(&["label", "configmap", "settings", "tier=web"]);
    let text = cluster.ok(&["get", "configmap", "settings", "-o", "yaml"]);
    assert!(
        text.contains("size: \"7\"") && text.contains("tier: web") && !text.contains("color: green\n  size"),
        "{text}"
    );
    let table = cluster.ok(&["get", "configmaps", "-l", "tier=web"]);
    assert!(table.starts_with("NAME ") && table.contains("settings") && !table.contains("typed"), "{table}");
    assert_eq!(cluster.ok(&["delete", "configmap", "settings"]), "configmap \"settings\" deleted\n");
    assert!(
        cluster
            .fails(&["get", "configmap", "settings"])
            .contains("Error from server (NotFound): configmaps \"settings\" not found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_strict_validation_names_the_field() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let file = cluster.write("config.yaml", CONFIG);
    assert!(
        cluster.ok(&["apply", "-f", &file, "--dry-run=server"]).contains("configmap/settings created (server dry run)")
    );
    assert!(cluster.fails(&["get", "configmap", "settings"]).contains("NotFound"));
    let file = cluster.write("bad.yaml", &format!("{CONFIG}colour: red\n"));
    let error = cluster.fails(&["apply", "-f", &file, "--validate=strict"]);
    assert!(error.contains("unknown field \"colour\""), "{error}");
    let file = cluster.write("invalid.yaml", &CONFIG.replace("settings", "Not_A_Name"));
    assert!(cluster.fails(&["create", "-f", &file]).contains("metadata.name: Invalid value: \"Not_A_Name\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_hold_objects() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    assert_eq!(cluster.ok(&["create", "namespace", "team"]), "namespace/team created\n");
    cluster.ok(&["create", "configmap", "a", "-n", "team"]);
    assert!(cluster.fails(&["create", "configmap", "a", "-n", "nowhere"]).contains("namespaces \"nowhere\" not found"));
    assert!(cluster.ok(&["get", "configmaps", "-A"]).contains("team"));
    assert!(cluster.ok(&["get", "namespaces"]).contains("Active"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_changes_as_they_come() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.ok(&["create", "configmap", "first"]);
    let mut watch =
        cluster.command(&["get", "configmaps", "-w", "--no-headers"]).stdout(Stdio::piped()).spawn().unwrap();
    let output = watch.stdout.take().unwrap();
    let (lines, mut shown) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.blocking_send(line))
    });
    // One ConfigMap every namespace has, and ours.
    while !shown.recv().await.unwrap().starts_with("first") {}
    cluster.ok(&["create", "configmap", "second", "--from-literal=a=1"]);
    while !shown.recv().await.unwrap().starts_with("second") {}
    cluster.server.shutdown(std::time::Duration::from_secs(5)).await;
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_plain_paths_are_served() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let resources = cluster.ok(&["api-resources"]);
    assert!(resources.lines().any(|line| line.starts_with("configmaps") && line.contains("cm")), "{resources}");
    assert!(cluster.ok(&["api-versions"]).lines().any(|line| line == "v1"));
    assert_eq!(cluster.ok(&["get", "--raw", "/readyz"]), "ok");
    let report = cluster.ok(&["get", "--raw", "/livez?verbose"]);
    assert_eq!(report, "[+]ping ok\n[+]etcd ok\nlivez check passed\n");
    let version = cluster.ok(&["version"]);
    assert!(version.contains("Server Version: v1.36.2+reeve."), "{version}");
    assert!(cluster.ok(&["get", "--raw", "/api/v1"]).contains("\"serviceaccounts/token\""));
    let missing = cluster.fails(&["get", "--raw", "/apis/nothing/v1/things"]);
    assert!(missing.contains("the server could not find the requested resource"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_by_kubectl_lets_its_service_account_in_and_no_further_than_discovery() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.ok(&["create", "serviceaccount", "robot"]);
    let token = cluster.ok(&["create", "token", "robot"]);
    let config = std::fs::read_to_string(cluster.kubeconfig("admin")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    let file = cluster.write("robot.json", &config.to_string());
    assert!(cluster.ok(&["--kubeconfig", &file, "version"]).contains("Server Version"));
    let error = cluster.fails(&["--kubeconfig", &file, "get", "configmaps"]);
    let words = r#"Error from server (Forbidden): configmaps is forbidden: User "system:serviceaccount:default:robot" cannot list resource "configmaps" in API group "" in the namespace "default""#;
    assert!(error.contains(words), "{error}");
    cluster.ok(&["delete", "serviceaccount", "robot"]);
    let error = cluster.fails(&["--kubeconfig", &file, "get", "--raw", "/api"]);
    assert!(error.contains("must be logged in") || error.contains("Unauthorized"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_knows_every_field() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let text = cluster.ok(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]);
    assert!(text.contains("GROUP:      apps") && text.contains("FIELD: maxSurge <IntOrString>"), "{text}");
    assert!(cluster.ok(&["explain", "pods.spec.containers"]).contains("imagePullPolicy"));
    assert!(cluster.fails(&["explain", "configmap.nothing"]).contains("field \"nothing\" does not exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_are_scaled_and_pods_bound() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    assert_eq!(
        cluster.ok(&["create", "deployment", "web", "--image=web:1", "--replicas=0"]),
        "deployment.apps/web created\n"
    );
    assert_eq!(cluster.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]), "0");
    assert_eq!(cluster.ok(&["scale", "deployment", "web", "--replicas=3"]), "deployment.apps/web scaled\n");
    assert!(cluster.ok(&["get", "deployments"]).contains("0/3"));
    cluster.ok(&["set", "image", "deployment/web", "web=web:2"]);
    assert_eq!(
        cluster.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]),
        "web:2"
    );
    let all = cluster.ok(&["get", "services,deployments"]);
    assert!(all.contains("service/kubernetes") && all.contains("deployment.apps/web"), "{all}");
    assert!(cluster.ok(&["describe", "deployment", "web"]).contains("StrategyType:           RollingUpdate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_applied_and_a_kind_that_is_not_served_is_named() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let item = CONFIG.replace("\n", "\n  ").trim_end().to_owned();
    let file = cluster.write("list.yaml", &format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n"));
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "configmap/settings created\n");
    let file = cluster.write("list.yaml", &format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n  colour: red\n"));
    let error = cluster.fails(&["apply", "-f", &file]);
    assert!(error.contains("unknown field \"colour\""), "the server checks each item: {error}");
    let file = cluster.write("job.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: pi\n");
    let error = cluster.fails(&["apply", "-f", &file]);
    assert!(error.contains("no matches for kind \"Job\" in version \"batch/v1\""), "{error}");
}
