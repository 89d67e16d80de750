//! Where pods and containers are counted: below the engine's own group, or in one that a kubelet has made.

use std::path::{Path, PathBuf};

use reeve_engine::engine::{ContainerState, Engine as _, EngineError, IoLimit, Resources, SandboxConfig};
use reeve_engine::runtime::cgroup::Hierarchies;

use crate::bed::Bed;

crate::tests![
    a_group_that_a_kubelet_has_made_encloses_the_pod_and_stays_the_kubelets,
    a_group_from_the_top_that_nobody_has_made_goes_with_the_pods_last_sandbox,
    what_is_written_down_of_a_pod_does_not_grow_with_the_pods_around_it,
    what_the_kernel_is_told_of_memory_nodes_and_of_v2s_files_is_set_or_refused,
    disks_bursts_and_huge_pages_are_bounded,
    what_a_container_reads_writes_and_waits_for_is_counted,
    what_goes_through_a_pods_interfaces_is_counted,
];

/// A group in every hierarchy.
fn everywhere(group: &str) -> Vec<PathBuf> {
    let hierarchies = Hierarchies::read().unwrap();
    let legacy = hierarchies.legacy.iter().map(|legacy| legacy.top().to_owned());
    legacy.chain(hierarchies.unified.map(|unified| unified.base)).map(|top| top.join(group)).collect()
}

fn memory(limit: i64) -> Resources {
    Resources { memory_limit_bytes: Some(limit), ..Resources::default() }
}

fn has_groups_below(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| entry.file_type().unwrap().is_dir())
}

/// A control file of a running container: of v1's controller where that is mounted, else of v2.
async fn control(bed: &Bed, id: &str, controller: &str, (legacy, unified): (&str, &str)) -> String {
    let ContainerState::Running { pid, .. } = bed.engine.container_status(id).await.unwrap().state else {
        panic!("it runs")
    };
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = |is_it: &dyn Fn(&str) -> bool| {
        let mut lines = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        lines.find(|line| is_it(line[1])).map(|line| line[2].trim_start_matches('/').to_owned()).unwrap()
    };
    let hierarchies = Hierarchies::read().unwrap();
    let path = match hierarchies.legacy_of(controller) {
        Some(own) => own.top().join(group(&|names| names.split(',').any(|name| name == controller))).join(legacy),
        None => hierarchies.unified.unwrap().base.join(group(&str::is_empty)).join(unified),
    };
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display())).trim().to_owned()
}

