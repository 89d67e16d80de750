//! What a container can and cannot see and do.

use std::path::Path;

use reeve_engine::engine::{ContainerConfig, Engine as _, Mount, NamespaceMode, Propagation, SandboxConfig, Seccomp};

use crate::bed::{Bed, append, append_link, image_archive_with, log_text};

crate::tests![
    a_container_has_namespaces_devices_and_masks_of_its_own,
    what_is_mounted_is_called_as_by_every_runtime,
    forbidden_system_calls_and_devices_are_refused,
    a_privileged_container_is_not_restricted,
    no_new_privs_is_set_exactly_when_asked,
    whoever_has_no_rights_may_listen_on_any_port_of_the_pod,
    a_read_only_root_is_read_only_and_volumes_are_not,
    read_only_holds_below_what_is_mounted_inside_only_if_asked,
    a_container_tells_who_its_process_is,
    links_in_the_image_do_not_lead_out_of_it,
    a_mount_point_behind_a_link_to_nothing_is_made_inside_the_root,
    what_the_kernel_shows_cannot_be_elsewhere_than_where_it_is_looked_for,
    the_containers_of_a_pod_share_network_host_name_and_memory,
    a_shared_pid_namespace_has_one_small_init,
    limits_are_set_in_the_hierarchies_of_the_host,
    a_mount_made_later_reaches_the_container_only_if_asked,
    a_mount_made_inside_reaches_the_node_only_if_asked,
    a_pod_on_the_nodes_namespaces_sees_the_node,
    a_profile_of_the_node_decides,
    the_program_cannot_be_written_through_a_process_that_enters_a_container,
];

async fn a_container_has_namespaces_devices_and_masks_of_its_own() {
    let bed = Bed::new().await;
    let script = "echo pid $$; hostname; ls /dev | tr '\\n' ' '; echo; cat /proc/1/comm; cat /proc/timer_list | wc -c; \
                  ls /sys/firmware | wc -l; echo 1 2>/dev/null > /proc/sys/kernel/panic || echo ro; \
                  ls -l /dev/shm | wc -l; ls /sys/fs/cgroup; id -G; mount | grep -c ' / '; ls -d /proc/[0-9]* | wc -l";
    let script = script.replace("tr '\\n' ' '", "cat");
    let (code, text) = bed.run(bed.script("look", &script)).await;
    assert_eq!(code, 0, "{text}");
    for expected in ["pid 1\nweb-0\n", "null\n", "ptmx\n", "stdout\n", "\nsh\n0\n0\nro\n"] {
        assert!(text.contains(expected), "{expected:?}: {text}");
    }
    assert!(!text.contains("mem\n"), "no device of the node: {text}");
    bed.close().await;
}

async fn what_is_mounted_is_called_as_by_every_runtime() {
    let bed = Bed::new().await;
    for tty in [false, true] {
        let config = ContainerConfig { tty, ..bed.script("mounts", "mount") };
        let (_, text) = bed.run(config).await;
        for expected in ["overlay on / ", "proc on /proc ", "tmpfs on /dev ", "devpts on /dev/pts ", "sysfs on /sys "] {
            assert!(text.lines().any(|line| line.starts_with(expected)), "{expected:?}: {text}");
        }
        assert!(!text.contains("none on"), "{text}");
    }
    bed.close().await;
}

async fn forbidden_system_calls_and_devices_are_refused() {
    let bed = Bed::new().await;
    let script = "unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; mknod /tmp/mem c 1 1; head -c 1 /tmp/mem 2>&1; \
                  head -c 1 /dev/zero | wc -c; chroot / true && echo chroot";
    let (_, text) = bed.run(bed.script("try", script)).await;
    for refused in
        ["unshare(0x20000): Operation not permitted", "mount: permission denied", "/tmp/mem: Operation not permitted"]
    {
        assert!(text.contains(refused), "{refused}: {text}");
    }
    assert!(text.ends_with("1\nchroot\n"), "{text}");
    bed.close().await;
}

