//! Where each controller lives on this host. Pure: the two files' texts are arguments.
//!
//! v1 groups go below our own group of that hierarchy, so that a limit on us is a limit on the containers; v2
//! groups go to the top of its mount, because a v2 group with processes in it (ours) cannot have controllers for
//! children (cgroup-v2, "No Internal Process Constraint").

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Controllers that we set limits with, count with, or that a container must not share with the node.
const USED: [&str; 8] = ["cpu", "cpuacct", "memory", "pids", "devices", "blkio", "hugetlb", "cpuset"];
/// Controllers of v2 that we hand down.
const USED_UNIFIED: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// The host's cgroup mounts, as far as we use them. Kept in the run folder: containers outlive the process that
/// looked, and the next one may be in another group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchies {
    /// v2, if mounted; perhaps without controllers.
    pub unified: Option<Unified>,
    /// v1 hierarchies; those with `cpuset` last, because it is used on demand only.
    pub legacy: Vec<Legacy>,
}

/// The v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unified {
    /// Where our root group goes.
    pub base: PathBuf,
    /// Which of its controllers we use.
    pub controllers: Vec<String>,
}

/// A v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legacy {
    /// Name of its mount point, `cpu,cpuacct`.
    pub name: String,
    /// Which of its controllers we use.
    pub controllers: Vec<String>,
    /// Where our root group goes.
    pub base: PathBuf,
    /// Where it is mounted; empty in a record of an engine that did not write it.
    #[serde(default)]
    pub top: PathBuf,
}

impl Legacy {
    /// Where a group's path from the top of the hierarchy begins.
    #[must_use]
    pub fn top(&self) -> &Path {
        if self.top.as_os_str().is_empty() { &self.base } else { &self.top }
    }

    /// Whether it carries a controller.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// No usable cgroups: a host to be fixed by its owner.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// A file of the kernel cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Which.
        path: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing is mounted.
    #[error("no cgroup file system is mounted (expected at /sys/fs/cgroup)")]
    NotMounted,
    /// A controller is nowhere.
    #[error("this kernel does not offer the cgroup controller {0}")]
    Missing(&'static str),
}

impl Hierarchies {
    /// Reads this host's.
    ///
    /// # Errors
    /// See [`HierarchyError`].
    pub fn read() -> Result<Self, HierarchyError> {
        let read =
            |path: &'static str| std::fs::read_to_string(path).map_err(|source| HierarchyError::Read { path, source });
        let controllers = |mount: &Path| std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, controllers)
    }

    /// `controllers` yields the text of `cgroup.controllers` at the v2 mount.
    fn parse(mountinfo: &str, own: &str, controllers: impl Fn(&Path) -> String) -> Result<Self, HierarchyError> {
        let mut found = Self::default();
        for mount in mountinfo.lines().filter_map(CgroupMount::parse) {
            if mount.fs == "cgroup2" {
                let offered = controllers(&mount.point);
                let controllers = used(offered.split_ascii_whitespace(), &USED_UNIFIED);
                found.unified.get_or_insert(Unified { base: mount.point, controllers });
                continue;
            }
            let controllers = used(mount.options.split(','), &USED);
            let Some(first) = controllers.first() else { continue };
            if found.legacy_of(first).is_none() {
                let base = mount.point.join(own_path(own, first, &mount.root));
                let name = mount.point.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                found.legacy.push(Legacy { name, controllers, base, top: mount.point });
            }
        }
        found.legacy.sort_by_key(|h| h.controllers.iter().any(|name| name == "cpuset"));
        found.check()
    }

    fn check(self) -> Result<Self, HierarchyError> {
        if self.unified.is_none() && self.legacy.is_empty() {
            return Err(HierarchyError::NotMounted);
        }
        for needed in ["cpu", "memory", "pids"] {
            if !self.offers(needed, needed) {
                return Err(HierarchyError::Missing(needed));
            }
        }
        Ok(self)
    }

