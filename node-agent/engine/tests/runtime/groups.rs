//! Where pods and containers are counted: below the engine's own group, or in one that a kubelet has made.

use std::path::{Path, PathBuf};

use reeve_engine::engine::{ContainerState, Engine as _, EngineError, Resources, SandboxConfig};
use reeve_engine::runtime::cgroup::Hierarchies;

use crate::bed::Bed;

crate::tests![
    a_group_that_a_kubelet_has_made_encloses_the_pod_and_stays_the_kubelets,
    a_group_from_the_top_that_nobody_has_made_goes_with_the_pods_last_sandbox,
    what_the_kernel_is_told_of_memory_nodes_and_of_v2s_files_is_set_or_refused,
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
