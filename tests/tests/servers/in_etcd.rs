//! Servers whose state lies in an etcd: they have no votes, only records and keys that they keep alive.

use std::time::Duration;

use reeve_tests::etcds::Etcds;
use reeve_tests::patience::{eventually, eventually_is};
use reeve_tests::servers::{Servers, joining};

use super::members;

/// Where the tests look from, and where etcd is.
const ETCD: &str = "192.0.2.1";

fn strs(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// One server, `a`, on an etcd of one member, and machines for `b` and `c`.
fn one() -> (Servers, Etcds) {
    let mut servers = Servers::prepare();
    ["a", "b", "c"].iter().for_each(|name| servers.add_machine(name));
    let etcds = Etcds::start(&servers.pin(), ETCD, 1);
    servers.start("a", &strs(&etcds.flags()));
    (servers, etcds)
}

#[test]
fn servers_on_one_etcd_serve_together_and_the_others_go_on_when_one_dies() {
    if !Etcds::are_there() {
        return;
    }
    let (mut servers, _etcds) = one();
    let joined = servers.join_arguments("a");
    servers.start("b", &strs(&joined));
    what_one_writes_the_other_lists_and_watches(&servers);
    servers.kubectl("b", &["create", "namespace", "gone"]).done();
    servers.kubectl("b", &["create", "deployment", "web", "--image=web", "--replicas=1"]).done();
    let pods = || servers.kubectl("b", &["get", "pods", "-o", "name"]).stdout;
    eventually_is("a pod of the Deployment", pods, |seen| seen.lines().count() == 1);
    let holder =
        ["get", "lease", "-n", "kube-system", "kube-controller-manager", "-o", "jsonpath={.spec.holderIdentity}"];
    assert!(servers.kubectl("b", &holder).text().starts_with("a_"));
    let ready = servers.kubectl("b", &["get", "--raw", "/readyz?verbose"]).text();
    assert!(["etcd ok", "etcd-readiness ok", "member/a ok\n", "member/b ok\n"].iter().all(|line| ready.contains(line)));

    servers.kill("a");
    servers.kubectl("b", &["scale", "deployment", "web", "--replicas=3"]).done();
    servers.kubectl("b", &["delete", "namespace", "gone", "--wait=false"]).done();
    let pods = || servers.kubectl("b", &["get", "pods", "-o", "name"]).stdout;
    eventually_is("the next controllers scale", pods, |seen| seen.lines().count() == 3);
    let namespaces = || servers.kubectl("b", &["get", "namespaces", "-o", "name"]).stdout;
    eventually_is("and delete namespaces", namespaces, |seen| !seen.is_empty() && !seen.contains("gone"));
    let endpoints = || servers.kubectl("b", &["get", "endpoints", "kubernetes", "-o", "jsonpath={..ip}"]).stdout;
    eventually_is("the dead one is taken out of the Service", endpoints, |seen| seen == "192.0.2.11");
    let table = servers.reeve("b", &["member", "list"]).text();
    assert!(table.contains("server  no ") && table.contains("server  yes "), "{table}");
    assert!(table.contains("No server votes: the state lies in the etcd at https://192.0.2.1:2379"), "{table}");
    servers.start("a", &[]);
    let endpoints = || servers.kubectl("b", &["get", "endpoints", "kubernetes", "-o", "jsonpath={..ip}"]).stdout;
    eventually_is("back in the Service", endpoints, |seen| seen.contains("192.0.2.10") && seen.contains("192.0.2.11"));
    what_is_said_of_votes_means_nothing_and_a_removed_server_ends(&mut servers);
}

fn what_one_writes_the_other_lists_and_watches(servers: &Servers) {
    servers.kubectl("a", &["create", "configmap", "of-a"]).done();
    assert!(servers.kubectl("b", &["get", "configmaps", "-o", "name"]).text().contains("configmap/of-a\n"));
    let watch = "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=5&labelSelector=watched";
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| servers.kubectl("b", &["get", "--raw", watch]).text());
        std::thread::sleep(Duration::from_secs(1));
        servers.kubectl("a", &["create", "configmap", "later"]).done();
        servers.kubectl("a", &["label", "configmap", "later", "watched=yes"]).done();
        watching.join().expect("a watch")
    });
    assert!(seen.contains("\"type\":\"ADDED\"") && seen.contains("\"name\":\"later\""), "{seen}");
}

fn what_is_said_of_votes_means_nothing_and_a_removed_server_ends(servers: &mut Servers) {
    let refused = |verb: &str| servers.reeve("b", &["member", verb, "a"]).refused();
    let told = refused("promote");
    assert!(told.contains("whose members are etcd's own business (etcdctl member promote)"), "{told}");
    assert!(refused("lead").contains("etcdctl move-leader"));
    assert!(refused("replace").contains("`reeve member remove a`, then `reeve member add`"));
    let printed = servers.reeve("b", &["member", "add"]).text();
    assert!(printed.contains("etcd's own business (etcdctl member add)"), "{printed}");
    servers.start("c", &strs(&joining(&printed)));
    servers.reeve("c", &["member", "remove", "a"]).done();
    assert_eq!(servers.wait("a"), Some(1));
    assert!(servers.log_tail("a").contains("was removed from the control plane"), "{}", servers.log_tail("a"));
    servers.spawn("a", &[]);
    assert_eq!(servers.wait("a"), Some(1));
    assert_eq!(members(servers, "b").expect("members").len(), 2);
    // One that was removed while it did not run hears of it at its next start.
    servers.kill("c");
    servers.reeve("b", &["member", "remove", "c"]).done();
    servers.spawn("c", &[]);
    assert_eq!(servers.wait("c"), Some(1));
    assert!(servers.log_tail("c").contains("was removed from the control plane"), "{}", servers.log_tail("c"));
    let told = servers.reeve("b", &["member", "remove", "b"]).refused();
    assert!(told.contains("is the only one"), "{told}");
    servers.signal("b", "TERM");
    assert_eq!(servers.wait("b"), Some(0));
}

