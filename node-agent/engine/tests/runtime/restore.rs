//! Containers that come back from a checkpoint, in another pod.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reeve_engine::build::{BuildRequest, build};
use reeve_engine::engine::{ContainerConfig, ContainerState, Engine as _, EngineError, ExecConfig, Mount, Sandbox};

use crate::bed::{Bed, append, eventually, log_text, read_all};
use crate::checkpoint::criu_works;

crate::tests![
    a_container_goes_on_in_another_pod_where_its_checkpoint_was_made,
    a_restored_container_is_stopped_adopted_and_counted_as_any_other,
    what_was_mounted_must_be_there_again,
    a_container_is_restored_from_an_archive_and_from_another_engines_image,
    nobody_gains_rights_by_a_checkpoint,
    a_container_with_a_read_only_root_and_little_memory_is_restored,
    a_checkpoint_that_is_none_is_refused_and_leaves_nothing,
    a_restore_that_criu_gives_up_says_why_and_leaves_nothing,
    an_engine_that_dies_in_the_middle_of_a_restore_leaves_nothing_behind,
];

const ANNOTATION: &str = "org.criu.checkpoint.container.name";
/// Counts in memory, into its log and into a file; ends with 7 when it is asked to.
const COUNT: &str = "trap 'exit 7' TERM; rm /etc/secret; i=0
    while :; do i=$((i+1)); echo $i; echo $i >/count; sleep 0.05; done";

fn counted(log: &Path) -> Vec<u64> {
    log_text(log).lines().filter_map(|line| line.parse().ok()).collect()
}

/// A container that has counted for a while, and its checkpoint as an archive; it is gone afterwards.
pub(crate) struct Made {
    pub(crate) bed: Bed,
    pub(crate) archive: PathBuf,
    last: u64,
}

fn volume(bed: &Bed, name: &str) -> Mount {
    let source = bed.dir().join(name);
    fs::create_dir_all(&source).unwrap();
    Mount { source, target: "/vol".into(), ..Mount::default() }
}

fn counting(bed: &Bed, volume: Mount) -> ContainerConfig {
    let mut config = bed.script("count", COUNT);
    config.mounts.push(volume);
    config
}

