//! Pods with users of their own: who their processes are on the node, and what they can do there.

use std::os::unix::fs::MetadataExt as _;

use reeve_engine::engine::{
    ContainerConfig, ContainerState, Engine as _, ExecConfig, Mount, NamespaceMode, Sandbox, SandboxConfig, Seccomp,
    UserNamespace,
};

use crate::bed::{Bed, log_text, read_all};

crate::tests![
    root_in_a_pod_with_users_of_its_own_is_nobody_on_the_node,
    files_of_image_and_volumes_belong_to_the_same_ids_inside_and_on_the_disk,
    a_pods_root_may_mount_in_its_own_namespace_and_change_nothing_of_the_node,
    a_command_in_such_a_pod_is_one_of_its_users,
    such_a_pod_may_share_its_process_ids,
    a_terminal_belongs_to_the_pods_user,
    a_volume_that_cannot_be_mapped_fails_the_start_and_leaves_nothing,
    what_belongs_to_the_node_cannot_belong_to_such_a_pod,
    the_next_engine_knows_such_a_pod,
];

const IDS: UserNamespace = UserNamespace { first: 700 << 16, length: 1 << 16 };

async fn pod(bed: &Bed, edit: impl FnOnce(&mut SandboxConfig)) -> Sandbox {
    let mut config = SandboxConfig { user_namespace: Some(IDS), ..bed.sandbox_config() };
    edit(&mut config);
    bed.engine.run_pod_sandbox(config).await.unwrap()
}

/// Runs a container in a pod to its end; its exit code and output.
async fn run(bed: &Bed, pod: &Sandbox, config: ContainerConfig) -> (Option<i32>, String) {
    let log = config.log_path.clone();
    let _ = std::fs::remove_file(&log);
    let id = bed.start(pod, config).await;
    let (code, ..) = bed.end(&id).await;
    (code, log_text(&log))
}

async fn pid(bed: &Bed, id: &str) -> i32 {
    match bed.engine.container_status(id).await.unwrap().state {
        ContainerState::Running { pid, .. } => pid,
        state => panic!("{state:?}"),
    }
}

