//! A control plane is backed up through any of its servers, and comes back as a new one.

use std::path::Path;

use reeve_tests::patience::eventually;
use reeve_tests::servers::{Servers, joining};

use super::s3::{Bucket, CREDENTIALS};
use super::{join, members};

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_control_plane_that_was_lost_comes_back_from_the_backup_of_any_server() {
    let mut servers = Servers::prepare();
    ["a", "b"].iter().for_each(|name| servers.add_machine(name));
    servers.start("a", &["--history", "1h/5000"]);
    let old_token = servers.join_arguments("a")[3].clone();
    join(&mut servers, "b", "a");
    servers.kubectl("a", &["create", "secret", "generic", "words", "--from-literal=password=sesame"]).done();
    servers.kubectl("a", &["create", "configmap", "before"]).done();
    let account = servers.kubectl("a", &["create", "token", "default", "--duration=1h"]).text();
    let list = servers.kubectl("b", &["get", "--raw", "/api/v1/configmaps?limit=1"]).text();
    let list: serde_json::Value = serde_json::from_str(&list).expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();

    let (file, sealed, words) = (servers.file("night"), servers.file("sealed"), servers.file("passphrase"));
    std::fs::write(&words, "open\n").expect("a passphrase");
    let told = servers.reeve("b", &["backup", &text(&file)]).text();
    assert!(told.starts_with("Backed up cluster \"reeve-"), "{told}");
    let encrypt = ["backup", "--encrypt", "--passphrase-file", &text(&words), &text(&sealed)];
    assert!(servers.reeve("a", &encrypt).text().contains("encrypted"));
    servers.kubectl("a", &["create", "configmap", "after"]).done();
    bad_inputs_are_refused(&servers, &file, &sealed);
    ["a", "b"].iter().for_each(|name| servers.kill(name));
    // The folder of a server that is stopped is as good as one that runs.
    let offline = servers.file("offline");
    servers.reeve("a", &["backup", &text(&offline), "--data-dir", &text(&servers.data_dir("b"))]).done();
    servers.reeve("a", &["backup", "check", &text(&offline)]).done();
    ["a", "b"].iter().for_each(|name| std::fs::remove_dir_all(servers.data_dir(name)).expect("the lost disks"));

    let data_dir = text(&servers.data_dir("a"));
    let restore = ["restore", &text(&sealed), "--data-dir", &data_dir, "--passphrase-file", &text(&words)];
    let told = servers.run(&[&[&*reeve()], &restore[..]].concat()).text();
    assert!(told.starts_with(&format!("Restored a control plane into {data_dir}: ")), "{told}");
    servers.start("a", &[]);
    let all = members(&servers, "a").expect("members");
    assert_eq!((all.len(), &all[0]["name"]), (1, &"a".into()), "the servers of before are gone: {all:?}");
    let named = servers.kubectl("a", &["get", "configmap", "before", "-o", "name"]).text();
    assert_eq!(named, "configmap/before\n");
    assert!(servers.kubectl("a", &["get", "configmap", "after"]).refused().contains("NotFound"));
    let review = format!("Authorization: Bearer {}", account.trim());
    let ready = ["curl", "-sk", "-H", &review, "https://192.0.2.10:6443/api"];
    assert!(servers.run(&ready).text().contains("APIVersions"), "tokens of before are good");
    // Who goes on where it was in the old cluster is told to list again.
    let watch = format!("/api/v1/configmaps?watch=true&resourceVersion={version}&timeoutSeconds=5");
    let gone = servers.kubectl("a", &["get", "--raw", &watch]);
    assert!(format!("{gone}").contains("too old resource version"), "{gone}");
    // The token of before opens nothing; the new one does.
    servers.spawn("b", &["--join", "192.0.2.10", "--token", &old_token]);
    assert_eq!(servers.wait("b"), Some(1));
    assert!(servers.log_tail("b").contains("there is no such token"), "{}", servers.log_tail("b"));
    std::fs::remove_dir_all(servers.data_dir("b")).expect("the folder");
    join(&mut servers, "b", "a");
    assert_eq!(servers.kubectl("b", &["get", "configmap", "before", "-o", "name"]).text(), "configmap/before\n");
    assert!(servers.reeve("b", &["store", "verify"]).text().contains("all are as they were written"));
}

fn reeve() -> String {
    text(reeve_tests::binary::reeve())
}

fn bad_inputs_are_refused(servers: &Servers, file: &Path, sealed: &Path) {
    let bad = |name: &str, bytes: &[u8]| {
        let path = servers.file(name);
        std::fs::write(&path, bytes).expect("a file");
        text(&path)
    };
    let new = servers.file("new");
    let restore = |file: &str, more: &[&str]| {
        let given = [&*reeve(), "restore", file, "--data-dir", &text(&new)];
        let told = servers.run(&[&given[..], more].concat()).refused();
        assert!(!new.exists(), "{told}");
        told
    };
    let whole = std::fs::read(file).expect("the backup");
    let cut = restore(&bad("cut", &whole[..whole.len() / 2]), &[]);
    assert!(cut.contains("the backup is cut short"), "{cut}");
    let wrong = restore(&text(sealed), &["--passphrase-file", &bad("wrong", b"close")]);
    assert!(wrong.contains("the passphrase is wrong"), "{wrong}");
    let other_way = restore(&text(file), &["--as", "up"]);
    assert!(other_way.contains("this is the backup of a control plane of servers"), "{other_way}");
    let in_use =
        servers.run(&[&reeve(), "restore", &text(file), "--data-dir", &text(&servers.data_dir("a"))]).refused();
    assert!(in_use.contains("is not empty (it has "), "{in_use}");
}

