//! Containers that stand still: paused, or while they are written into an archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use reeve_engine::engine::{ContainerState, Engine as _, EngineError, ExecConfig};

use crate::bed::{Bed, eventually, log_text};

crate::tests![
    a_paused_container_stands_still_until_it_is_resumed,
    a_paused_container_is_stopped_and_removed_as_any_other,
    a_container_is_written_into_an_archive_and_goes_on,
    a_checkpoint_that_takes_too_long_leaves_nothing_and_the_container_goes_on,
    a_checkpoint_that_cannot_be_made_says_why_and_leaves_nothing,
    a_container_that_an_engine_left_in_the_middle_of_a_checkpoint_is_woken_by_the_next,
];

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/count; sleep 0.1; done";

fn lines(log: &Path) -> usize {
    log_text(log).lines().count()
}

/// Waits until a counting container has counted on.
async fn counts_on(log: &Path) {
    let before = lines(log);
    eventually("it counts on", || lines(log) > before + 1).await;
}

async fn stands_still(log: &Path) {
    // What was on its way into the log is there by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = lines(log);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lines(log), before, "it stands still");
}

async fn a_paused_container_stands_still_until_it_is_resumed() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config = bed.script("count", COUNT);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    counts_on(&log).await;
    for _ in 0..2 {
        bed.engine.pause_container(&id).await.unwrap();
    }
    stands_still(&log).await;
    assert!(matches!(bed.engine.container_status(&id).await.unwrap().state, ContainerState::Running { .. }));
    let exec = ExecConfig { command: vec!["true".to_owned()], stdout: true, ..ExecConfig::default() };
    let refused = bed.engine.exec(&id, exec.clone()).await.map(drop).unwrap_err();
    assert_eq!(refused.to_string(), format!("container {id} is paused"));
    for _ in 0..2 {
        bed.engine.resume_container(&id).await.unwrap();
    }
    counts_on(&log).await;
    let session = bed.engine.exec(&id, exec).await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 0);
    bed.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    let refused = bed.engine.pause_container(&id).await.unwrap_err();
    assert!(matches!(refused, EngineError::WrongState { .. }), "{refused}");
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn a_paused_container_is_stopped_and_removed_as_any_other() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let polite = bed.script("polite", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done");
    let log = polite.log_path.clone();
    let id = bed.start(&sandbox, polite).await;
    eventually("it is ready", || lines(&log) == 1).await;
    bed.engine.pause_container(&id).await.unwrap();
    bed.engine.stop_container(&id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(bed.end(&id).await.0, Some(7), "it was woken and heard its signal");
    let id = bed.start(&sandbox, bed.command("sleep", &["sleep", "1000"])).await;
    bed.engine.pause_container(&id).await.unwrap();
    bed.engine.remove_container(&id).await.unwrap();
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

/// Whether CRIU is here and works on this kernel.
pub(crate) fn criu_works() -> bool {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let checked = std::process::Command::new("sh").args(["-c", "criu check"]).env("PATH", path).output();
    checked.is_ok_and(|checked| checked.status.success())
}

async fn a_container_is_written_into_an_archive_and_goes_on() {
    if !criu_works() {
        println!("SKIPPED: CRIU is not here, or does not work on this kernel");
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut config = bed.script("count", COUNT);
    let volume = bed.dir().join("volume");
    std::fs::create_dir(&volume).unwrap();
    config.mounts.push(reeve_engine::engine::Mount {
        source: volume,
        target: "/vol".into(),
        ..reeve_engine::engine::Mount::default()
    });
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    counts_on(&log).await;
    let place = bed.dir().join("checkpoint.tar");
    bed.engine.checkpoint_container(&id, &place, None).await.unwrap();
    counts_on(&log).await;
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600, "it holds the memory");
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(File::open(&place).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), content);
    }
    for name in ["checkpoint/inventory.img", "checkpoint/core-1.img", "dump.log", "stats-dump", "spec.dump"] {
        assert!(files.contains_key(name), "{name} of {:?}", files.keys());
    }
    let config: serde_json::Value = serde_json::from_slice(&files["config.dump"]).unwrap();
    assert_eq!((config["id"].as_str(), config["name"].as_str()), (Some(id.as_str()), Some("count")));
    let binds: serde_json::Value = serde_json::from_slice(&files["bind.mounts"]).unwrap();
    assert_eq!(binds[0]["destination"], "/vol");
    let mut written = tar::Archive::new(files["rootfs-diff.tar"].as_slice());
    let written: Vec<String> =
        written.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(written, ["count"], "what it has written, and not what was mounted");
    // One that is paused stays so.
    bed.engine.pause_container(&id).await.unwrap();
    bed.engine.checkpoint_container(&id, &bed.dir().join("again.tar"), None).await.unwrap();
    stands_still(&log).await;
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn a_checkpoint_that_takes_too_long_leaves_nothing_and_the_container_goes_on() {
    if !criu_works() {
        println!("SKIPPED: CRIU is not here, or does not work on this kernel");
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config = bed.script("count", COUNT);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    counts_on(&log).await;
    let folder = bed.dir().join("checkpoints");
    std::fs::create_dir(&folder).unwrap();
    // The first is over before CRIU is, the others at any moment of the work.
    for millis in [1, 60, 120, 180, 240] {
        let place = folder.join(format!("{millis}.tar"));
        let made = bed.engine.checkpoint_container(&id, &place, Some(Duration::from_millis(millis))).await;
        assert!(millis > 1 || made.is_err(), "one millisecond is not enough");
        let mark = bed.dir().join("run/engine/containers").join(&id).join("checkpoint");
        let is_kept = made.is_ok();
        eventually("it is over", || {
            let left = std::fs::read_dir(&folder).unwrap().count();
            !mark.exists() && left == usize::from(is_kept)
        })
        .await;
        assert_eq!(place.exists(), is_kept);
        counts_on(&log).await;
        let _ = std::fs::remove_file(&place);
    }
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn a_checkpoint_that_cannot_be_made_says_why_and_leaves_nothing() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.command("sleep", &["sleep", "1000"])).await;
    let place = bed.dir().join("not-there/checkpoint.tar");
    let error = bed.engine.checkpoint_container(&id, &place, None).await.unwrap_err().to_string();
    // What is missing differs between machines; that it is said does not.
    let why = if criu_works() { "failed to write " } else { "checkpoints need CRIU" };
    assert!(error.starts_with(why), "{error}");
    assert!(!place.exists());
    assert!(matches!(bed.engine.container_status(&id).await.unwrap().state, ContainerState::Running { .. }));
    bed.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    let error = bed.engine.checkpoint_container(&id, &place, None).await.unwrap_err();
    assert!(matches!(error, EngineError::WrongState { .. }), "{error}");
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn a_container_that_an_engine_left_in_the_middle_of_a_checkpoint_is_woken_by_the_next() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let config = bed.script("count", COUNT);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    counts_on(&log).await;
    bed.engine.pause_container(&id).await.unwrap();
    let mark = bed.dir().join("run/engine/containers").join(&id).join("checkpoint");
    File::create_new(&mark).unwrap();
    let next = bed.reopen().await;
    counts_on(&log).await;
    assert!(!mark.exists());
    // Else it would start another supervisor in place of the one that the bed ends.
    next.shutdown(Duration::ZERO).await.unwrap();
    bed.close().await;
}