async fn whoever_has_no_rights_may_listen_on_any_port_of_the_pod() {
    let bed = Bed::new().await;
    let script = "grep CapEff /proc/self/status; (nc -l -p 80 </dev/null &) ; \
                  until echo heard | nc 127.0.0.1 80 2>/dev/null; do :; done; \
                  cat /proc/sys/net/ipv4/ping_group_range";
    let mut config = bed.script("low", script);
    config.security.run_as_user = Some(1000);
    config.security.capabilities_drop = vec!["ALL".to_owned()];
    let (code, text) = bed.run(config).await;
    assert_eq!(code, 0, "{text}");
    for words in ["CapEff:\t0000000000000000\n", "0\t2147483647\n"] {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    let own = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned())].into();
    let config = SandboxConfig { sysctls: own, ..bed.sandbox_config() };
    let sandbox = bed.engine.run_pod_sandbox(config).await.unwrap();
    let mut listen = bed.script("own", "nc -l -p 80 2>&1; cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    listen.security.run_as_user = Some(1000);
    let log = listen.log_path.clone();
    let id = bed.start(&sandbox, listen).await;
    bed.end(&id).await;
    let text = log_text(&log);
    assert!(text.contains("Permission denied") && text.ends_with("1024\n"), "the pod decides: {text}");
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn a_privileged_container_is_not_restricted() {
    let bed = Bed::new().await;
    let mut config = bed.script(
        "all",
        "mount -t tmpfs x /tmp && echo mounted; grep Seccomp: /proc/self/status; ls /dev/mem /dev/kmsg; \
                 ls -l /dev/ptmx",
    );
    config.security.privileged = true;
    let (_, text) = bed.run(config).await;
    assert!(text.starts_with("mounted\nSeccomp:\t0\n"), "{text}");
    assert!(text.contains("/dev/ptmx -> pts/ptmx\n"), "its terminals are its own: {text}");
    bed.close().await;
}

async fn no_new_privs_is_set_exactly_when_asked() {
    let bed = Bed::new().await;
    for (asked, seen) in [(false, "NoNewPrivs:\t0\n"), (true, "NoNewPrivs:\t1\n")] {
        let mut config = bed.script("nnp", "grep NoNewPrivs /proc/self/status");
        config.security.no_new_privs = asked;
        assert_eq!(bed.run(config).await.1, seen);
    }
    bed.close().await;
}

async fn a_read_only_root_is_read_only_and_volumes_are_not() {
    let bed = Bed::new().await;
    let volume = bed.dir().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mount = |target: &str, read_only| Mount {
        source: volume.clone(),
        target: target.into(),
        read_only,
        ..Mount::default()
    };
    let mut config =
        bed.script("ro", "touch /x || echo ro-root; touch /deep/er/v/file && echo rw; touch /r/x || echo ro-volume");
    config.security.read_only_rootfs = true;
    config.mounts = vec![mount("/deep/er/v", false), mount("/r", true)];
    let (_, text) = bed.run(config).await;
    for expected in ["ro-root", "\nrw\n", "ro-volume"] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(volume.join("file").exists());
    bed.close().await;
}

async fn a_container_tells_who_its_process_is() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    for (strict_groups, groups) in [(false, vec![7, 1000, 2000]), (true, vec![7, 1000])] {
        let mut config = bed.script("who", "id -G");
        config.security.run_as_user = Some(1000);
        config.security.supplemental_groups = vec![7];
        config.security.strict_groups = strict_groups;
        let id = bed.engine.create_container(&sandbox.id, config).await.unwrap();
        let user = bed.engine.container_status(&id).await.unwrap().user.expect("its user is known before it starts");
        assert_eq!((user.uid, user.gid, user.groups), (1000, 1000, groups));
    }
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn read_only_holds_below_what_is_mounted_inside_only_if_asked() {
    let bed = Bed::new().await;
    let volume = bed.dir().join("volume");
    let sub = volume.join("sub");
    std::fs::create_dir_all(&sub).unwrap();
    nix::mount::mount(Some("x"), &sub, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    for (recursive_read_only, expected) in [(false, "below\n"), (true, "")] {
        let mut config =
            bed.script("rro", "touch /v/x 2>/dev/null && echo top; touch /v/sub/x 2>/dev/null && echo below; true");
        let source = volume.clone();
        config.mounts =
            vec![Mount { source, target: "/v".into(), read_only: true, recursive_read_only, ..Mount::default() }];
        assert_eq!(bed.run(config).await, (0, expected.to_owned()));
    }
    nix::mount::umount(&sub).unwrap();
    bed.close().await;
}

async fn links_in_the_image_do_not_lead_out_of_it() {
    let bed = Bed::new().await;
    let volume = bed.dir().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let target = format!("/escape/{}", bed.dir().file_name().unwrap().to_string_lossy());
    let mut config = bed.script("link", &format!("touch {target}/inside; ls /tmp"));
    config.mounts = vec![Mount { source: volume.clone(), target: format!("{target}/new").into(), ..Mount::default() }];
    let (code, text) = bed.run(config).await;
    assert_eq!(code, 0, "{text}");
    assert!(!bed.dir().join("new").exists() && !bed.dir().join("inside").exists(), "the node's /tmp is untouched");
    bed.close().await;
}

async fn a_mount_point_behind_a_link_to_nothing_is_made_inside_the_root() {
    let bed = Bed::new().await;
    let (file, volume) = (bed.dir().join("file"), bed.dir().join("volume"));
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(&file, "of the file\n").unwrap();
    std::fs::write(volume.join("inside"), "of the folder\n").unwrap();
    let mount =
        |source: &Path, target: &str| Mount { source: source.to_owned(), target: target.into(), ..Mount::default() };
    let mut config =
        bed.script("hollow", "cat /etc/dangling /reeve-absent/deep/file /hollow/sub/inside; ls -l /hollow");
    config.mounts = vec![mount(&file, "/etc/dangling"), mount(&volume, "/hollow/sub")];
    let (code, text) = bed.run(config).await;
    assert!(text.starts_with("of the file\nof the file\nof the folder\n"), "{code}: {text}");
    assert!(!Path::new("/reeve-absent").exists(), "the node has none of it");
    let mut config = bed.script("round", "true");
    config.mounts = vec![mount(&volume, "/round")];
    let sandbox = bed.sandbox().await;
    let id = bed.engine.create_container(&sandbox.id, config).await.unwrap();
    let error = bed.engine.start_container(&id).await.unwrap_err().to_string();
    assert!(error.ends_with("at /round: too many levels of symbolic links"), "{error}");
    bed.close().await;
}

async fn what_the_kernel_shows_cannot_be_elsewhere_than_where_it_is_looked_for() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    for (name, fs) in [("proc", "proc"), ("sys", "sysfs")] {
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "elsewhere/file", b"", 0o644);
        append_link(&mut tar, name, "elsewhere");
        let archive = image_archive_with("linked:1", &["true"], &[tar.into_inner().unwrap()]);
        let image = bed.engine.images().load(archive.as_slice()).unwrap().remove(0).id;
        let config = ContainerConfig { image, ..bed.command(name, &["true"]) };
        let id = bed.engine.create_container(&sandbox.id, config).await.unwrap();
        let error = bed.engine.start_container(&id).await.unwrap_err().to_string();
        let rule = format!("filesystem {fs:?} must be mounted on ordinary directory");
        assert_eq!(error, format!("error mounting {fs:?} to rootfs at \"/{name}\": {rule}"));
        bed.engine.remove_container(&id).await.unwrap();
    }
    bed.close().await;
}