async fn root_in_a_pod_with_users_of_its_own_is_nobody_on_the_node() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |_| ()).await;
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; grep CapEff /proc/self/status; hostname; \
                  echo > /dev/null; head -c 1 /dev/zero | wc -c; ls -ln /proc/self/fd/1 /dev/shm/; touch /dev/shm/x; \
                  stat -c %u /proc/1 /dev /dev/pts/. /dev/shm; echo through; exec sleep 1000";
    let config = bed.script("root", script);
    let log = config.log_path.clone();
    let id = bed.start(&pod, config).await;
    crate::bed::eventually("the script is through", || log_text(&log).ends_with("through\n")).await;
    let text = log_text(&log);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = text.lines().map(words).collect();
    assert_eq!(lines[..2], [["0"], ["0"]], "{text}");
    let map = ["0".to_owned(), IDS.first.to_string(), IDS.length.to_string()];
    assert_eq!(lines[2..4], [map.clone(), map], "{text}");
    assert!(text.contains("\nweb-0\n1\n") && !text.contains("65534"), "nothing belongs to nobody: {text}");
    let pid = pid(&bed, &id).await;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", IDS.first)), "{status}");
    assert!(status.contains(&format!("Gid:\t{0}\t{0}\t{0}\t{0}\n", IDS.first)), "{status}");
    // All that the pod has belongs to that user namespace.
    let node = std::fs::metadata("/proc/self/ns/user").unwrap().ino();
    assert_ne!(std::fs::metadata(format!("/proc/{pid}/ns/user")).unwrap().ino(), node);
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn files_of_image_and_volumes_belong_to_the_same_ids_inside_and_on_the_disk() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |_| ()).await;
    let volume = bed.dir().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("given"), "").unwrap();
    std::os::unix::fs::chown(volume.join("given"), Some(1000), Some(2000)).unwrap();
    std::fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    for (user, file) in [(None, "of-root"), (Some(1000), "of-app")] {
        let script = format!("stat -c %u:%g /v/given /bin/busybox; touch /v/{file} /tmp/{file} && echo written");
        let mut config = bed.script("files", &script);
        config.security.run_as_user = user;
        config.mounts = vec![Mount { source: volume.clone(), target: "/v".into(), ..Mount::default() }];
        assert_eq!(run(&bed, &pod, config).await, (Some(0), "1000:2000\n0:0\nwritten\n".to_owned()));
        let owner = std::fs::metadata(volume.join(file)).unwrap().uid();
        assert_eq!(owner, user.unwrap_or(0), "{file}");
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn a_pods_root_may_mount_in_its_own_namespace_and_change_nothing_of_the_node() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |_| ()).await;
    let host = || nix::unistd::gethostname().unwrap();
    let (name, panic) = (host(), std::fs::read_to_string("/proc/sys/kernel/panic").unwrap());
    let secret = bed.dir().join("secret");
    std::fs::write(&secret, "of the node").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let script = "exec 2>&1; mount -t tmpfs x /tmp && echo mounted; hostname other && hostname; \
                  umount -l /proc/sys; echo 7 > /proc/sys/kernel/panic && echo changed; \
                  mount -o remount,rw /sys && echo 1 > /sys/kernel/mm/ksm/run && echo changed; \
                  mknod /tmp/mem c 1 1 && echo made; cat /proc/1/root/proc/kcore > /dev/null && echo read; \
                  echo -1000 > /proc/self/oom_score_adj && echo lowered; kill -0 2 && echo signalled; true";
    let mut config = bed.script("attack", script);
    config.security.privileged = true;
    config.security.seccomp = Seccomp::Unconfined;
    let (code, text) = run(&bed, &pod, config).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("mounted\nother\n"), "{text}");
    for attack in ["changed", "made", "read", "lowered", "signalled"] {
        assert!(!text.lines().any(|line| line == attack), "{attack}: {text}");
    }
    assert_eq!((host(), std::fs::read_to_string("/proc/sys/kernel/panic").unwrap()), (name, panic));
    // Not even a file of the node that is shown inside by somebody who shares its folder.
    let mut config = bed.script("read", "cat /n/secret 2>&1 || echo refused");
    config.mounts = vec![Mount { source: bed.dir().to_owned(), target: "/n".into(), ..Mount::default() }];
    config.security.run_as_user = Some(1000);
    let (_, text) = run(&bed, &pod, config).await;
    assert!(text.ends_with("refused\n"), "{text}");
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn a_command_in_such_a_pod_is_one_of_its_users() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |_| ()).await;
    let mut config = bed.command("sleep", &["sleep", "1000"]);
    config.security.run_as_user = Some(1000);
    let id = bed.start(&pod, config).await;
    for tty in [false, true] {
        let script = "id -u; head -n 1 /proc/self/uid_map; echo again > /dev/stdout; grep Seccomp: /proc/self/status; \
                      kill -0 1 && echo same-pids";
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let config = ExecConfig { command, stdout: true, tty, ..ExecConfig::default() };
        let session = bed.engine.exec(&id, config).await.unwrap();
        let (text, code) = (read_all(session.stdout).await, session.exit.await.unwrap());
        let words: Vec<&str> = text.split_whitespace().collect();
        let (first, length) = (IDS.first.to_string(), IDS.length.to_string());
        assert_eq!(words, ["1000", "0", &first, &length, "again", "Seccomp:", "2", "same-pids"], "{tty}: {text}");
        assert_eq!(code, 0);
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn such_a_pod_may_share_its_process_ids() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |config| config.pid = NamespaceMode::Pod).await;
    let first = bed.start(&pod, bed.command("first", &["sleep", "1000"])).await;
    let script = "cat /proc/1/comm; grep -c . /proc/2/comm; kill -0 2 && echo reached";
    assert_eq!(run(&bed, &pod, bed.script("second", script)).await, (Some(0), "pause\n1\nreached\n".to_owned()));
    let mut target = bed.script("debug", "ls -d /proc/2");
    target.pid = Some(NamespaceMode::Container);
    target.pid_of = Some(first);
    assert_eq!(run(&bed, &pod, target).await, (Some(0), "/proc/2\n".to_owned()));
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn a_terminal_belongs_to_the_pods_user() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |_| ()).await;
    let mut config = bed.script("tty", "tty; stat -c %u:%g /dev/pts/0; echo again > /dev/console");
    config.tty = true;
    config.security.run_as_user = Some(1000);
    let (code, text) = run(&bed, &pod, config).await;
    assert_eq!((code, text.replace('\r', "").as_str()), (Some(0), "/dev/pts/0\n1000:5\nagain\n"));
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn a_volume_that_cannot_be_mapped_fails_the_start_and_leaves_nothing() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |_| ()).await;
    let mut config = bed.command("procfs", &["true"]);
    config.mounts = vec![Mount { source: "/proc/sys".into(), target: "/v".into(), ..Mount::default() }];
    let id = bed.engine.create_container(&pod.id, config).await.unwrap();
    let error = bed.engine.start_container(&id).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to set MOUNT_ATTR_IDMAP on /proc/sys: invalid argument"), "{error}");
    assert!(matches!(bed.engine.container_status(&id).await.unwrap().state, ContainerState::Exited { .. }));
    let mut config = bed.command("user", &["true"]);
    config.security.run_as_user = Some(IDS.length);
    let error = bed.engine.create_container(&pod.id, config).await.unwrap_err().to_string();
    assert_eq!(error, "user 65536 is not mapped: the pod's user namespace has 65536 ids");
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn what_belongs_to_the_node_cannot_belong_to_such_a_pod() {
    let bed = Bed::new().await;
    let edits: [fn(&mut SandboxConfig); 4] = [
        |config| config.host_network = true,
        |config| config.host_ipc = true,
        |config| config.pid = NamespaceMode::Node,
        |config| config.user_namespace = Some(UserNamespace { first: 0, length: 10 }),
    ];
    for edit in edits {
        let mut config = SandboxConfig { user_namespace: Some(IDS), ..bed.sandbox_config() };
        edit(&mut config);
        let error = bed.engine.run_pod_sandbox(config).await.unwrap_err().to_string();
        assert!(error.starts_with("a sandbox with a user namespace of its own cannot"), "{error}");
    }
    bed.close().await;
}

async fn the_next_engine_knows_such_a_pod() {
    let bed = Bed::new().await;
    let pod = pod(&bed, |_| ()).await;
    let id = bed.start(&pod, bed.command("sleep", &["sleep", "1000"])).await;
    let made = bed.engine.create_container(&pod.id, bed.command("later", &["id", "-u"])).await.unwrap();
    let next = bed.reopen().await;
    let command = ["head", "-n", "1", "/proc/self/uid_map"].map(str::to_owned).to_vec();
    let session = next.exec(&id, ExecConfig { command, stdout: true, ..ExecConfig::default() }).await.unwrap();
    assert!(read_all(session.stdout).await.contains(&IDS.first.to_string()));
    next.start_container(&made).await.unwrap();
    assert_eq!(bed.end(&made).await.0, Some(0));
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    // Else it would start another supervisor in place of the one that the bed ends.
    next.shutdown(std::time::Duration::ZERO).await.unwrap();
    bed.close().await;
}
