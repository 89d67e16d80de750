//! Huge pages: told by the node, taken by pods within their limits, shown in volumes.

use std::path::Path;

use reeve_tests::cluster::Cluster;
use reeve_tests::patience::{eventually, eventually_is};

use super::failures::said;
use super::pods::{pod, script};

const NUMBER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// How many pages of 2 MiB the test needs.
const NEEDED: u64 = 8;

/// Pages of 2 MiB that are set aside on this machine, as many as before when it goes.
struct Reserved {
    before: u64,
    now: u64,
}

impl Reserved {
    fn take() -> Option<Self> {
        let number = || std::fs::read_to_string(NUMBER).ok()?.trim().parse::<u64>().ok();
        let before = number()?;
        std::fs::write(NUMBER, (before + NEEDED).to_string()).ok()?;
        let reserved = Self { before, now: number()? };
        (reserved.now == before + NEEDED).then_some(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        std::fs::write(NUMBER, self.before.to_string()).expect("the machine's huge pages are set back");
    }
}

/// The fields of a container with huge pages and a volume at `/huge`.
fn container(pages: &str, command: &str) -> String {
    let amounts = format!(r#"{{"hugepages-2Mi": "{pages}", "memory": "32Mi", "cpu": "10m"}}"#);
    format!(
        r#""resources": {{"limits": {amounts}}}, "volumeMounts": [{{"name": "huge", "mountPath": "/huge"}}], {}"#,
        script(command)
    )
}

fn volume(medium: &str, more: &str) -> String {
    format!(r#"{more} "volumes": [{{"name": "huge", "emptyDir": {{"medium": "{medium}"}}}}],"#)
}

#[test]
fn a_pod_has_the_huge_pages_that_it_asked_for_and_no_more() {
    let Some(reserved) = Reserved::take() else {
        eprintln!("SKIPPED: {NEEDED} huge pages of 2 MiB cannot be set aside on this machine");
        return;
    };
    let cluster = Cluster::up("huge");
    let space = cluster.space("huge");
    let node = space.object("node");
    let of_node = |list: &str, name: &str| node["items"][0]["status"][list][name].as_str().unwrap_or("none").to_owned();
    assert_eq!(of_node("capacity", "hugepages-2Mi"), format!("{}Mi", reserved.now * 2));
    assert_eq!(of_node("allocatable", "hugepages-2Mi"), format!("{}Mi", reserved.now * 2));
    let kib = |list: &str| of_node(list, "memory").trim_end_matches("Ki").parse::<u64>().expect("KiB");
    assert!(kib("capacity") - kib("allocatable") >= reserved.now * 2048, "what is set aside is no other memory");

    let taking =
        "busybox fallocate -l 4M /huge/own && echo has; busybox fallocate -l 2M /huge/more || echo refused; sleep 600";
    space.apply(&pod("taker", &container("4Mi", taking), &volume("HugePages", "")));
    space.ready("taker");
    let log = eventually_is("what it got", || space.kubectl(&["logs", "taker"]).stdout, |log| log.contains("has"));
    let free = || {
        let text = std::fs::read_to_string(Path::new(NUMBER).with_file_name("free_hugepages")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(u64::MAX)
    };
    assert!(free() <= reserved.now - 2, "two pages are taken");
    if cluster.in_node(|| std::fs::read_to_string("/proc/cgroups")).is_ok_and(|text| text.contains("hugetlb")) {
        eventually_is(
            "the third is refused",
            || space.kubectl(&["logs", "taker"]).stdout,
            |log| log.contains("refused"),
        );
    } else {
        eprintln!("SKIPPED in part: this kernel does not bound huge pages: {log}");
    }
    let mounts = space.sh("taker", "grep ' /huge ' /proc/mounts");
    assert!(mounts.contains(" hugetlbfs ") && mounts.contains("pagesize=2M"), "{mounts}");

    let all = format!("{}Mi", reserved.now * 2);
    space.apply(&pod("large", &container(&all, "sleep 600"), &volume("HugePages", "")));
    let why = "{.status.conditions[?(@.type=='PodScheduled')].message}";
    eventually_is(
        "it waits for room",
        || space.get("pod/large", why),
        |why| why.contains("Insufficient hugepages-2Mi"),
    );
    let bound = format!(r#""nodeName": "{}","#, node["items"][0]["metadata"]["name"].as_str().expect("a name"));
    space.apply(&pod("forced", &container(&all, "sleep 600"), &volume("HugePages", &bound)));
    let text = || space.get("pod/forced", "{.status.phase} {.status.reason} {.status.message}");
    let refusal = format!(
        "Failed OutOfhugepages-2Mi Pod was rejected: Node didn't have enough resource: hugepages-2Mi, requested: {}, \
         used: 4194304, capacity: {}",
        reserved.now << 21,
        reserved.now << 21
    );
    eventually_is("it is refused", text, |text| *text == refusal);
    space.apply(&pod("other", &container("2Mi", "sleep 600"), &volume("HugePages-1Gi", "")));
    said(
        &space,
        "other",
        "Warning FailedMount MountVolume.SetUp failed for volume \"huge\" : medium HugePages-1Gi: hugePages storage \
         requested, but there is no resource request for huge pages",
    );
    space.kubectl(&["delete", "pod", "--all", "--wait"]).done();
    let back = || if free() >= NEEDED { Ok(()) } else { Err(format!("{} pages are free", free())) };
    eventually("the pages come back", back);
}