/// As [`crate::bed::eventually`], for what is asked of the engine.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// The number of a whole disk of this machine.
fn disk() -> Option<(u32, u32)> {
    let disks = std::fs::read_dir("/sys/block").ok()?.flatten().map(|entry| entry.path());
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mut used = disks.filter(|disk| disk.join("device").exists() && read(disk.join("size")) != "0");
    let number = read(used.next()?.join("dev"));
    let (major, minor) = number.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

async fn a_group_that_a_kubelet_has_made_encloses_the_pod_and_stays_the_kubelets() {
    let bed = Bed::new().await;
    let outer = format!("{}-given", bed.cgroup_root());
    let group = format!("{outer}/podu2");
    everywhere(&group).iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
    // Where v2 has no controllers, that is.
    let limit = Hierarchies::read().unwrap().legacy_of("memory").map(|h| h.top().join(&group));
    let limit = limit.map(|dir| dir.join("memory.limit_in_bytes"));
    let told = |expected: &str| {
        if let Some(limit) = &limit {
            assert_eq!(std::fs::read_to_string(limit).unwrap().trim(), expected);
        }
    };
    if let Some(limit) = &limit {
        std::fs::write(limit, (64 << 20).to_string()).unwrap();
    }
    let config = SandboxConfig { cgroup: format!("/{group}"), resources: memory(32 << 20), ..bed.sandbox_config() };
    let pod = bed.engine.run_pod_sandbox(config).await.unwrap();
    let id = bed.start(&pod, bed.command("sleep", &["sleep", "1000"])).await;
    let ContainerState::Running { pid, .. } = bed.engine.container_status(&id).await.unwrap().state else {
        panic!("it runs")
    };
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |controller: &str| {
        let mut lines = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        let v1 = lines.find(|line| line[1].split(',').any(|own| own == controller)).map(|line| line[2].to_owned());
        v1.unwrap_or_else(|| groups.lines().last().unwrap().trim_start_matches("0::").to_owned())
    };
    for controller in ["cpu", "memory", "pids", "devices"] {
        assert_eq!(of(controller), format!("/{group}/{id}"), "{controller}: {groups}");
    }
    told("67108864");
    bed.engine.update_pod_sandbox_resources(&pod.id, memory(16 << 20)).await.unwrap();
    told("67108864");
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    for dir in everywhere(&group) {
        assert!(dir.is_dir() && !has_groups_below(&dir), "{} is as it was given", dir.display());
        std::fs::remove_dir(&dir).unwrap();
        std::fs::remove_dir(dir.parent().unwrap()).unwrap();
    }
    bed.close().await;
}

async fn a_group_from_the_top_that_nobody_has_made_goes_with_the_pods_last_sandbox() {
    let bed = Bed::new().await;
    let outer = format!("{}-made", bed.cgroup_root());
    let group = format!("{outer}/podu3");
    let config = |attempt| SandboxConfig { cgroup: format!("/{group}"), attempt, ..bed.sandbox_config() };
    let first = bed.engine.run_pod_sandbox(config(0)).await.unwrap();
    let second = bed.engine.run_pod_sandbox(config(1)).await.unwrap();
    let is_there = || everywhere(&group).iter().any(|dir| dir.is_dir());
    bed.engine.remove_pod_sandbox(&first.id).await.unwrap();
    assert!(is_there());
    bed.engine.remove_pod_sandbox(&second.id).await.unwrap();
    assert!(!is_there() && !everywhere(&outer).iter().any(|dir| dir.is_dir()), "nor what was made around it");
    for wrong in ["/", "/a//b", "/a/../b", "a/./b"] {
        let config = SandboxConfig { cgroup: wrong.to_owned(), ..bed.sandbox_config() };
        let refused = bed.engine.run_pod_sandbox(config).await.unwrap_err();
        assert!(matches!(refused, EngineError::Invalid(_)), "{wrong}: {refused}");
    }
    bed.close().await;
}

async fn what_is_written_down_of_a_pod_does_not_grow_with_the_pods_around_it() {
    const PODS: usize = 12;
    let bed = Bed::new().await;
    let outer = format!("{}-many", bed.cgroup_root());
    let mut sizes = Vec::new();
    let mut pods = Vec::new();
    for number in 0..PODS {
        let cgroup = format!("/{outer}/class/pod{number}");
        let config = SandboxConfig { cgroup, name: format!("pod{number}"), ..bed.sandbox_config() };
        let pod = bed.engine.run_pod_sandbox(config).await.unwrap();
        let note = bed.dir().join("run/engine/sandboxes").join(&pod.id).join("groups.json");
        sizes.push(note.metadata().unwrap().len());
        pods.push(pod);
    }
    // A number has one digit more, in as many paths as there are hierarchies.
    let (second, last) = (sizes[1], sizes[PODS - 1]);
    assert!(last < second + 100, "{sizes:?}");
    for pod in pods {
        bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    }
    assert!(!everywhere(&outer).iter().any(|dir| dir.is_dir()), "nothing is left of what was made around them");
    bed.close().await;
}

async fn what_the_kernel_is_told_of_memory_nodes_and_of_v2s_files_is_set_or_refused() {
    let bed = Bed::new().await;
    let mut config = bed.script("nodes", "grep Mems_allowed_list /proc/self/status");
    config.resources.cpuset_mems = Some("0".to_owned());
    assert_eq!(bed.run(config.clone()).await, (0, "Mems_allowed_list:\t0\n".to_owned()));
    config.resources.unified.insert("memory.high".to_owned(), (32 << 20).to_string());
    let pod = bed.sandbox().await;
    let made = bed.engine.create_container(&pod.id, config.clone()).await;
    if Hierarchies::read().unwrap().is_unified() {
        assert!(made.is_ok(), "{made:?}");
        config.resources.unified.insert("../x".to_owned(), "1".to_owned());
        assert!(matches!(bed.engine.create_container(&pod.id, config).await, Err(EngineError::Invalid(_))));
    } else {
        let refused = made.unwrap_err().to_string();
        assert_eq!(refused, "unified memory.high needs cgroup v2 alone, which this node does not have");
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn disks_bursts_and_huge_pages_are_bounded() {
    let bed = Bed::new().await;
    let (has, pod) = (Hierarchies::read().unwrap(), bed.sandbox().await);
    let mut config = bed.command("sleep", &["sleep", "1000"]);
    config.resources.cpu_quota_us = Some(50_000);
    config.resources.cpu_burst_us = Some(20_000);
    let disk = disk().filter(|_| has.offers("io", "blkio"));
    if let Some((major, minor)) = disk {
        let limit = IoLimit { major, minor, read_bytes: Some(1 << 20), writes: Some(50), ..IoLimit::default() };
        config.resources.io_limits = vec![limit];
    } else {
        eprintln!("SKIPPED in part: no disk here whose use can be bounded");
    }
    let pages = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() && has.offers("hugetlb", "hugetlb");
    if pages {
        config.resources.hugepages.insert("2MB".to_owned(), 4 << 20);
    } else {
        eprintln!("SKIPPED in part: huge pages of 2 MB cannot be bounded here");
    }
    let id = bed.start(&pod, config).await;
    assert_eq!(control(&bed, &id, "cpu", ("cpu.cfs_burst_us", "cpu.max.burst")).await, "20000");
    if let Some((major, minor)) = disk {
        let reads = control(&bed, &id, "blkio", ("blkio.throttle.read_bps_device", "io.max")).await;
        let writes = control(&bed, &id, "blkio", ("blkio.throttle.write_iops_device", "io.max")).await;
        let unified = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=50");
        assert!([format!("{major}:{minor} 1048576"), unified.clone()].contains(&reads), "{reads}");
        assert!([format!("{major}:{minor} 50"), unified].contains(&writes), "{writes}");
    }
    if pages {
        let files = ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
        assert_eq!(control(&bed, &id, "hugetlb", files).await, "4194304");
        let none = Resources { hugepages: [("2MB".to_owned(), 0)].into(), ..Resources::default() };
        bed.engine.update_container_resources(&id, none, [].into()).await.unwrap();
        assert_eq!(control(&bed, &id, "hugetlb", files).await, "0");
    }
    for (change, why) in [
        (Resources { io_weight: Some(9), ..Resources::default() }, "io weight 9: must be between 10 and 1000"),
        (
            Resources { hugepages: [("../x".to_owned(), 1)].into(), ..Resources::default() },
            "\"../x\" is not a size of huge pages",
        ),
    ] {
        let refused = bed.engine.update_container_resources(&id, change, [].into()).await.unwrap_err();
        assert_eq!(refused.to_string(), why);
    }
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn what_a_container_reads_writes_and_waits_for_is_counted() {
    let bed = Bed::new().await;
    let pod = bed.sandbox().await;
    let script = "dd if=/dev/zero of=/f bs=64k count=16 oflag=direct 2>/dev/null && touch /done; \
        (while :; do :; done) & (while :; do :; done) & (while :; do :; done) & wait";
    let mut config = bed.script("busy", script);
    config.resources.cpu_quota_us = Some(20_000);
    let id = bed.start(&pod, config).await;
    until("it has waited for a CPU", async || {
        let used = bed.engine.usage().await.unwrap().remove(&id).unwrap();
        let Some(waited) = used.cpu_pressure else {
            eprintln!("SKIPPED in part: this kernel counts no pressure");
            return true;
        };
        waited.some.total > 0 && used.memory_pressure.is_some() && used.io_pressure.is_some()
    })
    .await;
    let on_a_disk = disk().is_some() && Hierarchies::read().unwrap().offers("io", "blkio");
    if !on_a_disk {
        eprintln!("SKIPPED in part: no disk here whose use is counted");
    }
    until("what it has written is counted", async || {
        let used = bed.engine.usage().await.unwrap().remove(&id).unwrap();
        let whole = bed.engine.pod_sandbox_usage(&pod.id).await.unwrap();
        let is_counted = |io: Option<reeve_engine::engine::IoUsage>| {
            io.is_some_and(|io| io.write_bytes >= 1 << 20 && io.writes >= 16)
        };
        !on_a_disk || is_counted(used.io) && is_counted(whole.io)
    })
    .await;
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}

async fn what_goes_through_a_pods_interfaces_is_counted() {
    let bed = Bed::new().await;
    let pod = bed.sandbox().await;
    assert_eq!(bed.engine.pod_sandbox_usage(&pod.id).await.unwrap().interfaces, [], "it has the loopback alone");
    let netns = pod.netns.clone().unwrap();
    let add = ["link", "add", "eth0", "type", "veth", "peer", "name", "far"];
    for command in [&add[..], &["link", "set", "eth0", "up"], &["link", "set", "far", "up"]] {
        let mut nsenter = std::process::Command::new("nsenter");
        let ran = nsenter.arg(format!("--net={}", netns.display())).arg("ip").args(command).status().unwrap();
        assert!(ran.success(), "ip {command:?}");
    }
    let add = ["addr", "add", "10.9.8.7/24", "dev", "eth0"];
    let mut nsenter = std::process::Command::new("nsenter");
    assert!(nsenter.arg(format!("--net={}", netns.display())).arg("ip").args(add).status().unwrap().success());
    bed.start(&pod, bed.script("ping", "while :; do echo hello | nc -u -w 1 10.9.8.1 9; done")).await;
    until("something was sent", async || {
        let used = bed.engine.pod_sandbox_usage(&pod.id).await.unwrap();
        let own = used.interfaces.iter().find(|own| own.name == "eth0").expect("its own");
        own.tx_bytes > 0 && used.interfaces.len() == 2
    })
    .await;
    bed.engine.remove_pod_sandbox(&pod.id).await.unwrap();
    bed.close().await;
}