#[test]
fn one_server_at_a_time_makes_scheduled_backups_in_s3_and_the_next_one_goes_on() {
    let mut servers = Servers::prepare();
    ["a", "b", "c"].iter().for_each(|name| servers.add_machine(name));
    let (bucket, credentials) = (Bucket::serve(servers.pin()), servers.file("credentials"));
    std::fs::write(&credentials, CREDENTIALS).expect("a file");
    let (place, credentials) = (bucket.address("nightly"), text(&credentials));
    let flags = ["--backup-schedule", "1s", "--backup-keep", "2", "--backup-to", &place];
    let flags = [&flags[..], &["--backup-credentials", &credentials]].concat();
    servers.start("a", &flags);
    let joined = servers.join_arguments("a");
    let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
    servers.start("b", &[&joined[..], &flags[..]].concat());
    // It was not told to make any, and never does.
    servers.start("c", &joined);
    let names = |asked: &str| -> Vec<String> {
        let listed = servers.reeve(asked, &["backup", "list", &place, "--credentials", &credentials]);
        listed.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().last().map(str::to_owned)).collect()
    };
    eventually("there are as many as are kept", || match names("a") {
        names if names.len() == 2 => Ok(()),
        names => Err(format!("{names:?}")),
    });
    let holder = || servers.kubectl("b", &["get", "lease", "-n", "kube-system", "reeve-backup", "-o", HOLDER]).text();
    let first = holder();
    assert!(first.starts_with("a_"), "{first}");
    servers.signal("a", "TERM");
    eventually("the other server makes them", || {
        let now = holder();
        if now.starts_with("b_") { Ok(()) } else { Err(now) }
    });
    let before = names("b");
    eventually("newer ones are made", || match names("b") {
        names if names.len() == 2 && names.iter().all(|name| !before.contains(name)) => Ok(()),
        names => Err(format!("{names:?}")),
    });
    let metrics = servers.kubectl("b", &["get", "--raw", "/metrics"]).text();
    assert!(metrics.contains("reeve_backups_total{result=\"success\"}"), "{metrics}");
    // No more lies there than is kept, but for one that is being made; and it is whole.
    let there = bucket.names();
    assert!(there.len() <= 3 && there.iter().all(|name| name.starts_with("nightly/reeve-")), "{there:?}");
    let copy = servers.file("copy");
    std::fs::write(&copy, bucket.object(there.last().expect("a backup"))).expect("a file");
    servers.reeve("b", &["backup", "check", &text(&copy)]).done();
}

const HOLDER: &str = "jsonpath={.spec.holderIdentity}";

#[test]
fn clients_of_etcd_reach_the_store_on_every_server_with_one_certificate() {
    if std::process::Command::new("etcdctl").arg("version").output().is_err() {
        println!("skipped: there is no etcdctl here");
        return;
    }
    let mut servers = Servers::prepare();
    ["a", "b"].iter().for_each(|name| servers.add_machine(name));
    servers.start("a", &["--etcd-port", "2379"]);
    let printed = servers.join_arguments("a");
    let joined: Vec<&str> = printed.iter().map(String::as_str).collect();
    servers.start("b", &[&joined[..], &["--etcd-port", "2379"]].concat());
    servers.kubectl("a", &["create", "configmap", "seen"]).done();
    let key = "/registry/core/configmaps/default/seen";
    for address in ["192.0.2.10", "192.0.2.11"] {
        assert_eq!(etcdctl(&servers, address, &["get", key, "--keys-only"]).trim(), key);
    }
    assert_eq!(etcdctl(&servers, "192.0.2.11", &["member", "list"]).lines().count(), 2);
    // Started again without the flag, the port is still there.
    servers.signal("b", "TERM");
    assert_eq!(servers.wait("b"), Some(0));
    servers.start("b", &[]);
    assert_eq!(etcdctl(&servers, "192.0.2.11", &["get", key, "--keys-only"]).trim(), key);
    // The folder of another cluster, or of something else, is not taken.
    std::fs::write(servers.file("cluster.json"), "{}").expect("a file");
    let refused = servers.run(&[&reeve(), "server", "--data-dir", &text(&servers.file("."))]).refused();
    assert!(refused.contains("holds a cluster that `reeve up` has made"), "{refused}");
    assert!(joining(&servers.reeve("b", &["member", "add"]).text()).len() == 4);
}

/// `etcdctl ARGS`, with the certificate that the first server has made.
fn etcdctl(servers: &Servers, address: &str, arguments: &[&str]) -> String {
    let pki = |name: &str| text(&servers.data_dir("a").join("pki").join(name));
    let endpoint = format!("https://{address}:2379");
    let (ca, client) = (pki("etcd-ca.crt"), pki("etcd-client.pem"));
    let flags =
        ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", &endpoint, "--cacert", &ca, "--cert", &client, "--key"];
    servers.run(&[&flags[..], &[&client], arguments].concat()).text()
}
