//! Images that containers look into: what they see, what they cannot do, and how long the images stay.

use reeve_engine::engine::{ContainerConfig, Engine as _, ImageSource, Mount, SandboxConfig, UserNamespace};

use crate::adoption::kill_supervisor;
use crate::bed::{Bed, append, append_link, image_archive_with, log_text, read_all};

crate::tests![
    all_layers_of_an_image_are_seen_as_one_and_executed_but_never_written,
    a_folder_of_an_image_is_found_inside_it_whatever_links_say,
    a_folder_that_is_not_there_fails_the_creation_and_leaves_nothing,
    an_image_that_is_not_here_or_would_be_more_than_looked_into_is_refused,
    files_of_an_image_belong_to_the_same_ids_in_a_pod_with_users_of_its_own,
    an_image_stays_as_long_as_a_container_shows_it,
    an_image_is_shown_by_the_next_engine_and_past_the_supervisors_death,
    more_images_than_a_plan_carries_are_refused_by_number,
];

/// Two layers: the upper one deletes a file of the lower one, and has a link of each kind.
fn data() -> Vec<u8> {
    let mut lower = tar::Builder::new(Vec::new());
    append(&mut lower, "dir/file", b"1\n", 0o644);
    append(&mut lower, "dir/gone", b"2\n", 0o644);
    append(&mut lower, "tool", b"#!/bin/sh\necho executed\n", 0o755);
    let mut upper = tar::Builder::new(Vec::new());
    append(&mut upper, "dir/.wh.gone", b"", 0o644);
    append(&mut upper, "dir/second", b"3\n", 0o644);
    append_link(&mut upper, "absolute", "/dir");
    append_link(&mut upper, "climbs", "../../../../dir");
    append_link(&mut upper, "out", "/etc");
    image_archive_with("data:1", &["none"], &[lower.into_inner().unwrap(), upper.into_inner().unwrap()])
}

async fn bed() -> Bed {
    let bed = Bed::new().await;
    bed.engine.images().load(data().as_slice()).unwrap();
    bed
}

/// The image `data:1`, or a folder of it, at /v.
fn show(bed: &Bed, sub_path: &str) -> Mount {
    let image = bed.engine.images().get("data:1").unwrap().unwrap().id;
    let image = Some(ImageSource { image, reference: "data:1".to_owned(), sub_path: sub_path.to_owned() });
    Mount { target: "/v".into(), read_only: true, image, ..Mount::default() }
}

fn looking(bed: &Bed, sub_path: &str, script: &str) -> ContainerConfig {
    ContainerConfig { mounts: vec![show(bed, sub_path)], ..bed.script("looks", script) }
}

/// Names below the store's folder of layers.
fn layers(bed: &Bed) -> usize {
    std::fs::read_dir(bed.engine.images().dir().join("layers")).unwrap().count()
}

async fn all_layers_of_an_image_are_seen_as_one_and_executed_but_never_written() {
    let bed = bed().await;
    let script = "exec 2>&1; ls /v /v/dir; cat /v/dir/file /v/dir/second; /v/tool; touch /v/new; rm /v/dir/file; \
                  mount -o remount,rw /v; touch /v/new; grep -c ' /v overlay ro,nosuid,nodev,' /proc/mounts";
    let mut config = looking(&bed, "", script);
    let seen = "/v:\nabsolute\nclimbs\ndir\nout\ntool\n\n/v/dir:\nfile\nsecond\n1\n3\nexecuted\n";
    let refused = "touch: /v/new: Read-only file system\n";
    for privileged in [false, true] {
        config.security.privileged = privileged;
        let (_, text) = bed.run(config.clone()).await;
        let rest = text.strip_prefix(seen).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(rest.matches(refused).count(), 2, "{text}");
        assert!(rest.contains("rm: can't remove '/v/dir/file': Read-only file system\n"), "{text}");
        assert!(privileged || rest.ends_with("\n1\n"), "{text}");
    }
    bed.close().await;
}

async fn a_folder_of_an_image_is_found_inside_it_whatever_links_say() {
    let bed = bed().await;
    for sub_path in ["dir", "/dir/", "absolute", "climbs", "../../dir", "dir/../absolute"] {
        let (code, text) = bed.run(looking(&bed, sub_path, "cat /v/file")).await;
        assert_eq!((code, text.as_str()), (0, "1\n"), "{sub_path}");
    }
    bed.close().await;
}

async fn a_folder_that_is_not_there_fails_the_creation_and_leaves_nothing() {
    let bed = bed().await;
    let sandbox = bed.sandbox().await;
    let begin = "failed to mount image volume: ImageVolumeMountFailed: failed to ensure image subpath";
    for (sub_path, why) in [
        ("no/such", "openat no/such: no such file or directory"),
        // The node has it, the image does not.
        ("out", "openat out: no such file or directory"),
        ("dir/file/x", "openat dir/file/x: not a directory"),
        ("dir/file", "only directory subpath is supported, subpath: \"dir/file\""),
    ] {
        let refused = bed.engine.create_container(&sandbox.id, looking(&bed, sub_path, "true")).await;
        let refused = refused.expect_err("nothing to show").to_string();
        assert_eq!(refused, format!("{begin} {sub_path:?} in \"data:1\": {why}"));
    }
    assert!(bed.engine.list_containers().await.unwrap().is_empty());
    let homes = std::fs::read_dir(bed.engine.images().dir().join("containers")).unwrap().count();
    assert_eq!(homes, 0, "what was made for them is gone");
    bed.close().await;
}