async fn the_containers_of_a_pod_share_network_host_name_and_memory() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let server = bed.script("server", "echo shared > /dev/shm/file; nc -l -p 5000 -e echo hello; sleep 1000");
    bed.start(&sandbox, server).await;
    let script = "until nc 127.0.0.1 5000 2>/dev/null; do sleep 0.01; done; cat /dev/shm/file; hostname";
    let client = bed.script("client", script);
    let log = client.log_path.clone();
    let id = bed.start(&sandbox, client).await;
    bed.end(&id).await;
    assert_eq!(log_text(&log), "hello\nshared\nweb-0\n");
    bed.close().await;
}

async fn a_shared_pid_namespace_has_one_small_init() {
    let bed = Bed::new().await;
    let config = SandboxConfig { pid: NamespaceMode::Pod, ..bed.sandbox_config() };
    let sandbox = bed.engine.run_pod_sandbox(config).await.unwrap();
    bed.start(&sandbox, bed.command("first", &["sleep", "1000"])).await;
    let second = bed.script("second", "cat /proc/1/comm; grep -c . /proc/2/comm; (sleep 0 &); sleep 0.1; exit 0");
    let log = second.log_path.clone();
    let id = bed.start(&sandbox, second).await;
    assert_eq!(bed.end(&id).await.0, Some(0));
    assert_eq!(log_text(&log), "pause\n1\n");
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

async fn limits_are_set_in_the_hierarchies_of_the_host() {
    let bed = Bed::new().await;
    let script = "cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
                  /sys/fs/cgroup/memory.max; \
                  cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight; \
                  grep Cpus_allowed_list /proc/self/status; \
                  sleep 1 & sleep 1 & sleep 1 & sleep 1";
    let mut config = bed.script("limits", &format!("exec 2>&1; {script}"));
    config.resources.memory_limit_bytes = Some(64 << 20);
    config.resources.cpu_shares = Some(512);
    config.resources.pids_max = Some(3);
    config.resources.cpuset_cpus = Some("0".to_owned());
    config.resources.oom_score_adj = Some(500);
    let (_, text) = bed.run(config).await;
    let has = |line: &str| text.lines().any(|seen| seen == line);
    // One of each pair exists, whatever the host has.
    assert!(has("500") && has("67108864") && (has("512") || has("20")) && has("Cpus_allowed_list:\t0"), "{text}");
    assert!(text.contains("can't fork"), "the fourth process is refused: {text}");
    bed.close().await;
}

async fn a_mount_made_later_reaches_the_container_only_if_asked() {
    let bed = Bed::new().await;
    let volume = bed.dir().join("volume");
    std::fs::create_dir_all(volume.join("sub")).unwrap();
    // A volume travels only if the node's side is shared: here a shared mount of its own.
    let shared = |flags| nix::mount::mount(Some(&volume), &volume, None::<&str>, flags, None::<&str>).unwrap();
    shared(nix::mount::MsFlags::MS_BIND);
    shared(nix::mount::MsFlags::MS_SHARED);
    let sandbox = bed.sandbox().await;
    let mut logs = Vec::new();
    for (name, propagation) in [("private", Propagation::Private), ("slave", Propagation::HostToContainer)] {
        let mut config = bed.script(name, "echo up; until test -e /go/now; do sleep 0.01; done; ls /v/sub");
        for (source, target) in [(volume.clone(), "/v"), (bed.dir().join("go"), "/go")] {
            std::fs::create_dir_all(&source).unwrap();
            config.mounts.push(Mount { source, target: target.into(), propagation, ..Mount::default() });
        }
        logs.push((bed.start(&sandbox, config.clone()).await, config.log_path));
    }
    let sub = volume.join("sub");
    nix::mount::mount(Some("x"), &sub, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    std::fs::write(sub.join("later"), "").unwrap();
    std::fs::write(bed.dir().join("go/now"), "").unwrap();
    for ((id, log), expected) in logs.iter().zip(["up\n", "up\nlater\n"]) {
        bed.end(id).await;
        assert_eq!(log_text(log), expected);
    }
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    nix::mount::umount(&sub).unwrap();
    nix::mount::umount(&volume).unwrap();
    bed.close().await;
}

async fn a_profile_of_the_node_decides() {
    let bed = Bed::new().await;
    let path = bed.dir().join("profile.json");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW",
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
    std::fs::write(&path, profile).unwrap();
    let mut config = bed.script("profile", "mkdir /tmp/x 2>&1; touch /tmp/y && echo touched");
    config.security.seccomp = Seccomp::Localhost(path);
    let (_, text) = bed.run(config).await;
    assert!(text.contains("Function not implemented") && text.ends_with("touched\n"), "{text}");
    bed.close().await;
}

async fn the_program_cannot_be_written_through_a_process_that_enters_a_container() {
    let bed = Bed::new().await;
    let exe = format!("/proc/{}/exe", bed.engine.supervisor_pid().await.unwrap());
    // Today it is busy; when that process has ended, only the mount protects it: CVE-2019-5736.
    let flags = rustix::fs::statvfs(exe).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
    bed.close().await;
}

async fn a_mount_made_inside_reaches_the_node_only_if_asked() {
    let bed = Bed::new().await;
    let volume = bed.dir().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    let shared = |flags| nix::mount::mount(Some(&volume), &volume, None::<&str>, flags, None::<&str>).unwrap();
    shared(nix::mount::MsFlags::MS_BIND);
    shared(nix::mount::MsFlags::MS_SHARED);
    for (name, propagation) in [("in", Propagation::HostToContainer), ("both", Propagation::Bidirectional)] {
        let script = format!("mkdir /v/{name} && mount -t tmpfs x /v/{name} && touch /v/{name}/file && echo mounted");
        let mut config = bed.script(name, &script);
        config.security.privileged = true;
        let source = volume.clone();
        config.mounts.push(Mount { source, target: "/v".into(), propagation, ..Mount::default() });
        assert_eq!(bed.run(config).await, (0, "mounted\n".to_owned()));
        let seen = volume.join(name).join("file").exists();
        assert_eq!(seen, propagation == Propagation::Bidirectional, "{name}");
    }
    nix::mount::umount(&volume.join("both")).unwrap();
    nix::mount::umount(&volume).unwrap();
    bed.close().await;
}

async fn a_pod_on_the_nodes_namespaces_sees_the_node() {
    let bed = Bed::new().await;
    let config = SandboxConfig { host_network: true, host_ipc: true, pid: NamespaceMode::Node, ..bed.sandbox_config() };
    let sandbox = bed.engine.run_pod_sandbox(config).await.unwrap();
    assert_eq!(sandbox.netns, None);
    let script = format!(
        "for n in net ipc uts pid mnt; do stat -L -c %i /proc/self/ns/$n; done; ls -d /proc/{}",
        std::process::id()
    );
    let config = bed.script("node", &script);
    let log = config.log_path.clone();
    let id = bed.start(&sandbox, config).await;
    assert_eq!(bed.end(&id).await.0, Some(0));
    let text = log_text(&log);
    let inode = |name: &str| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino().to_string()
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["net", "ipc", "uts", "pid"].map(inode), "{text}");
    assert_ne!(lines[4], inode("mnt"), "but never the node's mounts");
    bed.close().await;
}
