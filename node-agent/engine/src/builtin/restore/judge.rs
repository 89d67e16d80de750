//! Whether what CRIU has made is what the container may be. Pure: text of /proc in, the first objection out.
//!
//! Processes come back with the rights that the checkpoint says they had; what they may have says the new container.
//! They are looked at when they have everything and have not run yet.

use std::collections::{BTreeMap, BTreeSet};

use super::super::checkpoint::criu::MountLine;
use crate::supervisor::plan::ProcessPlan;

/// Attributes of a mount that take something away.
const STRICT: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];
/// Kinds of file systems that a restored container has fresh ones of.
const FRESH: [&str; 5] = ["devpts", "mqueue", "proc", "sysfs", "tmpfs"];
/// Capabilities that make one free to be anybody, to be in any group, to be scheduled as one likes.
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SYS_NICE: u64 = 1 << 23;

/// The mounts of a container as they would be had it been started, by where they are seen in it: those below `place`.
pub(super) fn model(lines: Vec<MountLine>, place: &str) -> Vec<MountLine> {
    let inside = lines.into_iter().filter_map(|line| {
        let target = line.target.strip_prefix(place)?;
        if !target.is_empty() && !target.starts_with('/') {
            return None;
        }
        let target = if target.is_empty() { "/" } else { target }.to_owned();
        Some(MountLine { target, ..line })
    });
    inside.collect()
}

/// Why a checkpoint's mounts do not fit the container's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// It wants mounts of the container that are not there.
    Missing(Vec<String>),
    Other(String),
}

/// Compares where a checkpoint is to have mounts (`external`: those of the container, and whether read-only) with
/// where the container has some, before CRIU makes any: it follows paths that the checkpoint names, and opens files
/// before its mounts can be looked at.
pub(super) fn places(
    own: &[(&str, bool)],
    targets: &BTreeSet<String>,
    external: &BTreeMap<String, bool>,
) -> Result<(), Misplaced> {
    let is_own = |target: &&String| own.iter().any(|(place, _)| *place == target.as_str());
    let missing: Vec<String> = external.keys().filter(|key| !is_own(key)).cloned().collect();
    if !missing.is_empty() {
        return Err(Misplaced::Missing(missing));
    }
    if let Some(target) = targets.iter().find(|target| !is_own(target)) {
        return Err(Misplaced::Other(was_mounted(target)));
    }
    for (place, read_only) in own {
        if *place != "/" && !targets.contains(*place) {
            return Err(Misplaced::Other(is_mounted(place)));
        }
        if *read_only && external.get(*place) == Some(&false) {
            return Err(Misplaced::Other(is_stricter(place, "ro")));
        }
    }
    Ok(())
}

fn is_mounted(target: &str) -> String {
    format!("{target} is mounted in the container, and was not when the checkpoint was made")
}

fn was_mounted(target: &str) -> String {
    format!("{target} was mounted when the checkpoint was made, and is not in the container")
}

fn is_stricter(target: &str, attribute: &str) -> String {
    format!("{target} is {attribute} in the container, and was not in the checkpoint")
}

/// What of the mounts of a restored container is not as it would be had it been started.
pub(super) fn mounts(model: &[MountLine], restored: &[MountLine]) -> Result<(), String> {
    let (wanted, found) = (stacks(model), stacks(restored));
    if let Some(target) = wanted.keys().find(|target| !found.contains_key(*target)) {
        return Err(is_mounted(target));
    }
    for (target, found) in &found {
        let Some(wanted) = wanted.get(target).filter(|wanted| wanted.len() == found.len()) else {
            return Err(was_mounted(target));
        };
        for (wanted, found) in wanted.iter().zip(found) {
            // What is not fresh is the very same.
            let is_same = wanted.device == found.device || FRESH.contains(&wanted.kind.as_str());
            if wanted.kind != found.kind || wanted.root != found.root || !is_same {
                return Err(format!("{target} is another mount than the container's ({})", found.kind));
            }
            if let Some(missing) = STRICT.iter().find(|own| wanted.has(own) && !found.has(own)) {
                return Err(is_stricter(target, missing));
            }
        }
    }
    Ok(())
}