/// `None`, loudly, where CRIU does not work.
pub(crate) async fn make(edit: impl FnOnce(&mut ContainerConfig)) -> Option<Made> {
    if !criu_works() {
        println!("SKIPPED: CRIU is not here, or does not work on this kernel");
        return None;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut config = counting(&bed, volume(&bed, "volume"));
    edit(&mut config);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    eventually("it counts", || counted(&log).len() > 5).await;
    let archive = bed.dir().join("checkpoint.tar");
    bed.engine.checkpoint_container(&id, &archive, None).await.unwrap();
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    let last = *counted(&log).last().unwrap();
    fs::remove_file(&log).unwrap();
    Some(Made { bed, archive, last })
}

impl Made {
    /// The checkpoint as an image, built as a user would.
    fn image(&self) -> String {
        self.image_of(&self.archive)
    }

    fn image_of(&self, archive: &Path) -> String {
        let context = tempfile::tempdir().unwrap();
        fs::copy(archive, context.path().join("checkpoint.tar")).unwrap();
        fs::write(context.path().join("Dockerfile"), "FROM scratch\nADD checkpoint.tar /\n").unwrap();
        let request = BuildRequest {
            context: context.path().to_owned(),
            tags: vec!["checkpoint:1".to_owned()],
            annotations: BTreeMap::from([(ANNOTATION.to_owned(), "count".to_owned())]),
            ..BuildRequest::default()
        };
        build(self.bed.engine.images(), &request, &mut |_| {}).unwrap().id
    }

    pub(crate) async fn pod(&self) -> Sandbox {
        let mut config = self.bed.sandbox_config();
        (config.name, config.uid, config.hostname) = ("other".to_owned(), "u2".to_owned(), "other-0".to_owned());
        config.cgroup = "kubepods/burstable/podu2".to_owned();
        self.bed.engine.run_pod_sandbox(config).await.unwrap()
    }

    /// The container again, in another pod; its image is the checkpoint.
    pub(crate) fn again(&self, image: String) -> ContainerConfig {
        ContainerConfig {
            image,
            command: vec!["/no/such".to_owned()],
            ..counting(&self.bed, volume(&self.bed, "other"))
        }
    }

    pub(crate) async fn refused(&self, sandbox: &Sandbox, config: ContainerConfig) -> String {
        let id = match self.bed.engine.create_container(&sandbox.id, config).await {
            Ok(id) => id,
            Err(error) => return error.to_string(),
        };
        let error = self.bed.engine.start_container(&id).await.unwrap_err().to_string();
        let state = self.bed.engine.container_status(&id).await.unwrap().state;
        assert!(
            matches!(&state, ContainerState::Exited { reason, message, .. }
            if reason == "StartError" && *message == error),
            "{state:?}"
        );
        self.bed.engine.remove_container(&id).await.unwrap();
        error
    }

    /// The archive with one of its files changed.
    pub(crate) fn changed(&self, name: &str, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> PathBuf {
        let place = self.bed.dir().join("changed.tar");
        let mut out = tar::Builder::new(Vec::new());
        for entry in tar::Archive::new(fs::File::open(&self.archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let bytes = if path == name { change(bytes) } else { Some(bytes) };
            if let Some(bytes) = bytes {
                append(&mut out, &path, &bytes, 0o600);
            }
        }
        fs::write(&place, out.into_inner().unwrap()).unwrap();
        place
    }
}

async fn sh(bed: &Bed, id: &str, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let exec = ExecConfig { command, stdout: true, ..ExecConfig::default() };
    let session = bed.engine.exec(id, exec).await.unwrap();
    let said = read_all(session.stdout).await;
    assert_eq!(session.exit.await.unwrap(), 0, "{script}: {said}");
    said
}

async fn a_container_goes_on_in_another_pod_where_its_checkpoint_was_made() {
    let Some(made) = make(|_| {}).await else { return };
    let pod = made.pod().await;
    let image = made.image();
    let config = ContainerConfig { command: Vec::new(), ..made.again(image.clone()) };
    let log = config.log_path.clone();
    let id = made.bed.start(&pod, config).await;
    eventually("it counts on", || counted(&log).len() > 5).await;
    let numbers = counted(&log);
    let first = numbers[0];
    assert!(
        first > 3 && first <= made.last + 1,
        "it goes on where it was: {first}, and it had counted to {}",
        made.last
    );
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "without a gap: {numbers:?}");
    let told = made.bed.engine.container_status(&id).await.unwrap();
    assert!(matches!(told.state, ContainerState::Running { .. }));
    assert_eq!(told.image_id, image, "its image is the one that was asked for");
    assert!(!sh(&made.bed, &id, "cat /count").await.is_empty(), "what it has written");
    sh(&made.bed, &id, "test ! -e /etc/secret").await;
    assert_eq!(sh(&made.bed, &id, "hostname").await, "other-0\n", "it is in the new pod's namespaces");
    assert_eq!(sh(&made.bed, &id, "ls /sys/class/net").await, "lo\n");
    sh(&made.bed, &id, "echo x >/vol/written").await;
    assert!(made.bed.dir().join("other/written").exists(), "it has the new pod's volume");
    let ContainerState::Running { pid, .. } = told.state else { unreachable!() };
    let limits = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(limits.contains(&format!("podu2/{id}")), "{limits}");
    // A checkpoint of what was restored is one, too.
    let again = made.bed.dir().join("again.tar");
    made.bed.engine.checkpoint_container(&id, &again, None).await.unwrap();
    made.bed.engine.stop_container(&id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(made.bed.end(&id).await.0, Some(7), "it hears its signal, and its code is told");
    let _ = fs::remove_file(&log);
    let id = made.bed.start(&pod, made.again(made.image_of(&again))).await;
    eventually("it counts on", || counted(&log).len() > 2).await;
    assert!(counted(&log)[0] > first);
    made.bed.engine.remove_container(&id).await.unwrap();
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn a_restored_container_is_stopped_adopted_and_counted_as_any_other() {
    let Some(made) = make(|_| {}).await else { return };
    let pod = made.pod().await;
    let config = made.again(made.image());
    let log = config.log_path.clone();
    let id = made.bed.start(&pod, config).await;
    let ContainerState::Running { pid, .. } = made.bed.engine.container_status(&id).await.unwrap().state else {
        panic!("it runs");
    };
    // The supervisor dies: the next one takes it over.
    let old = made.bed.engine.supervisor_pid().await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL).unwrap();
    for _ in 0..500 {
        if made.bed.engine.supervisor_pid().await.is_ok_and(|pid| pid != old) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = counted(&log).len();
    eventually("it counts on", || counted(&log).len() > before + 3).await;
    let state = made.bed.engine.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Running { pid: now, .. } if now == pid), "{state:?}");
    assert!(made.bed.engine.usage().await.unwrap().contains_key(&id));
    made.bed.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    made.bed.end(&id).await;
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn what_was_mounted_must_be_there_again() {
    let Some(made) = make(|_| {}).await else { return };
    let (pod, image) = (made.pod().await, made.image());
    let mut without = made.again(image.clone());
    without.mounts.clear();
    let said = made.refused(&pod, without).await;
    let name = "docker.io/library/checkpoint:1";
    assert_eq!(said, format!("restoring {name:?} expects following bind mounts defined (/vol)"));
    let mut more = made.again(image.clone());
    more.mounts.push(Mount { target: "/more".into(), ..volume(&made.bed, "more") });
    let said = made.refused(&pod, more).await;
    assert!(said.ends_with("/more is mounted in the container, and was not when the checkpoint was made"), "{said}");
    let mut strict = made.again(image);
    strict.mounts[0].read_only = true;
    let said = made.refused(&pod, strict).await;
    assert!(said.ends_with("/vol is ro in the container, and was not in the checkpoint"), "{said}");
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn a_container_is_restored_from_an_archive_and_from_another_engines_image() {
    let Some(made) = make(|_| {}).await else { return };
    let pod = made.pod().await;
    // As CRI-O lists what is gone, and compressed, as containerd has its layers.
    let archive = made.changed("rootfs-diff.tar", |bytes| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, &bytes).unwrap();
        Some(packer.finish().unwrap())
    });
    let config = ContainerConfig { checkpoint: Some(archive), ..made.again(String::new()) };
    let log = config.log_path.clone();
    let id = made.bed.start(&pod, config).await;
    eventually("it counts on", || counted(&log).len() > 2).await;
    assert!(counted(&log)[0] > 3);
    sh(&made.bed, &id, "test ! -e /etc/secret").await;
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn nobody_gains_rights_by_a_checkpoint() {
    // The checkpoint is of a container that may do more than the new one.
    let Some(made) = make(|config| config.security.capabilities_add = vec!["SYS_ADMIN".to_owned()]).await else {
        return;
    };
    let (pod, image) = (made.pod().await, made.image());
    let said = made.refused(&pod, made.again(image.clone())).await;
    assert!(said.contains("do not have the seccomp filter that the container has"), "{said}");
    // Without a filter it is the rights themselves.
    let mut open = made.again(image.clone());
    open.security.seccomp = reeve_engine::engine::Seccomp::Unconfined;
    let said = made.refused(&pod, open).await;
    assert!(said.contains("has more capabilities than the container"), "{said}");
    let mut same = made.again(image.clone());
    same.security.capabilities_add = vec!["SYS_ADMIN".to_owned()];
    let mut quiet = same.clone();
    quiet.security.no_new_privs = true;
    let said = made.refused(&pod, quiet).await;
    assert!(said.contains("may gain privileges, and the container may not"), "{said}");
    let mut nobody = same.clone();
    (nobody.security.run_as_user, nobody.security.run_as_non_root) = (Some(1000), true);
    let said = made.refused(&pod, nobody).await;
    assert!(said.contains("runs as root, and the container must not"), "{said}");
    let id = made.bed.start(&pod, same).await;
    made.bed.engine.remove_container(&id).await.unwrap();
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn a_container_with_a_read_only_root_and_little_memory_is_restored() {
    let strict = |config: &mut ContainerConfig| {
        config.command = vec![
            "sh".to_owned(),
            "-c".to_owned(),
            COUNT.replace("rm /etc/secret;", "").replace("echo $i >/count;", ""),
        ];
        config.security.read_only_rootfs = true;
        config.security.no_new_privs = true;
        config.security.capabilities_drop = vec!["ALL".to_owned()];
        config.resources.memory_limit_bytes = Some(24 << 20);
    };
    let Some(made) = make(strict).await else { return };
    let (pod, image) = (made.pod().await, made.image());
    let mut config = made.again(image);
    strict(&mut config);
    let log = config.log_path.clone();
    let id = made.bed.start(&pod, config).await;
    eventually("it counts on", || counted(&log).len() > 2).await;
    assert!(counted(&log)[0] > 3);
    sh(&made.bed, &id, "! touch /x 2>/dev/null && grep -q '^CapEff:.0*$' /proc/1/status").await;
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn a_checkpoint_that_is_none_is_refused_and_leaves_nothing() {
    let Some(made) = make(|_| {}).await else { return };
    let pod = made.pod().await;
    let from = |checkpoint: PathBuf| ContainerConfig { checkpoint: Some(checkpoint), ..made.again(String::new()) };
    let missing = made.refused(&pod, from("/no/such.tar".into())).await;
    assert!(missing.starts_with("failed to open checkpoint archive /no/such.tar for import: "), "{missing}");
    let empty = made.bed.dir().join("empty.tar");
    fs::write(&empty, b"this is no archive, and far too short for one").unwrap();
    let said = made.refused(&pod, from(empty)).await;
    assert!(said.starts_with("unpacking of checkpoint archive "), "{said}");
    /// What becomes of a file of the archive; `None` takes it out.
    type Change = fn(Vec<u8>) -> Option<Vec<u8>>;
    let cases: [(&str, Change, &str); 8] = [
        ("spec.dump", |_| None, "failed to read \"spec.dump\""),
        ("config.dump", |_| None, "failed to read \"config.dump\""),
        ("config.dump", |_| Some(b"{}".to_vec()), "does not name it by its digest"),
        ("descriptors.json", |_| Some(b"[1".to_vec()), "failed to read \"descriptors.json\""),
        ("checkpoint/inventory.img", |_| None, "failed to read \"inventory.img\""),
        ("checkpoint/ids-1.img", |_| Some(vec![0; 40]), "its namespaces cannot be read"),
        ("rootfs-diff.tar", |_| Some(b"no tar".repeat(100)), "failed to unpack \"rootfs-diff.tar\""),
        ("checkpoint/seccomp.img", |_| None, "do not have the seccomp filter"),
    ];
    for (file, change, words) in cases {
        let said = made.refused(&pod, from(made.changed(file, change))).await;
        assert!(said.contains(words), "{file}: {said}");
    }
    let mut strange = tar::Builder::new(fs::read(&made.archive).unwrap());
    let end = strange.get_ref().len() - 1024;
    strange.get_mut().truncate(end);
    append(&mut strange, "checkpoint/iptables-9.img", b"-A INPUT -j ACCEPT", 0o600);
    let place = made.bed.dir().join("strange.tar");
    fs::write(&place, strange.into_inner().unwrap()).unwrap();
    let said = made.refused(&pod, from(place)).await;
    assert!(said.contains("\"iptables-9.img\" is no image that is restored"), "{said}");
    assert!(made.bed.engine.list_containers().await.unwrap().is_empty());
    let left = made.bed.dir().join("data/engine/containers");
    assert_eq!(fs::read_dir(left).unwrap().count(), 0, "nothing is left of any");
    // What is asked of it that cannot be had is said before anything is made.
    let terminal = ContainerConfig { tty: true, ..from(made.archive.clone()) };
    let error = made.bed.engine.create_container(&pod.id, terminal).await.unwrap_err();
    assert!(matches!(error, EngineError::Unsupported(_)), "{error}");
    assert_eq!(error.to_string(), "a container with a terminal cannot be restored from a checkpoint");
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn a_restore_that_criu_gives_up_says_why_and_leaves_nothing() {
    let Some(made) = make(|_| {}).await else { return };
    let pod = made.pod().await;
    // A file that it had open, or a program, that is not there.
    let archive = made.changed("checkpoint/files.img", |mut bytes| {
        let name = b"/bin/busybox";
        let at = bytes.windows(name.len()).position(|own| own == name).unwrap();
        bytes[at..at + name.len()].copy_from_slice(b"/bin/no-such");
        Some(bytes)
    });
    let config = ContainerConfig { checkpoint: Some(archive), ..made.again(String::new()) };
    let said = made.refused(&pod, config).await;
    assert!(said.starts_with("failed to restore from checkpoint ") && said.contains("CRIU says: "), "{said}");
    assert!(said.contains("/bin/no-such") || said.contains("bin/no-such"), "{said}");
    let supervisor = made.bed.engine.supervisor_pid().await.unwrap();
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    eventually("all are buried", || fs::read_to_string(&children).unwrap().trim().is_empty()).await;
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}

async fn an_engine_that_dies_in_the_middle_of_a_restore_leaves_nothing_behind() {
    let Some(made) = make(|_| {}).await else { return };
    let pod = made.pod().await;
    let image = made.image();
    // The supervisor dies at any moment of it.
    for millis in [5, 40, 80, 120, 160, 220] {
        let config = made.again(image.clone());
        let id = made.bed.engine.create_container(&pod.id, config).await.unwrap();
        let (engine, own) = (made.bed.engine.clone(), id.clone());
        let started = tokio::spawn(async move { engine.start_container(&own).await });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let old = made.bed.engine.supervisor_pid().await.unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL).unwrap();
        let started = started.await.unwrap();
        for _ in 0..500 {
            if made.bed.engine.supervisor_pid().await.is_ok_and(|pid| pid != old) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let state = made.bed.engine.container_status(&id).await.unwrap().state;
        match started {
            Ok(()) => assert!(matches!(state, ContainerState::Running { .. }), "{millis}: {state:?}"),
            Err(_) => assert!(!matches!(state, ContainerState::Running { .. }), "{millis}: {state:?}"),
        }
        made.bed.engine.remove_container(&id).await.unwrap();
    }
    // It is cut off by who wants it stopped, too.
    let id = made.bed.engine.create_container(&pod.id, made.again(image)).await.unwrap();
    let (engine, own) = (made.bed.engine.clone(), id.clone());
    let started = tokio::spawn(async move { engine.start_container(&own).await });
    tokio::time::sleep(Duration::from_millis(60)).await;
    made.bed.engine.stop_container(&id, Duration::ZERO).await.unwrap();
    let _ = started.await.unwrap();
    made.bed.engine.remove_container(&id).await.unwrap();
    made.bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    made.bed.close().await;
}
