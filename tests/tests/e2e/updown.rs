//! `reeve up` and `reeve down`: twice, at once, side by side, half dead, refused; and the kubeconfig they touch.

use std::net::TcpListener;

use reeve_tests::binary::reeve;
use reeve_tests::cluster::Cluster;
use reeve_tests::command::run;

#[test]
fn two_clusters_live_side_by_side_and_leave_nothing() {
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| Cluster::up("one"));
        let second = scope.spawn(|| Cluster::up("two"));
        (first.join().expect("the first"), second.join().expect("the second"))
    });
    for field in ["index", "apiPort", "clusterCidr", "serviceCidr"] {
        assert_ne!(first.state()["config"][field], second.state()["config"][field], "{field}");
    }
    first.kubectl(&["create", "namespace", "only-here"]).done();
    assert!(second.kubectl(&["get", "namespace", "only-here"]).refused().contains("not found"));
    for cluster in [&first, &second] {
        let (purged, left) = cluster.purge();
        assert!(purged.text().contains("is down and removed"));
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn up_again_says_so_and_two_at_once_wait_for_each_other() {
    let cluster = Cluster::prepare("twice");
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| cluster.up_again().text());
        let two = scope.spawn(|| cluster.up_again().text());
        (one.join().expect("the first"), two.join().expect("the second"))
    });
    assert_eq!([&one, &two].iter().filter(|said| said.contains("is already up")).count(), 1, "{one}\n{two}");
    let process = cluster.main_process();
    assert!(cluster.up_again().text().contains("is already up"));
    assert_eq!(cluster.main_process(), process);
    assert!(cluster.down().text().contains("its data is kept"));
    assert!(cluster.down().text().contains("was not up"));
    // Stopped, somebody else takes its port: it moves on.
    let port =
        cluster.reeve(&["up", "--netns", "--name", &cluster.name, "--data-dir", &cluster.data_dir().to_string_lossy()]);
    port.done();
    let before =
        cluster.state()["config"]["apiPort"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    cluster.down().done();
    let _taken = TcpListener::bind(("127.0.0.1", before)).expect("the port is free");
    cluster.up_again().done();
    assert_ne!(cluster.state()["config"]["apiPort"], before);
    cluster.kubectl(&["get", "nodes"]).done();
}

#[test]
fn a_cluster_that_lives_but_does_not_answer_is_repaired() {
    let cluster = Cluster::up("stuck");
    let stuck = cluster.main_process();
    run(std::process::Command::new("kill").args(["-STOP", &stuck.pid.to_string()]), "").done();
    let said = cluster.up_again().text();
    assert!(said.contains("is up again"), "{said}");
    assert!(!stuck.is_alive());
    cluster.kubectl(&["get", "nodes"]).done();
}

#[test]
fn the_kubeconfig_gains_a_context_and_gets_its_former_one_back() {
    let cluster = Cluster::prepare("config");
    let former = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster:\n    server: https://192.0.2.1:6443\n\
                  contexts:\n- name: work\n  context:\n    cluster: work\n    user: me\nusers:\n- name: me\n  user:\n    token: secret\n";
    std::fs::write(cluster.kubeconfig(), former).expect("a kubeconfig");
    cluster.up_again().done();
    let current = || cluster.kubectl(&["config", "current-context"]).text();
    let contexts = || cluster.kubectl(&["config", "get-contexts", "-o", "name"]).text();
    assert_eq!(current().trim(), format!("reeve-{}", cluster.name));
    assert_eq!(contexts().lines().count(), 2);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(cluster.kubeconfig()).expect("it").permissions());
    assert_eq!(mode & 0o777, 0o600);
    cluster.purge().0.done();
    assert_eq!((current().trim(), contexts().trim()), ("work", "work"));
    let token = cluster.kubectl(&["config", "view", "--raw", "-o", "jsonpath={.users[0].user.token}"]).text();
    assert_eq!(token, "secret", "what was there is unharmed");
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let cluster = Cluster::prepare("refused");
    for name in ["Dev", "-a", "a/b", "a_b"] {
        let said = cluster.reeve(&["up", "--netns", &format!("--name={name}")]).refused();
        assert!(said.contains("invalid cluster name") && said.contains(name), "{said}");
    }
    let said = cluster.reeve(&["down", "--name", "no-such-cluster"]).refused();
    assert!(said.contains("there is no cluster \"no-such-cluster\""), "{said}");
    assert!(!std::path::Path::new("/run/reeve/no-such-cluster.lock").exists());
    // A copy that everybody may read: the build folder may be private.
    let copy = std::env::temp_dir().join(format!("{}-reeve", cluster.name));
    std::fs::hard_link(reeve(), &copy).or_else(|_| std::fs::copy(reeve(), &copy).map(drop)).expect("a copy of reeve");
    let mut nobody = cluster.command("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args(["up", "--name", "nobodys"]);
    let said = run(nobody.current_dir("/"), "").refused();
    std::fs::remove_file(&copy).expect("the copy goes");
    assert!(said.contains("needs root"), "{said}");
}
