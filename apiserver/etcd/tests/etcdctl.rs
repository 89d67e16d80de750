//! The real etcdctl (3.4, Debian's) against our store.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use reeve_store::Limits;
use support::{Files, Ours, is_installed};

/// etcdctl with the certificates of a server.
struct Etcdctl {
    url: String,
    files: Files,
}

impl Etcdctl {
    fn command(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url, "--command-timeout", "20s"]);
        for (flag, file) in [("--cacert", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")] {
            command.arg(flag).arg(self.files.path(file));
        }
        command
    }

    /// Runs on a thread of its own: the server is on this test's runtime.
    async fn output(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    /// What it prints; it must succeed.
    async fn says(&self, args: &[&str]) -> String {
        let output = self.output(args, "").await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}: {out}{err}");
        out.trim().to_owned()
    }

    /// What it complains of; it must fail.
    async fn complains(&self, args: &[&str]) -> String {
        let output = self.output(args, "").await;
        assert!(!output.status.success(), "{args:?} succeeds");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// A server and its etcdctl; `None` when there is no etcdctl.
async fn server() -> Option<(Ours, Etcdctl)> {
    server_with(Limits::default()).await
}

async fn server_with(limits: Limits) -> Option<(Ours, Etcdctl)> {
    if !is_installed("etcdctl") {
        return None;
    }
    let ours = Ours::embedded(limits).await;
    let (url, files) = (ours.url.clone(), Files::of(&ours.certificates));
    Some((ours, Etcdctl { url, files }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_put_read_and_deleted() {
    let Some((ours, ctl)) = server().await else { return };
    assert_eq!(ctl.says(&["put", "a", "1"]).await, "OK");
    assert_eq!(ctl.says(&["put", "--prev-kv", "a", "2"]).await, "OK\na\n1");
    assert_eq!(ctl.says(&["put", "b", "3"]).await, "OK");
    assert_eq!(ctl.says(&["get", "a"]).await, "a\n2");
    assert_eq!(ctl.says(&["get", "--rev", "2", "a"]).await, "a\n1");
    assert_eq!(ctl.says(&["get", "", "--prefix", "--order", "DESCEND", "--limit", "1"]).await, "b\n3");
    assert_eq!(ctl.says(&["get", "b", "--from-key", "--keys-only"]).await, "b");
    assert_eq!(ctl.says(&["del", "--prev-kv", "a"]).await, "1\na\n2");
    assert_eq!(ctl.says(&["get", "a"]).await, "");
    assert!(ctl.complains(&["get", "--rev", "99", "a"]).await.contains("required revision is a future revision"));
    assert_eq!(ctl.says(&["compaction", "--physical", "4"]).await, "compacted revision 4");
    assert!(ctl.complains(&["get", "--rev", "2", "a"]).await.contains("required revision has been compacted"));
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_takes_the_branch_that_holds() {
    let Some((ours, ctl)) = server().await else { return };
    ctl.says(&["put", "a", "1"]).await;
    let txn = "value(\"a\") = \"1\"\nver(\"a\") > \"0\"\n\nput b yes\nget a\n\nput b no\n\n";
    let output = ctl.output(&["txn"], txn).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "SUCCESS\n\nOK\n\na\n1");
    let output = ctl.output(&["txn"], txn.replace("= \"1\"", "= \"2\"").as_str()).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "FAILURE\n\nOK");
    assert_eq!(ctl.says(&["get", "--print-value-only", "b"]).await, "no");
    let output = ctl.output(&["txn"], "\nput a 1\nput a 2\n\n\n").await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("duplicate key given in txn request"), "{output:?}");
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_what_was_and_what_comes() {
    let Some((ours, ctl)) = server().await else { return };
    ctl.says(&["put", "p/a", "1"]).await;
    let mut command = ctl.command();
    command.args(["watch", "--rev", "2", "--prev-kv", "--prefix", "p/"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let expected = ["PUT", "p/a", "1", "DELETE", "p/a", "1", "p/a", ""];
    let printed = tokio::task::spawn_blocking(move || {
        let lines: Vec<String> = lines.by_ref().take(expected.len()).map(Result::unwrap).collect();
        lines
    });
    ctl.says(&["put", "other", "x"]).await;
    ctl.says(&["del", "p/a"]).await;
    assert_eq!(printed.await.unwrap(), expected);
    child.kill().unwrap();
    child.wait().unwrap();
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_granted_kept_shown_and_revoked() {
    let Some((ours, ctl)) = server().await else { return };
    let granted = ctl.says(&["lease", "grant", "100"]).await;
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(100s)"));
    ctl.says(&["put", "--lease", &id, "a", "1"]).await;
    assert_eq!(ctl.says(&["lease", "list"]).await, format!("found 1 leases\n{id}"));
    let shown = ctl.says(&["lease", "timetolive", "--keys", &id]).await;
    assert!(shown.starts_with(&format!("lease {id} granted with TTL(100s), remaining(")), "{shown}");
    assert!(shown.ends_with("attached keys([a])"), "{shown}");
    let kept = ctl.says(&["lease", "keep-alive", "--once", &id]).await;
    assert_eq!(kept, format!("lease {id} keepalived with TTL(100)"));
    assert_eq!(ctl.says(&["lease", "revoke", &id]).await, format!("lease {id} revoked"));
    assert_eq!(ctl.says(&["get", "a"]).await, "");
    assert!(ctl.complains(&["lease", "revoke", &id]).await.contains("requested lease not found"));
    assert!(ctl.complains(&["put", "--lease", "123", "a", "1"]).await.contains("requested lease not found"));
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_status_health_members_and_hashes() {
    let Some((ours, ctl)) = server().await else { return };
    ctl.says(&["put", "a", "1"]).await;
    let status = ctl.says(&["endpoint", "status", "-w", "json"]).await;
    for part in ["\"revision\":2", "\"version\":\"3.6.0\"", "\"leader\":1"] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    let health = ctl.output(&["endpoint", "health"], "").await;
    let health = String::from_utf8_lossy(&[health.stdout, health.stderr].concat()).into_owned();
    assert!(health.contains("is healthy"), "{health}");
    let members = ctl.says(&["member", "list"]).await;
    assert!(members.starts_with("1, started, 1,") && members.contains(&ours.url), "{members}");
    let hash = || ctl.says(&["endpoint", "hashkv"]);
    let before = hash().await;
    assert!(before.starts_with(&ours.url), "{before}");
    assert_eq!(hash().await, before);
    ctl.says(&["put", "a", "2"]).await;
    assert_ne!(hash().await, before);
    assert_eq!(ctl.says(&["alarm", "list"]).await, "");
    assert_eq!(ctl.says(&["alarm", "disarm"]).await, "");
    assert!(ctl.says(&["defrag"]).await.contains("Finished defragmenting"));
    assert!(ctl.says(&["move-leader", "1"]).await.contains("Leadership transferred"));
    assert!(ctl.complains(&["move-leader", "2"]).await.contains("bad leader transferee"));
    assert!(ctl.complains(&["auth", "enable"]).await.contains("authentication is not enabled"));
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_snapshot_is_a_backup_of_ours() {
    let Some((ours, ctl)) = server().await else { return };
    ctl.says(&["put", "a", "1"]).await;
    ctl.says(&["put", "b", "2"]).await;
    let file = ctl.files.folder().join("saved");
    ctl.says(&["snapshot", "save", file.to_str().unwrap()]).await;
    let mut saved = std::fs::File::open(&file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let summary = reeve_store::backup::restore(&mut saved, folder.path()).unwrap();
    assert_eq!((summary.keys, summary.head.revision), (2, 3));
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_in_without_a_certificate_of_the_port() {
    let Some((ours, ctl)) = server().await else { return };
    let stranger = Files::of(&support::Certificates::new());
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &ours.url, "--command-timeout", "3s", "get", "a"]);
    command.arg("--cacert").arg(ctl.files.path("ca.pem"));
    let mut with = Command::new("etcdctl");
    with.env("ETCDCTL_API", "3").args(["--endpoints", &ours.url, "--command-timeout", "3s", "get", "a"]);
    with.arg("--cacert").arg(ctl.files.path("ca.pem"));
    with.arg("--cert").arg(stranger.path("client.pem")).arg("--key").arg(stranger.path("client.key"));
    for mut command in [command, with] {
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(!output.status.success(), "{output:?}");
    }
    assert_eq!(ctl.says(&["get", "a"]).await, "");
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_raises_an_alarm_that_goes_when_there_is_room() {
    let Some((ours, ctl)) = server_with(Limits { quota_bytes: Some(1000), ..Limits::default() }).await else { return };
    assert_eq!(ctl.says(&["alarm", "list"]).await, "");
    let value = "v".repeat(400);
    ctl.says(&["put", "a", &value]).await;
    ctl.says(&["put", "b", &value]).await;
    assert!(ctl.complains(&["put", "c", &value]).await.contains("etcdserver: mvcc: database space exceeded"));
    assert_eq!(ctl.says(&["alarm", "list"]).await, "memberID:1 alarm:NOSPACE");
    assert_eq!(ctl.says(&["del", "a"]).await, "1");
    ctl.says(&["put", "c", "small"]).await;
    assert_eq!(ctl.says(&["alarm", "list"]).await, "");
    ours.close().await;
}