/// What is mounted at each place, lowest first.
fn stacks(lines: &[MountLine]) -> BTreeMap<&str, Vec<&MountLine>> {
    let by_id: BTreeMap<u64, &MountLine> = lines.iter().map(|line| (line.id, line)).collect();
    let depth = |line: &MountLine| {
        let below = |line: &&MountLine| by_id.get(&line.parent).copied().filter(|parent| parent.target == line.target);
        std::iter::successors(by_id.get(&line.id).copied(), below).take(lines.len() + 1).count()
    };
    let mut stacks: BTreeMap<&str, Vec<&MountLine>> = BTreeMap::new();
    for line in lines {
        stacks.entry(line.target.as_str()).or_default().push(line);
    }
    stacks.values_mut().for_each(|stack| stack.sort_by_key(|line| depth(line)));
    stacks
}

/// One thread of a restored container, as /proc has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Thread {
    pub(super) pid: i32,
    /// `status`
    pub(super) status: String,
    /// `stat`
    pub(super) stat: String,
    /// `ns/KIND`, by kind.
    pub(super) namespaces: BTreeMap<&'static str, String>,
    /// `attr/apparmor/current`: `PROFILE (enforce)`
    pub(super) label: String,
}

/// Whether a thread has no more than the container may have. `namespaces` are those that it must be in.
pub(super) fn thread(
    thread: &Thread,
    plan: &ProcessPlan,
    namespaces: &BTreeMap<&'static str, String>,
    no_root: bool,
) -> Result<(), String> {
    let pid = thread.pid;
    if let Some((kind, _)) = namespaces.iter().find(|(kind, id)| thread.namespaces.get(*kind) != Some(id)) {
        return Err(format!("process {pid} is not in the container's {kind} namespace"));
    }
    let field = |name: &str| {
        let line = thread.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).ok_or_else(|| format!("process {pid} is gone"))
    };
    for name in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        let has = u64::from_str_radix(field(name)?, 16).map_err(|_| format!("process {pid} has a strange {name}"))?;
        if has & !plan.capabilities != 0 {
            let more = has & !plan.capabilities;
            return Err(format!("process {pid} has more capabilities than the container ({name} {more:016x})"));
        }
    }
    let profile = thread.label.trim_end().rsplit_once(" (").map_or(thread.label.trim_end(), |(profile, _)| profile);
    if let Some(wanted) = plan.app_armor.as_deref().filter(|wanted| *wanted != profile) {
        return Err(format!("process {pid} has the AppArmor profile {profile:?}, and the container {wanted:?}"));
    }
    if plan.no_new_privs && field("NoNewPrivs")? != "1" {
        return Err(format!("process {pid} may gain privileges, and the container may not"));
    }
    if plan.seccomp.is_some() && field("Seccomp")? != "2" {
        return Err(format!("process {pid} has no seccomp filter, and the container has one"));
    }
    let ids =
        |name: &str| Ok::<_, String>(field(name)?.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let (uid, gid) = (plan.uid.to_string(), plan.gid.to_string());
    let uids = ids("Uid")?;
    if no_root && uids.iter().any(|uid| uid == "0") {
        return Err(format!("process {pid} runs as root, and the container must not"));
    }
    if plan.capabilities & SETUID == 0 && uids.iter().any(|own| *own != uid) {
        return Err(format!("process {pid} runs as user {}, and the container as {uid}", uids.join("/")));
    }
    let is_ours = |own: &String| *own == gid || plan.groups.iter().any(|group| group.to_string() == *own);
    let groups = [ids("Gid")?, ids("Groups")?].concat();
    if let Some(group) = groups.iter().find(|own| plan.capabilities & SETGID == 0 && !is_ours(own)) {
        return Err(format!("process {pid} is in group {group}, and the container is not"));
    }
    if plan.capabilities & SYS_NICE == 0 && !is_scheduled_as_all(&thread.stat) {
        return Err(format!("process {pid} has a higher priority than the container may have"));
    }
    Ok(())
}

/// An ordinary policy (0, 3, 5), and no niceness below 0: fields 41 and 19 of proc_pid_stat(5).
fn is_scheduled_as_all(stat: &str) -> bool {
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<i64>().ok());
    matches!(field(41), Some(0 | 3 | 5)) && field(19).is_some_and(|nice| nice >= 0)
}

