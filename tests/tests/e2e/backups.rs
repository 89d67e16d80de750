//! Backup and restore, as after the loss of a machine: everything there again, and whatever is bad refused.

use std::path::Path;

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::command::run;
use reeve_tests::patience::eventually;

fn objects(cluster: &Cluster, what: &[&str]) -> serde_json::Value {
    let text = cluster.kubectl(&[&["get", "-o", "json"], what].concat()).text();
    serde_json::from_str(&text).expect("a list")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_cluster_that_was_lost_comes_back_from_its_backup_with_everything_in_it() {
    let cluster = Cluster::up("backup");
    let manifest = format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: web, image: "{IMAGE}", command: [sleep, "3600"]}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: words}}
stringData: {{password: correct horse battery staple}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: widgets.example.com}}
spec:
  group: example.com
  names: {{plural: widgets, kind: Widget}}
  scope: Namespaced
  versions:
  - {{name: v1, served: true, storage: true,
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}
"#
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &manifest).done();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/widgets.example.com"]).done();
    let widget =
        r#"{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 7}}"#;
    cluster.kubectl_with(&["apply", "-f", "-"], widget).done();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).done();
    let token = cluster.kubectl(&["create", "token", "default", "--duration=1h"]).text();
    let old_admin = std::fs::read(cluster.kubeconfig()).expect("a kubeconfig");
    let pods = cluster.kubectl(&["get", "--raw", "/api/v1/pods"]).text();
    let pods: serde_json::Value = serde_json::from_str(&pods).expect("a list");
    let version = pods["metadata"]["resourceVersion"].as_str().expect("a version");

    let file = cluster.home().join("night.reevebackup");
    let told = cluster.reeve(&["backup", &text(&file)]).text();
    assert!(told.starts_with(&format!("Backed up cluster {:?} at revision ", cluster.name)), "{told}");
    let words = cluster.home().join("words");
    std::fs::write(&words, "sesame\n").expect("a passphrase");
    let sealed = cluster.home().join("sealed.reevebackup");
    let encrypt = ["backup", "--encrypt", "--passphrase-file", &text(&words), &text(&sealed)];
    assert!(cluster.reeve(&encrypt).text().contains("encrypted"));
    let bytes = std::fs::read(&sealed).expect("a backup");
    assert!(!bytes.windows(9).any(|window| window == b"Y29ycmVjd" || window == b"kube-syst"));
    let refused = cluster.reeve(&["backup", &text(&file)]).refused();
    assert!(refused.contains("is there already; --force replaces it"), "{refused}");
    cluster.reeve(&["backup", "--force", &text(&file)]).done();
    bad_inputs_are_refused(&cluster, &file, &sealed);
    only_an_administrator_gets_a_backup(&cluster);
    let uid = objects(&cluster, &["deployment", "web"])["metadata"]["uid"].clone();
    cluster.kubectl(&["create", "configmap", "after"]).done();

    cluster.down().done();
    let offline = cluster.home().join("offline.reevebackup");
    let data_dir = text(&cluster.data_dir());
    cluster.reeve(&["backup", &text(&offline), "--data-dir", &data_dir]).done();
    let refused = cluster.reeve(&["restore", &text(&file), "--data-dir", &data_dir]).refused();
    assert!(refused.contains("is not empty (it has "), "{refused}");
    std::fs::remove_dir_all(cluster.data_dir()).expect("the disk is lost");
    let restore = ["restore", &text(&sealed), "--data-dir", &data_dir, "--passphrase-file", &text(&words)];
    let told = cluster.reeve(&restore).text();
    assert!(told.contains(&format!("Restored cluster {:?} into {data_dir}: ", cluster.name)), "{told}");
    cluster.up_again().done();
    cluster.build_image();

    // The kubeconfig of before and the token of before are as good as ever.
    std::fs::write(cluster.home().join("old"), &old_admin).expect("a kubeconfig");
    let old = text(&cluster.home().join("old"));
    assert_eq!(objects(&cluster, &["deployment", "web", "--kubeconfig", &old])["metadata"]["uid"], uid);
    let review = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()},
    });
    let reviewed = cluster.kubectl_with(&["create", "-f", "-", "-o", "json"], &review.to_string()).text();
    assert!(reviewed.contains("\"username\": \"system:serviceaccount:default:default\""), "{reviewed}");
    let secret = objects(&cluster, &["secret", "words"]);
    assert_eq!(secret["data"]["password"], "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==");
    assert_eq!(objects(&cluster, &["widget", "w"])["spec"]["size"], 7);
    assert!(cluster.kubectl(&["get", "configmap", "after"]).refused().contains("NotFound"));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).done();
    // Who goes on where it was in the old cluster is told to list again.
    let watch = format!("/api/v1/pods?watch=true&resourceVersion={version}&timeoutSeconds=5");
    let gone = cluster.kubectl(&["get", "--raw", &watch]);
    assert!(format!("{gone}").contains("too old resource version"), "{gone}");
    eventually("the offline backup is whole too", || {
        let checked = cluster.reeve(&["backup", "check", &text(&offline)]);
        if checked.stdout.starts_with("A whole backup of cluster") { Ok(()) } else { Err(checked.to_string()) }
    });
    let verified = cluster.reeve(&["store", "verify"]).text();
    assert!(verified.contains("all are as they were written"), "{verified}");
}

