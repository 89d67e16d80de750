//! What is deleted takes along what it owns, or does not, as asked.

use reeve_tests::cluster::Cluster;
use reeve_tests::patience::eventually_is;

use crate::workloads::web;

#[test]
fn dependents_go_with_their_owner_or_stay_behind_as_asked() {
    let space = Cluster::shared().space("garbage");
    let sets = || space.get("replicasets", "{.items[*].metadata.name}");
    let pods = || space.get("pods", "{.items[*].metadata.name}");

    space.apply(&web(1, "one", ""));
    space.rolled_out("web");
    space.kubectl(&["delete", "deployment", "web", "--cascade=foreground"]).done();
    assert_eq!(sets(), "", "foreground: the owner went last");

    space.apply(&web(1, "one", ""));
    space.rolled_out("web");
    space.kubectl(&["delete", "deployment", "web", "--cascade=background"]).done();
    eventually_is("background: they follow", || format!("{}{}", sets(), pods()), str::is_empty);

    space.apply(&web(1, "one", ""));
    space.rolled_out("web");
    let set = sets();
    space.kubectl(&["delete", "deployment", "web", "--cascade=orphan"]).done();
    let owners = || space.get(&format!("replicaset/{set}"), "{.metadata.ownerReferences}");
    eventually_is("orphan: the ReplicaSet belongs to nobody", owners, str::is_empty);
    assert_eq!(sets(), set);
    // A Deployment with the same selector takes the orphan in.
    space.apply(&web(1, "one", ""));
    space.rolled_out("web");
    assert_eq!(sets(), set);
}

#[test]
fn deleting_a_namespace_deletes_what_is_in_it_and_ends() {
    let cluster = Cluster::shared();
    let space = cluster.space("whole");
    space.apply(&web(2, "one", ""));
    space.kubectl(&["create", "configmap", "settings", "--from-literal=a=b"]).done();
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]).done();
    space.rolled_out("web");
    cluster.kubectl(&["delete", "namespace", "whole", "--timeout=60s"]).done();
    for kind in ["pods", "deployments", "configmaps", "services", "secrets", "endpointslices", "events"] {
        let left = cluster.kubectl(&["get", kind, "-n", "whole", "-o", "name"]).text();
        assert_eq!(left, "", "{kind}");
    }
    let refused = cluster.kubectl(&["create", "configmap", "late", "-n", "whole"]).refused();
    assert!(refused.contains("namespaces \"whole\" not found"), "{refused}");
}