#[cfg(test)]
mod tests {
    use super::super::super::checkpoint::criu::mount_lines;
    use super::*;

    const MODEL: &str = "10 1 0:42 / /run/c/rootfs rw - overlay none rw\n\
        11 10 0:44 / /run/c/rootfs/proc rw,nosuid - proc none rw\n\
        12 11 0:44 /sys /run/c/rootfs/proc/sys ro,nosuid - proc none rw\n\
        13 10 254:0 /pods/v /run/c/rootfs/vol ro,relatime - ext4 /dev/vda rw\n\
        14 10 0:48 / /run/c/rootfs/cg rw,nosuid - tmpfs none rw\n\
        15 14 0:48 / /run/c/rootfs/cg ro,nosuid - tmpfs none rw\n\
        16 1 254:0 / /run/c/rootfs2 rw - ext4 /dev/vda rw\n";
    const RESTORED: &str = "50 9 0:42 / / rw - overlay none rw\n\
        51 50 0:70 / /proc rw,nosuid - proc none rw\n\
        52 51 0:70 /sys /proc/sys ro,nosuid,noexec - proc none rw\n\
        53 50 254:0 /pods/v /vol ro,relatime - ext4 /dev/vda rw\n\
        55 54 0:71 / /cg ro,nosuid - tmpfs none rw\n\
        54 50 0:71 / /cg rw,nosuid - tmpfs none rw\n";

    fn compared(from: &str, to: &str) -> Result<(), String> {
        let model = model(mount_lines(MODEL), "/run/c/rootfs");
        assert!(RESTORED.contains(from), "{from}");
        mounts(&model, &mount_lines(&RESTORED.replace(from, to)))
    }

    #[test]
    fn mounts_are_as_a_start_would_have_made_them() {
        assert_eq!(compared("", ""), Ok(()));
        let refused = |from: &str, to: &str| compared(from, to).unwrap_err();
        assert_eq!(refused("/vol ro", "/vol rw"), "/vol is ro in the container, and was not in the checkpoint");
        assert_eq!(refused("254:0 /pods/v", "254:0 /"), "/vol is another mount than the container's (ext4)");
        assert_eq!(refused("254:0 /pods/v", "254:1 /pods/v"), "/vol is another mount than the container's (ext4)");
        assert_eq!(refused("- ext4", "- tmpfs"), "/vol is another mount than the container's (tmpfs)");
        assert_eq!(refused("50 9 0:42", "50 9 0:43"), "/ is another mount than the container's (overlay)");
        let mask = "52 51 0:70 /sys /proc/sys ro,nosuid,noexec - proc none rw\n";
        assert_eq!(
            refused(mask, ""),
            "/proc/sys is mounted in the container, and was not when the checkpoint was made"
        );
        let more = format!("{mask}60 50 0:9 / /x rw - tmpfs none rw\n");
        assert_eq!(refused(mask, &more), "/x was mounted when the checkpoint was made, and is not in the container");
        let order =
            "55 54 0:71 / /cg ro,nosuid - tmpfs none rw\n        54 50 0:71 / /cg rw,nosuid".replace("        ", "");
        let turned = "55 54 0:71 / /cg rw,nosuid - tmpfs none rw\n54 50 0:71 / /cg ro,nosuid";
        assert_eq!(refused(&order, turned), "/cg is ro in the container, and was not in the checkpoint");
    }

    #[test]
    fn mounts_are_where_the_container_has_them() {
        let own = [("/", false), ("/proc", false), ("/vol", true), ("/vol", false)];
        let judged = |targets: &[&str], external: &[(&str, bool)]| {
            let targets = targets.iter().map(|target| (*target).to_owned()).collect();
            places(&own, &targets, &external.iter().map(|(key, ro)| ((*key).to_owned(), *ro)).collect())
        };
        assert_eq!(judged(&["/proc", "/vol"], &[("/vol", true)]), Ok(()));
        let missing = Misplaced::Missing(vec!["/a".to_owned(), "/b".to_owned()]);
        assert_eq!(judged(&["/a", "/b", "/proc", "/vol"], &[("/a", true), ("/b", true), ("/vol", true)]), Err(missing));
        let other = |why: &str| Err(Misplaced::Other(why.to_owned()));
        let why = "/x was mounted when the checkpoint was made, and is not in the container";
        assert_eq!(judged(&["/proc", "/vol", "/x"], &[("/vol", true)]), other(why));
        let why = "/proc is mounted in the container, and was not when the checkpoint was made";
        assert_eq!(judged(&["/vol"], &[("/vol", true)]), other(why));
        let why = "/vol is ro in the container, and was not in the checkpoint";
        assert_eq!(judged(&["/proc", "/vol"], &[("/vol", false)]), other(why));
    }