fn bad_inputs_are_refused(cluster: &Cluster, file: &Path, sealed: &Path) {
    let bad = |name: &str, bytes: &[u8]| {
        let path = cluster.home().join(name);
        std::fs::write(&path, bytes).expect("a file");
        text(&path)
    };
    let new = cluster.home().join("new");
    let restore = |file: &str, more: &[&str]| {
        let given = ["restore", file, "--name", "bad-restore", "--data-dir", &text(&new)];
        let told = cluster.reeve(&[&given[..], more].concat()).refused();
        assert!(!new.exists(), "{told}");
        told
    };
    let whole = std::fs::read(file).expect("the backup");
    let cut = restore(&bad("cut", &whole[..whole.len() / 2]), &[]);
    assert!(cut.contains("the backup is cut short"), "{cut}");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let damaged = restore(&bad("flipped", &flipped), &[]);
    assert!(damaged.contains("the backup is damaged at offset "), "{damaged}");
    let foreign = restore(&bad("foreign", b"just a text"), &[]);
    assert!(foreign.contains("this is not a backup"), "{foreign}");
    let wrong = restore(&text(sealed), &["--passphrase-file", &bad("wrong", b"open")]);
    assert!(wrong.contains("the passphrase is wrong"), "{wrong}");
    let sealed_bytes = std::fs::read(sealed).expect("the sealed backup");
    let short = bad("short", &sealed_bytes[..sealed_bytes.len() - 40]);
    let cut = restore(&short, &["--passphrase-file", &text(&cluster.home().join("words"))]);
    assert!(cut.contains("cut short"), "{cut}");
    let mut newer = sealed_bytes.clone();
    newer[8] = 9;
    let newer = restore(&bad("newer", &newer), &[]);
    assert!(newer.contains("has format 9, this program knows formats up to"), "{newer}");
    let running = cluster.reeve(&["restore", &text(file), "--data-dir", &text(&new)]).refused();
    assert!(running.contains("it is running; `reeve down` first"), "{running}");
    let beside = restore(&text(file), &[]);
    assert!(beside.contains("of this machine uses too"), "{beside}");
}

fn only_an_administrator_gets_a_backup(cluster: &Cluster) {
    let path = "/reeve/v1/backup";
    let account = "system:serviceaccount:default:default";
    let refused = cluster.kubectl(&["get", "--raw", path, "--as", account]).refused();
    assert!(refused.contains("cannot get path"), "{refused}");
    // Not even whom a role lets read every path.
    cluster.kubectl(&["create", "clusterrole", "paths", "--verb=get", "--non-resource-url=*"]).done();
    cluster.kubectl(&["create", "clusterrolebinding", "paths", "--clusterrole=paths", "--user=paul"]).done();
    eventually("the role holds", || {
        let told = cluster.kubectl(&["get", "--raw", path, "--as", "paul"]);
        if told.stderr.contains("User \"paul\" cannot *") { Ok(()) } else { Err(told.to_string()) }
    });
}

#[test]
fn a_cluster_backs_itself_up_on_schedule_keeps_the_newest_and_tells_of_failures() {
    let cluster = Cluster::prepare("nightly");
    let place = cluster.home().join("kept");
    let key = cluster.home().join("key");
    std::fs::write(&key, [7; 32]).expect("a key");
    let mut up = cluster.up_command();
    up.args(["--backup-schedule", "1s", "--backup-keep", "2", "--backup-to"]).arg(&place);
    run(up.arg("--backup-key-file").arg(&key), "").done();
    let names = || {
        let listed = cluster.reeve(&["backup", "list", &text(&place)]).text();
        let names = listed.lines().skip(1).filter_map(|line| line.split_whitespace().last().map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    let first = eventually("there is a backup", || names().first().cloned().ok_or("none".to_owned()));
    eventually("the oldest has gone, two are left", || match names() {
        names if names.len() == 2 && !names.contains(&first) => Ok(()),
        names => Err(format!("{names:?}")),
    });
    let newest = text(&place.join(names().pop().expect("a backup")));
    // It may go while it is looked at: then the next one is.
    eventually("the newest is whole, and encrypted", || {
        let newest = text(&place.join(names().pop().unwrap_or_default()));
        let checked = cluster.reeve(&["backup", "check", &newest, "--key-file", &text(&key)]);
        if checked.stdout.contains(&format!("cluster {:?}", cluster.name)) { Ok(()) } else { Err(checked.to_string()) }
    });
    assert!(newest.ends_with(".reevebackup"), "{newest}");
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]).text();
    assert!(metrics.contains("reeve_backups_total{result=\"success\"}"), "{metrics}");

    std::fs::remove_dir_all(&place).expect("the place");
    std::fs::write(&place, "in the way").expect("a file");
    eventually("an event tells of the failure", || {
        let events = cluster.kubectl(&["get", "events", "-n", "kube-system", "-o", "json"]);
        if events.stdout.contains("BackupFailed") { Ok(()) } else { Err(events.to_string()) }
    });
    cluster.down().done();
    let mut up = cluster.up_command();
    run(up.args(["--backup-schedule", "off"]), "").done();
    let choices = std::fs::read_to_string(cluster.data_dir().join("cluster.json")).expect("the choices");
    assert!(!choices.contains("backup"), "{choices}");
}