    /// Whether a controller is there, on v2 under one of its names or on v1 under the other.
    #[must_use]
    pub fn offers(&self, unified: &str, legacy: &str) -> bool {
        let in_unified = self.unified.as_ref().is_some_and(|own| own.controllers.iter().any(|name| name == unified));
        in_unified || self.legacy_of(legacy).is_some()
    }

    /// Whether v2 carries everything.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.legacy.is_empty()
    }

    /// The v1 hierarchy with a controller.
    #[must_use]
    pub fn legacy_of(&self, controller: &str) -> Option<&Legacy> {
        self.legacy.iter().find(|h| h.controllers.iter().any(|name| name == controller))
    }

    /// Mount point names of the v1 hierarchies, in the order of [`crate::supervisor::plan::CgroupPlan::legacy`].
    pub fn legacy_names(&self) -> impl Iterator<Item = &str> {
        self.legacy.iter().map(|h| h.name.as_str())
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)) that is about cgroups.
struct CgroupMount {
    root: String,
    point: PathBuf,
    fs: String,
    options: String,
}

impl CgroupMount {
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, point) = (head.next()?.to_owned(), PathBuf::from(head.next()?));
        let mut tail = tail.split(' ');
        let fs = tail.next()?.to_owned();
        let options = tail.nth(1)?.to_owned();
        (fs == "cgroup" || fs == "cgroup2").then_some(Self { root, point, fs, options })
    }
}

fn used<'a>(names: impl Iterator<Item = &'a str>, wanted: &[&str]) -> Vec<String> {
    names.filter(|name| wanted.contains(name)).map(str::to_owned).collect()
}

/// Our own group in the hierarchy with a controller, relative to what is mounted.
fn own_path(own: &str, controller: &str, root: &str) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let path = Path::new(path.unwrap_or("/"));
    path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).unwrap_or(Path::new("")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn on_a_hybrid_host_each_controller_is_found_below_our_own_group() {
        let own = "8:pids:/\n4:memory:/session/x\n1:cpu,cpuacct:/\n0::/\n";
        let found = Hierarchies::parse(HYBRID, own, |_| "hugetlb".to_owned()).unwrap();
        assert_eq!(found.legacy_of("memory").unwrap().base, Path::new("/sys/fs/cgroup/memory/session/x"));
        assert_eq!(found.legacy_of("memory").unwrap().top(), Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found.legacy_of("cpuacct").unwrap().name, "cpu,cpuacct");
        assert_eq!(found.unified.as_ref().unwrap().controllers, ["hugetlb"], "what v1 does not have");
        assert!(found.offers("hugetlb", "hugetlb") && found.offers("memory", "memory") && !found.offers("io", "blkio"));
        assert_eq!(found.legacy_names().last(), Some("cpuset"), "used on demand, so it comes last");
        assert!(!found.is_unified());
    }

    #[test]
    fn on_a_unified_host_our_groups_are_at_the_top() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "0::/user.slice/session-1.scope\n";
        let found = Hierarchies::parse(mounts, own, |_| "cpuset cpu io memory pids\n".to_owned()).unwrap();
        let unified = found.unified.as_ref().unwrap();
        assert_eq!(unified.base, Path::new("/sys/fs/cgroup"));
        assert_eq!(unified.controllers, ["cpuset", "cpu", "io", "memory", "pids"]);
        assert!(found.is_unified());
    }

    #[test]
    fn inside_a_container_the_mounted_part_of_our_path_is_not_repeated() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      36 31 0:33 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      37 31 0:34 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let own = "1:memory:/docker/abc/inner\n2:cpu:/docker/abc\n3:pids:/docker/abc\n";
        let found = Hierarchies::parse(mounts, own, |_| String::new()).unwrap();
        assert_eq!(found.legacy_of("memory").unwrap().base, Path::new("/sys/fs/cgroup/memory/inner"));
        assert_eq!(found.legacy_of("cpu").unwrap().base, Path::new("/sys/fs/cgroup/cpu/"));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let error = Hierarchies::parse(mounts, "0::/\n", |_| "cpu pids".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "this kernel does not offer the cgroup controller memory");
        assert!(matches!(Hierarchies::parse("", "", |_| String::new()), Err(HierarchyError::NotMounted)));
    }
}
