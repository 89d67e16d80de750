//! Bad input, through kubectl and through `reeve`: the message names the thing, and nothing is changed.

use reeve_tests::cluster::Cluster;
use reeve_tests::command::Run;
use reeve_tests::space::Space;

/// The same words to both command lines.
fn both(space: &Space<'_>, yaml: &str) -> [Run; 2] {
    let file = space.cluster.home().join(format!("{}.yaml", space.name));
    std::fs::write(&file, yaml).expect("a manifest");
    let file = file.to_string_lossy();
    let args = ["-n", &space.name, "apply", "-f", &file];
    [space.cluster.kubectl(&args), space.cluster.reeve(&args)]
}

#[track_caller]
fn refused(space: &Space<'_>, yaml: &str, words: &[&str]) {
    for run in both(space, yaml) {
        let command = run.command.clone();
        let said = run.refused();
        for word in words {
            assert!(said.contains(word), "`{command}` should say {word:?}: {said}");
        }
    }
}

#[test]
fn manifests_that_cannot_be_are_refused_in_both_command_lines() {
    let space = Cluster::shared().space("input");
    refused(&space, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n bad: [\n", &["input.yaml", "line"]);
    let place = space.cluster.home().join("input.yaml");
    let said = space.cluster.reeve(&["apply", "-f", &place.to_string_lossy()]).refused();
    assert!(said.contains("line 5") && said.contains("column"), "`reeve` says where: {said}");
    refused(
        &space,
        "apiVersion: v1\nkind: Pud\nmetadata: {name: x}\n",
        &["no matches for kind \"Pud\" in version \"v1\""],
    );
    let unknown = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatum: {a: b}\n";
    refused(&space, unknown, &["unknown field \"datum\""]);
    let mistyped = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  replicas: many\n  selector: {matchLabels: {a: b}}\n  \
                    template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}\n";
    refused(&space, mistyped, &["replicas"]);
    let invalid = "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec:\n  restartPolicy: Sometimes\n  containers:\n  - {name: c, image: i}\n  - {name: c, image: i}\n";
    let causes = [
        "metadata.name: Invalid value: \"Bad_Name\"",
        "spec.containers[1].name: Duplicate value: \"c\"",
        "spec.restartPolicy: Unsupported value: \"Sometimes\"",
    ];
    refused(&space, invalid, &causes);
    assert_eq!(space.kubectl(&["get", "pods,deployments", "-o", "name"]).text(), "");
}

#[test]
fn a_write_on_what_has_changed_is_a_conflict() {
    let space = Cluster::shared().space("conflict");
    space.kubectl(&["create", "configmap", "shared", "--from-literal=a=1"]).done();
    let mut stale = space.object("configmap/shared");
    space.kubectl(&["patch", "configmap", "shared", "-p", r#"{"data":{"a":"2"}}"#]).done();
    stale["data"]["a"] = "3".into();
    let said = space.kubectl_with(&["replace", "-f", "-"], &stale.to_string()).refused();
    assert!(
        said.contains("the object has been modified; please apply your changes to the latest version and try again"),
        "{said}"
    );
    assert_eq!(space.get("configmap/shared", "{.data.a}"), "2");
    let said = space.kubectl(&["create", "configmap", "shared"]).refused();
    assert!(said.contains("configmaps \"shared\" already exists"), "{said}");
}