#[test]
fn an_etcd_that_comes_back_is_gone_on_with_and_one_that_is_others_is_left_as_it_is() {
    if !Etcds::are_there() {
        return;
    }
    let (mut servers, mut etcds) = one();
    servers.kubectl("a", &["create", "configmap", "before"]).done();
    etcds.kill(0);
    eventually("the server says what is missing", || {
        let ready = servers.kubectl("a", &["get", "--raw", "/readyz", "--request-timeout=10s"]);
        if ready.to_string().contains("[-]etcd failed") { Ok(()) } else { Err(ready.to_string()) }
    });
    std::thread::sleep(Duration::from_secs(15)); // longer than Leases and keys last
    etcds.revive(0);
    eventually("writes go on", || match servers.kubectl("a", &["create", "deployment", "web", "--image=web"]) {
        run if run.code == 0 || run.stderr.contains("AlreadyExists") => Ok(()),
        run => Err(run.to_string()),
    });
    let pods = || servers.kubectl("a", &["get", "pods", "-o", "name"]).stdout;
    eventually_is("and controllers do", pods, |seen| seen.contains("pod/web-"));
    who_has_other_flags_is_told_which(&mut servers, &etcds);
    it_is_backed_up_and_comes_back_in_a_store_of_its_own(&mut servers);
}

fn who_has_other_flags_is_told_which(servers: &mut Servers, etcds: &Etcds) {
    let (flags, printed) = (etcds.flags(), servers.join_arguments("a"));
    let mut refused = |arguments: &[&str]| {
        servers.spawn("b", arguments);
        assert_eq!(servers.wait("b"), Some(1));
        servers.log_tail("b").lines().last().unwrap_or_default().to_owned()
    };
    let told = refused(&strs(&flags));
    assert!(told.contains("it holds another control plane; join that one (--join)"), "{told}");
    // Nothing has begun: the same folder may do anything else.
    let told = refused(&strs(&printed[..4]));
    assert!(
        told.contains("lies in an etcd: start the new server with --etcd-servers https://192.0.2.1:2379"),
        "{told}"
    );
    let told = refused(&[&strs(&printed)[..], &["--etcd-prefix", "/empty"]].concat());
    assert!(told.contains("it holds no control plane that could be joined"), "{told}");
    let told = refused(&[&strs(&printed)[..], &["--quota-backend-bytes", "1000000"]].concat());
    assert!(told.contains("has a quota of its own"), "{told}");
    // A control plane of its own beside it, which the first one's servers are not let into.
    servers.start("c", &[&strs(&flags)[..], &["--etcd-prefix", "/other"]].concat());
    let elsewhere: Vec<&str> = [&strs(&printed[..4])[..], &strs(&flags)[..], &["--etcd-prefix", "/other"]].concat();
    servers.spawn("b", &elsewhere);
    assert_eq!(servers.wait("b"), Some(1));
    assert!(servers.log_tail("b").contains("that was given holds another control plane"), "{}", servers.log_tail("b"));
    servers.start("b", &strs(&printed));
    let names = servers.kubectl("c", &["get", "deployments,configmaps", "-o", "name"]).text();
    assert!(!names.contains("web") && !names.contains("before"), "{names}");
    servers.kill("c");
    servers.spawn("c", &strs(&flags));
    assert_eq!(servers.wait("c"), Some(1));
    assert!(servers.log_tail("c").contains("begin another control plane with another --data-dir"));
}

fn it_is_backed_up_and_comes_back_in_a_store_of_its_own(servers: &mut Servers) {
    let (file, data_dir) = (servers.file("backup"), servers.data_dir("c"));
    let (file, data_dir) = (file.display().to_string(), data_dir.display().to_string());
    servers.reeve("b", &["backup", &file]).done();
    let offline = servers.reeve("b", &["backup", &format!("{file}2"), "--data-dir", &data_dir]).refused();
    assert!(offline.contains("where the state lies in an etcd, a server that runs makes the backup"), "{offline}");
    std::fs::remove_dir_all(servers.data_dir("c")).expect("the old folder");
    servers.reeve("b", &["restore", &file, "--data-dir", &data_dir]).done();
    servers.start("c", &[]);
    assert_eq!(servers.kubectl("c", &["get", "configmap", "before", "-o", "name"]).text(), "configmap/before\n");
    let all = members(servers, "c").expect("members");
    assert_eq!((all.len(), &all[0]["role"]), (1, &"leader".into()), "{all:?}");
    assert_eq!(members(servers, "a").expect("members").len(), 2);
}