async fn an_image_that_is_not_here_or_would_be_more_than_looked_into_is_refused() {
    let bed = bed().await;
    let sandbox = bed.sandbox().await;
    let begin = "failed to mount image volume: ImageVolumeMountFailed:";
    let missing = Some(ImageSource { image: "no/such:1".to_owned(), ..ImageSource::default() });
    for (mount, why) in [
        (Mount { image: missing, ..show(&bed, "") }, "failed to resolve image \"no/such:1\": not found"),
        (Mount { source: "/etc".into(), ..show(&bed, "") }, "hostpath must be empty while mount image: /v"),
        (Mount { read_only: false, ..show(&bed, "") }, "readonly must be true while mount image: /v"),
    ] {
        let config = ContainerConfig { mounts: vec![mount], ..bed.script("looks", "true") };
        let refused = bed.engine.create_container(&sandbox.id, config).await.expect_err("refused");
        assert_eq!(refused.to_string(), format!("{begin} {why}"));
    }
    bed.close().await;
}

async fn files_of_an_image_belong_to_the_same_ids_in_a_pod_with_users_of_its_own() {
    let bed = bed().await;
    let ids = UserNamespace { first: 705 << 16, length: 1 << 16 };
    let config = SandboxConfig { user_namespace: Some(ids), ..bed.sandbox_config() };
    let sandbox = bed.engine.run_pod_sandbox(config).await.unwrap();
    let script = "exec 2>&1; stat -c %u:%g /v /v/file; cat /v/file; touch /v/new; mount -o remount,rw /v; touch /v/new";
    let mut config = looking(&bed, "dir", script);
    config.security.privileged = true;
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    bed.end(&id).await;
    let text = log_text(&log);
    assert!(text.starts_with("0:0\n0:0\n1\ntouch: /v/new: Read-only file system\n"), "{text}");
    assert!(text.ends_with("touch: /v/new: Read-only file system\n"), "{text}");
    bed.close().await;
}

async fn an_image_stays_as_long_as_a_container_shows_it() {
    let bed = bed().await;
    let sandbox = bed.sandbox().await;
    let (image, before) = (bed.engine.images().get("data:1").unwrap().unwrap().id, layers(&bed));
    let config = looking(&bed, "dir", "until test -e /tmp/go; do sleep 0.05; done; cat /v/file");
    let log = config.log_path.clone();
    let id = bed.engine.create_container(&sandbox.id, config).await.unwrap();
    bed.engine.remove_image("data:1").await.unwrap();
    bed.engine.images().prune().unwrap();
    assert!(bed.engine.image_status(&image).await.unwrap().is_some(), "its id is still known");
    assert_eq!(layers(&bed), before);
    bed.engine.start_container(&id).await.unwrap();
    let go = reeve_engine::engine::ExecConfig {
        command: ["touch", "/tmp/go"].map(str::to_owned).to_vec(),
        ..reeve_engine::engine::ExecConfig::default()
    };
    assert_eq!(bed.engine.exec(&id, go).await.unwrap().exit.await.unwrap(), 0);
    assert_eq!(bed.end(&id).await.0, Some(0));
    assert_eq!(log_text(&log), "1\n");
    bed.engine.remove_container(&id).await.unwrap();
    assert!(bed.engine.image_status(&image).await.unwrap().is_none(), "nobody needs it any more");
    assert_eq!(layers(&bed), before - 2);
    bed.close().await;
}

async fn an_image_is_shown_by_the_next_engine_and_past_the_supervisors_death() {
    let bed = bed().await;
    let sandbox = bed.sandbox().await;
    let id = bed.engine.create_container(&sandbox.id, looking(&bed, "dir", "exec sleep 1000")).await.unwrap();
    // What this engine has mounted, the next one does not have.
    let next = bed.reopen().await;
    next.start_container(&id).await.unwrap();
    let look = || reeve_engine::engine::ExecConfig {
        command: ["cat", "/v/file"].map(str::to_owned).to_vec(),
        stdout: true,
        ..reeve_engine::engine::ExecConfig::default()
    };
    let session = next.exec(&id, look()).await.unwrap();
    assert_eq!(read_all(session.stdout).await, "1\n");
    kill_supervisor(&bed).await;
    let session = bed.engine.exec(&id, look()).await.unwrap();
    assert_eq!(read_all(session.stdout).await, "1\n");
    // Else it would start another supervisor in place of the one that the bed ends.
    next.shutdown(std::time::Duration::ZERO).await.unwrap();
    bed.close().await;
}

async fn more_images_than_a_plan_carries_are_refused_by_number() {
    let bed = bed().await;
    let sandbox = bed.sandbox().await;
    let many = |count: usize| {
        let at = |number| Mount { target: format!("/v/{number}").into(), ..show(&bed, "dir") };
        ContainerConfig { mounts: (0..count).map(at).collect(), ..bed.script("looks", "cat /v/*/file | wc -l") }
    };
    let refused = bed.engine.create_container(&sandbox.id, many(33)).await.expect_err("too many");
    let why =
        "failed to mount image volume: ImageVolumeMountFailed: 33 mounts of images: a container may show at most 32";
    assert_eq!(refused.to_string(), why);
    let (_, text) = bed.run(many(32)).await;
    assert_eq!(text, "32\n");
    bed.close().await;
}
