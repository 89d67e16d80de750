//! A cluster whose state lies in somebody else's etcd: three members over TLS, of which one dies.

use reeve_tests::cluster::Cluster;
use reeve_tests::command::run;
use reeve_tests::etcds::Etcds;
use reeve_tests::machine::Machine;
use reeve_tests::patience::eventually;

#[test]
fn a_cluster_whose_state_lies_in_three_etcds_goes_on_when_one_dies_and_after_it_was_stopped() {
    if !Etcds::are_there() {
        return;
    }
    let machine = Machine::new();
    let mut etcds = Etcds::start(&machine.pin(), "127.0.0.1", 3);
    let cluster = Cluster::prepare_for(&machine, "etcds");
    run(cluster.up_command().args(etcds.flags()), "").done();
    cluster.kubectl(&["create", "configmap", "before", "--from-literal=a=1"]).done();
    etcds.kill(0); // the one that is asked: it is the first
    // That controllers see it says that watches go on.
    eventually("a write", || match cluster.kubectl(&["create", "deployment", "web", "--image=none", "--replicas=0"]) {
        run if run.code == 0 || run.stderr.contains("AlreadyExists") => Ok(()),
        run => Err(run.to_string()),
    });
    eventually("the ReplicaSet", || match cluster.kubectl(&["get", "replicaset", "-l", "app=web", "-o", "name"]) {
        run if run.stdout.contains("replicaset.apps/web-") => Ok(()),
        run => Err(run.to_string()),
    });
    cluster.down().done();
    cluster.up_again().done(); // where its state lies is a lasting choice
    assert_eq!(cluster.kubectl(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"]).text(), "1");
    cluster.kubectl(&["get", "deployment", "web"]).done();
    cluster.down().done();
}
