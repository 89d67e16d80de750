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
    assert!(report.starts_with("[+]ping ok\n[+]log ok\n") && report.ends_with("\nlivez check passed\n"), "{report}");
    for check in ["etcd", "poststarthook/rbac/bootstrap-roles", "poststarthook/crd-informer-synced"] {
        assert!(report.contains(&format!("[+]{check} ok\n")), "{report}");
    }
    let report = cluster.ok(&["get", "--raw", "/readyz?verbose&exclude=etcd&exclude=b&exclude=a"]);
    assert!(report.contains("[+]etcd excluded: ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n"), "{report}");
    let unknown = "warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nreadyz check passed\n";
    assert!(report.ends_with(&format!("[+]shutdown ok\n{unknown}")), "{report}");
    assert_eq!(cluster.ok(&["get", "--raw", "/readyz/poststarthook/rbac/bootstrap-roles"]), "ok");
    let slis = cluster.ok(&["get", "--raw", "/metrics/slis"]);
    for line in [
        r#"kubernetes_healthcheck{name="etcd",type="livez"} 1"#,
        r#"kubernetes_healthchecks_total{name="shutdown",status="success",type="readyz"} "#,
    ] {
        assert!(slis.contains(line), "{slis}");
    }
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
    let file = cluster.write("job.yaml", "apiVersion: example.com/v1\nkind: Job\nmetadata:\n  name: pi\n");
    let error = cluster.fails(&["apply", "-f", &file]);
    assert!(error.contains("no matches for kind \"Job\" in version \"example.com/v1\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_auth_says_who_one_is_and_what_one_may() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let who = cluster.ok(&["auth", "whoami"]);
    assert!(who.contains("kubernetes-admin") && who.contains("[system:masters system:authenticated]"), "{who}");
    assert_eq!(cluster.ok(&["auth", "can-i", "*", "*"]), "yes\n");
    assert_eq!(cluster.ok(&["auth", "can-i", "get", "/metrics"]), "yes\n");
    let all = cluster.ok(&["auth", "can-i", "--list"]);
    assert!(all.lines().any(|line| line.starts_with("*.*") && line.ends_with("[*]")), "{all}");
    let as_admin = cluster.ok(&["api-resources", "--api-group=authorization.k8s.io", "--no-headers"]);
    assert_eq!(as_admin.lines().count(), 4, "{as_admin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_answer_what_the_request_itself_would_be_told() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let review = |kind: &str, namespace: &str, spec: serde_json::Value| {
        let group = if kind == "TokenReview" { "authentication" } else { "authorization" };
        let mut review = serde_json::json!({ "apiVersion": format!("{group}.k8s.io/v1"), "kind": kind, "spec": spec });
        if !namespace.is_empty() {
            review["metadata"] = serde_json::json!({ "namespace": namespace });
        }
        cluster.write("review.json", &review.to_string())
    };
    let asked = |file: &str| -> serde_json::Value {
        let answer = cluster.ok(&["create", "-o", "json", "-f", file]);
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["status"].clone()
    };
    let on = |verb: &str, resource: &str, name: &str| serde_json::json!({ "namespace": "default", "verb": verb, "resource": resource, "name": name });
    let scheduler =
        serde_json::json!({ "user": "system:kube-scheduler", "resourceAttributes": on("list", "pods", "") });
    let why = "RBAC: allowed by ClusterRoleBinding \"system:kube-scheduler\" of ClusterRole \"system:kube-scheduler\" \
               to User \"system:kube-scheduler\"";
    let allowed = serde_json::json!({ "allowed": true, "reason": why });
    assert_eq!(asked(&review("SubjectAccessReview", "", scheduler.clone())), allowed);
    assert_eq!(asked(&review("LocalSubjectAccessReview", "default", scheduler.clone())), allowed);
    let node = serde_json::json!({ "user": "system:node:a", "groups": ["system:nodes"],
        "resourceAttributes": on("get", "secrets", "s") });
    let why = "no relationship found between node 'a' and this object";
    assert_eq!(asked(&review("SubjectAccessReview", "", node)), serde_json::json!({ "allowed": false, "reason": why }));
    let nobody = serde_json::json!({ "resourceAttributes": on("get", "secrets", "s") });
    let error = cluster.fails(&["create", "-f", &review("SubjectAccessReview", "", nobody)]);
    assert!(error.contains("at least one of user or group must be specified"), "{error}");
    let error = cluster.fails(&[
        "create",
        "--validate=false",
        "-f",
        &review("SelfSubjectAccessReview", "", serde_json::json!({})),
    ]);
    assert!(error.contains("exactly one of nonResourceAttributes or resourceAttributes must be specified"), "{error}");
    let elsewhere = review("LocalSubjectAccessReview", "kube-system", scheduler);
    let error = cluster.fails(&["create", "-f", &elsewhere]);
    assert!(error.contains("must match metadata.namespace"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_review_tells_whose_token_it_is_and_a_service_account_may_ask_about_itself_only() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.ok(&["create", "serviceaccount", "robot"]);
    let token = cluster.ok(&["create", "token", "robot"]).trim().to_owned();
    let review = |spec: serde_json::Value| {
        let review =
            serde_json::json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec });
        let file = cluster.write("review.json", &review.to_string());
        let answer = cluster.ok(&["create", "-o", "json", "-f", &file]);
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["status"].clone()
    };
    let status = review(serde_json::json!({ "token": token }));
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["audiences"], serde_json::json!([support::ISSUER]));
    for spec in [serde_json::json!({ "token": "x.y.z" }), serde_json::json!({ "token": token, "audiences": ["vault"] })]
    {
        let status = review(spec);
        assert!(status["authenticated"].is_null() && status["error"].is_string(), "{status}");
    }
    let robot = |path: &str, body: &str| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let cluster = &cluster;
        async move { support::raw(cluster, None, &request).await }
    };
    let own = robot("/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}").await;
    assert!(own.starts_with("HTTP/1.1 201") && own.contains("system:serviceaccount:default:robot"), "{own}");
    let list = r#"{"spec":{"resourceAttributes":{"verb":"list","resource":"pods","namespace":"default"}}}"#;
    let may = robot("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", list).await;
    assert!(may.starts_with("HTTP/1.1 201") && may.contains(r#""status":{"allowed":false}"#), "{may}");
    let rules =
        robot("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", r#"{"spec":{"namespace":"default"}}"#).await;
    assert!(rules.contains("selfsubjectreviews") && rules.contains(r#""incomplete":false"#), "{rules}");
    let others = robot("/apis/authorization.k8s.io/v1/subjectaccessreviews", list).await;
    assert!(others.starts_with("HTTP/1.1 403"), "{others}");
}

const WEB: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n  selector:\n    \
                   matchLabels:\n      app: web\n  template:\n    metadata:\n      labels:\n        app: web\n    spec:\n      \
                   containers:\n      - name: web\n        image: web:1\n";

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_creates_conflicts_and_takes_over_by_force() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let file = cluster.write("web.yaml", WEB);
    let apply = ["apply", "--server-side", "-f", &file];
    assert_eq!(cluster.ok(&apply), "deployment.apps/web serverside-applied\n");
    assert_eq!(cluster.ok(&apply), "deployment.apps/web serverside-applied\n");
    let version = ["get", "deployment", "web", "-o", "jsonpath={.metadata.resourceVersion}"];
    let before = cluster.ok(&version);
    cluster.ok(&apply);
    assert_eq!(cluster.ok(&version), before, "an apply that changes nothing writes nothing");
    cluster.ok(&["scale", "deployment", "web", "--replicas=5"]);
    let refused = cluster.fails(&apply);
    let conflict = r#"Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas"#;
    assert!(refused.contains(conflict), "{refused}");
    cluster.ok(&["apply", "--server-side", "--force-conflicts", "-f", &file]);
    let replicas = ["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(cluster.ok(&replicas), "2");
    // Not applied any more: whoever scales keeps it.
    cluster.ok(&["scale", "deployment", "web", "--replicas=3"]);
    let less = cluster.write("less.yaml", &WEB.replace("  replicas: 2\n", ""));
    cluster.ok(&["apply", "--server-side", "-f", &less]);
    assert_eq!(cluster.ok(&replicas), "3");
    let shown = cluster.ok(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]);
    assert!(shown.contains("k:{\"name\":\"web\"}:") && shown.contains("subresource: scale"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_client_side_apply_made_is_taken_over_by_server_side_apply_without_a_conflict() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let file = cluster.write("web.yaml", WEB);
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "deployment.apps/web created\n");
    let managers = ["get", "deployment", "web", "-o", "jsonpath={.metadata.managedFields[*].manager}"];
    assert_eq!(cluster.ok(&managers), "kubectl-client-side-apply");
    let changed = cluster.write("changed.yaml", &WEB.replace("web:1", "web:2").replace("  replicas: 2\n", ""));
    cluster.ok(&["apply", "--server-side", "-f", &changed]);
    let image = ["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"];
    assert_eq!(cluster.ok(&image), "web:2");
    // kubectl moves what client-side apply managed to the new manager: what the file no longer names is gone. The
    // annotation that client-side apply needs has a manager of its own.
    let all = cluster.ok(&managers);
    let mut all: Vec<_> = all.split(' ').collect();
    all.sort_unstable();
    assert_eq!(all, ["kubectl", "kubectl-last-applied"]);
    let replicas = ["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(cluster.ok(&replicas), "1", "the default");
    // And back: client-side apply goes on where server-side apply stopped.
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "deployment.apps/web configured\n");
    assert_eq!(cluster.ok(&image), "web:1");
}
