//! Volumes that show images: what is seen in them, and what is told of one that cannot be had.

use reeve_tests::cluster::Cluster;
use reeve_tests::patience::eventually_is;

use super::failures::{name_image, said, waits_for};
use super::pods::{pod, script};

/// Builds an image of two layers, of which the upper one deletes a file of the lower one.
fn build_data(name: &str) {
    let cluster = Cluster::shared();
    let context = cluster.home().join("data-image");
    std::fs::create_dir_all(context.join("lower/dir")).expect("a folder");
    std::fs::create_dir_all(context.join("upper/dir")).expect("a folder");
    std::fs::write(context.join("lower/dir/file"), "from the lower layer\n").expect("a file");
    std::fs::write(context.join("upper/dir/second"), "from the upper layer\n").expect("a file");
    let tool = context.join("upper/tool");
    std::fs::write(&tool, "#!/bin/sh\necho executed\n").expect("a file");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&tool, executable).expect("an executable file");
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY lower/ /\nCOPY upper/ /\n").expect("a Dockerfile");
    let (data_dir, context) = (cluster.data_dir(), context.to_string_lossy().into_owned());
    let data_dir = data_dir.to_string_lossy();
    cluster.reeve(&["build", "--quiet", "-t", name, "--name", &cluster.name, "--data-dir", &data_dir, &context]).done();
}

/// The pod's field with one volume `data` that shows an image.
fn shows(image: &str, more: &str) -> String {
    format!(r#""volumes": [{{"name": "data", "image": {{"reference": "{image}"{more}}}}}],"#)
}

#[test]
fn a_container_looks_into_an_image_and_into_a_part_of_it() {
    let space = Cluster::shared().space("images");
    build_data("data:v1");
    let mounts = r#""env": [{"name": "PART", "value": "dir"}], "volumeMounts": [
        {"name": "data", "mountPath": "/data"},
        {"name": "data", "mountPath": "/part", "subPath": "dir"},
        {"name": "data", "mountPath": "/parts", "subPathExpr": "$(PART)"}]"#;
    for (name, policy, users) in [
        ("usual", "", ""),
        ("always", r#", "pullPolicy": "Always""#, ""),
        ("users", r#", "pullPolicy": "Never""#, r#""hostUsers": false,"#),
    ] {
        let container = format!("{mounts}, {}", script("sleep 600"));
        space.apply(&pod(name, &container, &format!("{users} {}", shows("data:v1", policy))));
        space.ready(name);
        let seen = space.sh(name, "cat /data/dir/file /data/dir/second /part/second /parts/file");
        let [lower, upper] = ["from the lower layer\n", "from the upper layer\n"];
        assert_eq!(seen, [lower, upper, upper, lower].concat(), "{name}");
        let refused = space.sh(name, "touch /data/x 2>&1; touch /part/x 2>&1; true");
        assert_eq!(refused.matches("Read-only file system").count(), 2, "{name}: {refused}");
        assert_eq!(space.sh(name, "/data/tool"), "executed\n", "{name}");
        assert_eq!(space.sh(name, "stat -c %u /data/dir/file /part"), "0\n0\n", "{name}");
    }
    assert_eq!(space.get("pod/usual", "{.spec.volumes[0].image.pullPolicy}"), "IfNotPresent", "as for containers");
    let present = "Container image \"data:v1\" already present on machine and can be accessed by the pod";
    said(&space, "usual", &format!("Normal Pulled {present}"));
    said(&space, "always", "Normal Pulling Pulling image \"data:v1\"");
}

#[test]
fn an_image_volume_that_cannot_be_had_is_told_like_a_containers_own_image() {
    let space = Cluster::shared().space("no-images");
    let image = "localhost:1/absent-data:v1";
    let mounts = r#""volumeMounts": [{"name": "data", "mountPath": "/data"}]"#;
    space.apply(&pod("looker", &format!("{mounts}, {}", script("sleep 600")), &shows(image, "")));
    // Nobody mounts it: nobody waits for it.
    space.apply(&pod("unused", &script("sleep 600"), &shows(image, "")));
    space.apply(&pod(
        "never",
        &format!("{mounts}, {}", script("true")),
        &shows("no-such-image:v1", r#", "pullPolicy": "Never""#),
    ));
    space.ready("unused");
    let message = waits_for(&space, "looker", "ImagePullBackOff");
    let start = format!("Back-off pulling image \"{image}\": ErrImagePull: ");
    assert!(message.starts_with(&start) && message.contains("localhost:1"), "{message}");
    for event in [
        format!("Normal Pulling Pulling image \"{image}\""),
        "Warning Failed Error: ErrImagePull".to_owned(),
        format!("Normal BackOff Back-off pulling image \"{image}\""),
        "Warning Failed Error: ImagePullBackOff".to_owned(),
    ] {
        said(&space, "looker", &event);
    }
    // The image is the pod's, what waits for it is a container.
    let fields = |reason: &str| {
        let filter = format!("--field-selector=involvedObject.name=looker,reason={reason}");
        let path = "jsonpath={.items[*].involvedObject.fieldPath}";
        space.kubectl(&["get", "events", &filter, "-o", path]).text()
    };
    assert_eq!(fields("BackOff"), "");
    assert!(fields("Failed").contains("spec.containers{main}"), "{}", fields("Failed"));
    let message = waits_for(&space, "never", "ErrImageNeverPull");
    assert_eq!(message, "Container image \"no-such-image:v1\" is not present with pull policy of Never");
    name_image(image);
    space.ready("looker");
    assert_eq!(space.sh("looker", "test -x /data/bin/busybox && echo here"), "here\n");
}

#[test]
fn a_part_that_an_image_does_not_have_fails_the_creation_and_says_so() {
    let space = Cluster::shared().space("no-parts");
    build_data("data:v2");
    let mounts = r#""volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "no/such"}]"#;
    space.apply(&pod("partless", &format!("{mounts}, {}", script("sleep 600")), &shows("data:v2", "")));
    let message = waits_for(&space, "partless", "CreateContainerError");
    let wanted = "failed to mount image volume: ImageVolumeMountFailed: failed to ensure image subpath \"no/such\" in \
                  \"data:v2\": openat no/such: no such file or directory";
    assert_eq!(message, wanted);
    said(&space, "partless", &format!("Warning Failed Error: {wanted}"));
    // Its image is kept as long as it is there, and may go afterwards.
    space.kubectl(&["delete", "pod", "partless", "--wait"]).done();
    let cluster = Cluster::shared();
    let data_dir = cluster.data_dir();
    let place = ["--name", &cluster.name, "--data-dir", &data_dir.to_string_lossy()];
    cluster.reeve(&[&["image", "rm", "data:v2"][..], &place].concat()).done();
    let images = || cluster.reeve(&[&["image", "ls"][..], &place].concat()).text();
    eventually_is("it is gone", images, |images| {
        !images.lines().any(|line| line.contains("data") && line.contains("v2"))
    });
}