    fn status(edit: impl FnOnce(String) -> String) -> Thread {
        let status = "Name:\tsh\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t8 9\nCapInh:\t0000000000000000\n\
            CapPrm:\t0000000000000001\nCapEff:\t0000000000000001\nCapBnd:\t0000000000000003\n\
            CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let zeros = "0 ".repeat(22);
        Thread {
            pid: 5,
            status: edit(status.to_owned()),
            stat: format!("5 (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 {zeros}0 0"),
            namespaces: BTreeMap::from([("net", "net:[1]".to_owned())]),
            label: "a (b) (enforce)\n".to_owned(),
        }
    }

    #[test]
    fn processes_have_no_more_than_the_container() {
        let plan = ProcessPlan {
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
            capabilities: 3,
            no_new_privs: true,
            seccomp: Some(crate::supervisor::plan::BpfProgram(vec![0; 8])),
            ..ProcessPlan::default()
        };
        let namespaces = BTreeMap::from([("net", "net:[1]".to_owned())]);
        let judged = |own: &Thread| thread(own, &plan, &namespaces, false);
        assert_eq!(judged(&status(|text| text)), Ok(()));
        for (from, to, why) in [
            ("CapEff:\t0000000000000001", "CapEff:\t0000000000200001", "more capabilities than the container (CapEff"),
            ("CapBnd:\t0000000000000003", "CapBnd:\t000001ffffffffff", "more capabilities than the container (CapBnd"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "may gain privileges"),
            ("Seccomp:\t2", "Seccomp:\t0", "has no seccomp filter"),
            ("Uid:\t7\t7", "Uid:\t7\t0", "runs as user 7/0/7/7"),
            ("Groups:\t8 9", "Groups:\t8 10", "is in group 10"),
            ("NoNewPrivs:\t1\n", "", "process 5 is gone"),
        ] {
            let said = judged(&status(|text| text.replace(from, to))).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let root = status(|text| text.replace("Uid:\t7\t7\t7\t7", "Uid:\t0\t0\t0\t0"));
        let free = ProcessPlan { capabilities: 3 | SETUID, ..plan.clone() };
        assert_eq!(thread(&root, &free, &namespaces, false), Ok(()));
        assert!(thread(&root, &free, &namespaces, true).unwrap_err().contains("runs as root"));
        let confined = |profile: &str| ProcessPlan { app_armor: Some(profile.to_owned()), ..plan.clone() };
        assert_eq!(thread(&status(|text| text), &confined("a (b)"), &namespaces, false), Ok(()));
        let said = thread(&status(|text| text), &confined("c"), &namespaces, false).unwrap_err();
        assert_eq!(said, "process 5 has the AppArmor profile \"a (b)\", and the container \"c\"");
        let elsewhere = BTreeMap::from([("net", "net:[2]".to_owned())]);
        let said = thread(&status(|text| text), &plan, &elsewhere, false).unwrap_err();
        assert_eq!(said, "process 5 is not in the container's net namespace");
    }

    #[test]
    fn priorities_are_those_of_everybody() {
        let stat = |nice: i64, policy: i64| {
            let behind = "0 ".repeat(21);
            is_scheduled_as_all(&format!("5 (x y) z) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 {nice} {behind}{policy} 0"))
        };
        assert!(stat(0, 0) && stat(5, 3) && stat(0, 5));
        assert!(!stat(-1, 0) && !stat(0, 1) && !stat(0, 2) && !stat(0, 6));
        assert!(!is_scheduled_as_all(""));
    }
}
