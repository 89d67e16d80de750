//! Control groups, on whatever the host has: v1, v2, or both at once.
//!
//! Where each controller lives is read from `/proc/self/mountinfo` and `/proc/self/cgroup`, never assumed
//! ([`hierarchy`]). Every group exists in each v1 hierarchy we use *and* in v2: a v2 group without controllers
//! still kills (`cgroup.kill`) and tells when it is empty (`cgroup.events`). What to write is decided in
//! [`limits`]; v2's device filter is in [`device_filter`].

pub mod device_filter;
pub mod freezer;
pub mod hierarchy;
pub mod limits;
pub mod usage;

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use hierarchy::{Hierarchies, HierarchyError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::limits::DeviceRule;
use crate::engine::Resources;
use crate::supervisor::plan::CgroupPlan;

/// How long the removal of a group waits for its last process to be gone.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Where the processes of a container that we run in go, and how often: they may be forking meanwhile.
const LEAF: &str = "init";
const EVACUATIONS: u32 = 10;
/// v1 has no event for emptiness: after v2 says so, a v1 group may lag by a moment.
const LAG: Duration = Duration::from_millis(2);
const LAG_TRIES: u32 = 50;

/// A group that could not be made, limited or removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} cgroup file {path:?}")]
pub struct CgroupError {
    /// What was tried.
    verb: &'static str,
    /// The file or folder.
    path: PathBuf,
    /// Why not.
    #[source]
    source: io::Error,
}

impl CgroupError {
    /// Whether a memory limit was refused because more is in use and cannot be given back.
    pub(crate) fn is_memory_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::ResourceBusy && self.path.ends_with("memory.limit_in_bytes")
    }

    /// As the engine's error.
    pub(crate) fn into_engine(self) -> crate::engine::EngineError {
        crate::engine::EngineError::Io {
            step: format!("{} cgroup file {}", self.verb, self.path.display()),
            source: self.source,
        }
    }
}

trait Step<T> {
    fn step(self, verb: &'static str, path: &Path) -> Result<T, CgroupError>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, verb: &'static str, path: &Path) -> Result<T, CgroupError> {
        self.map_err(|source| CgroupError { verb, path: path.to_owned(), source })
    }
}

/// The engine's own subtree in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Hierarchies,
    /// Name of the engine's group below each base: `reeve-dev`.
    root: String,
}

impl Cgroups {
    /// The subtree `root` below the bases of `hierarchies`.
    #[must_use]
    pub fn new(hierarchies: Hierarchies, root: String) -> Self {
        Self { hierarchies, root }
    }

    /// Where the controllers live.
    #[must_use]
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// The groups of a container, or of a pod, by its path below the engine's root; one that begins with a slash is
    /// from the top of each hierarchy.
    #[must_use]
    pub fn plan(&self, group: &str, resources: &Resources) -> CgroupPlan {
        let from_top = group.strip_prefix('/');
        let place = |base: &Path, top: &Path| match from_top {
            Some(group) => top.join(group),
            None => base.join(&self.root).join(group),
        };
        let unified = self.hierarchies.unified.as_ref().map(|unified| place(&unified.base, &unified.base));
        let uses_cpuset = resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some();
        let wanted = |name: &str| name != "cpuset" || uses_cpuset;
        let legacy = self.hierarchies.legacy.iter().filter(|h| h.controllers.iter().any(|name| wanted(name)));
        let legacy: Vec<PathBuf> = legacy.map(|h| place(&h.base, h.top())).collect();
        let v1_memory = self.hierarchies.legacy_of("memory").map(|h| place(&h.base, h.top()));
        let oom_events = match v1_memory {
            Some(memory) => Some(memory.join("memory.oom_control")),
            None => unified.as_ref().map(|unified| unified.join("memory.events")),
        };
        CgroupPlan { unified, legacy, oom_events }
    }

    /// Makes the groups of a plan and sets their limits. Idempotent.
    ///
    /// # Errors
    /// When the kernel refuses a group or a limit.
    pub fn create(&self, plan: &CgroupPlan, resources: &Resources) -> Result<(), CgroupError> {
        if let Some((unified, group)) = self.hierarchies.unified.as_ref().zip(plan.unified.as_ref()) {
            self.create_unified(&unified.base, group, &unified.controllers)?;
        }
        for (hierarchy, group) in self.legacy_groups(plan) {
            if hierarchy.has("cpuset") {
                create_cpuset(hierarchy.top(), group)?;
            } else {
                fs::create_dir_all(group).step("make", group)?;
            }
        }
        self.limit(plan, resources)
    }

    /// Of a plan's groups those that are not there yet.
    #[must_use]
    pub fn missing(&self, plan: &CgroupPlan) -> CgroupPlan {
        CgroupPlan {
            unified: plan.unified.clone().filter(|group| !group.is_dir()),
            legacy: plan.legacy.iter().filter(|group| !group.is_dir()).cloned().collect(),
            oom_events: plan.oom_events.clone(),
        }
    }

    /// Groups around those of a plan that are not there yet, the innermost of each hierarchy first.
    #[must_use]
    pub fn missing_parents(&self, plan: &CgroupPlan) -> Vec<PathBuf> {
        let unified = self.hierarchies.unified.as_ref().zip(plan.unified.as_deref());
        let unified = unified.map(|(unified, group)| (unified.base.as_path(), group));
        let legacy = self.legacy_groups(plan).map(|(hierarchy, group)| (hierarchy.top(), group));
        let around = legacy.chain(unified).flat_map(|(top, group)| {
            group.ancestors().skip(1).take_while(move |parent| parent.starts_with(top) && *parent != top)
        });
        around.filter(|parent| !parent.is_dir()).map(Path::to_owned).collect()
    }

    /// Changes the limits of groups in which processes may run. One that is new here, a v1 cpuset, takes them in.
    ///
    /// # Errors
    /// When the kernel refuses; what came before the refused limit is changed.
    pub fn update(&self, plan: &CgroupPlan, resources: &Resources) -> Result<(), CgroupError> {
        let found = self.legacy_groups(plan).find(|(hierarchy, group)| hierarchy.has("cpuset") && !group.is_dir());
        let (Some((hierarchy, cpuset)), Some(home)) = (found, plan.legacy.iter().find(|group| group.is_dir())) else {
            return self.limit(plan, resources);
        };
        create_cpuset(hierarchy.top(), cpuset)?;
        self.limit(plan, resources)?;
        take_in(home, cpuset)
    }

    fn limit(&self, plan: &CgroupPlan, resources: &Resources) -> Result<(), CgroupError> {
        let set = |group: &Path, settings: Vec<limits::Setting>| {
            // The last one's: a kernel has one of the files, or none.
            let mut weight = Ok(());
            for (file, value) in settings {
                let path = group.join(&*file);
                match fs::write(&path, value) {
                    // Absent where swap is not counted, refused where it is in use: a bound besides the memory limit,
                    // unless somebody asked for it.
                    Err(_) if limits::is_of_swap(&file) && resources.memory_swap_bytes.is_none() => {}
                    Err(err) if limits::is_of_reserved_pages(&file) && err.kind() == io::ErrorKind::NotFound => {}
                    Err(err) if limits::is_of_io_weight(&file) && err.kind() == io::ErrorKind::NotFound => {
                        weight = Err(err).step("write", &path);
                    }
                    other => other.step("write", &path)?,
                }
            }
            weight
        };
        if let Some((unified, group)) = self.hierarchies.unified.as_ref().zip(plan.unified.as_ref()) {
            set(group, limits::unified(resources, &unified.controllers))?;
            for (file, value) in &resources.unified {
                write(&group.join(file), value)?;
            }
        }
        for (hierarchy, group) in self.legacy_groups(plan) {
            let now = fs::read_to_string(group.join("memory.limit_in_bytes")).ok();
            let now = now.and_then(|text| text.trim().parse().ok());
            set(group, limits::legacy(resources, &hierarchy.controllers, now))?;
        }
        Ok(())
    }

    /// Memory in use that is beyond a limit on v2, where the kernel would kill for the limit's sake; v1 refuses such a
    /// limit itself.
    #[must_use]
    pub fn beyond(&self, plan: &CgroupPlan, memory_limit_bytes: Option<i64>) -> Option<u64> {
        let limit = u64::try_from(memory_limit_bytes?).ok().filter(|limit| *limit > 0)?;
        let in_unified = self.hierarchies.legacy_of("memory").is_none();
        usage::read(plan).memory_bytes.filter(|used| in_unified && *used > limit)
    }

    /// The v1 groups of a plan, each with its hierarchy.
    fn legacy_groups<'p>(&self, plan: &'p CgroupPlan) -> impl Iterator<Item = (&hierarchy::Legacy, &'p Path)> {
        plan.legacy.iter().filter_map(|group| {
            let hierarchy = self.hierarchies.legacy.iter().find(|h| group.starts_with(h.top()))?;
            Some((hierarchy, group.as_path()))
        })
    }

    /// v2: the victim of a memory limit is the container as a whole, not one process of it, so that none goes on
    /// crippled. Source: kubelet, `memory.oom.group` since 1.28 unless `singleProcessOOMKill`; v1 has no such thing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn end_as_one(&self, plan: &CgroupPlan) -> Result<(), CgroupError> {
        let Some((unified, group)) = self.hierarchies.unified.as_ref().zip(plan.unified.as_ref()) else {
            return Ok(());
        };
        if !unified.controllers.iter().any(|name| name == "memory") {
            return Ok(());
        }
        write(&group.join("memory.oom.group"), "1")
    }

    /// Lets a container's processes use these devices and no others.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn restrict_devices(&self, plan: &CgroupPlan, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        if let Some(hierarchy) = self.hierarchies.legacy_of("devices") {
            let Some(group) = plan.legacy.iter().find(|group| group.starts_with(hierarchy.top())) else {
                return Ok(());
            };
            write(&group.join("devices.deny"), "a")?;
            for rule in rules {
                write(&group.join("devices.allow"), &rule.to_string())?;
            }
            return Ok(());
        }
        let Some(group) = &plan.unified else { return Ok(()) };
        device_filter::attach(group, rules).step("filter devices of", group)
    }

    /// Waits until the groups are empty, and removes them with everything below. What does not exist is fine.
    /// Blocks; a container must have been killed before.
    ///
    /// # Errors
    /// When a process will not go.
    pub fn remove(&self, plan: &CgroupPlan) -> Result<(), CgroupError> {
        if let Some(unified) = &plan.unified {
            wait_for(unified, EMPTY_WAIT_MAX, |events| !events.contains("populated 1"));
        }
        for group in plan.legacy.iter().chain(&plan.unified) {
            remove_tree(group)?;
        }
        Ok(())
    }

    /// Removes the engine's whole subtree; kills what is in it.
    ///
    /// # Errors
    /// When a process will not go.
    pub fn purge(&self) -> Result<(), CgroupError> {
        let plan = CgroupPlan {
            unified: self.hierarchies.unified.as_ref().map(|unified| unified.base.join(&self.root)),
            legacy: self.hierarchies.legacy.iter().map(|h| h.base.join(&self.root)).collect(),
            oom_events: None,
        };
        crate::supervisor::kill_cgroup(&plan);
        self.remove(&plan)
    }

    /// v2: controllers must be handed down level by level, from the top (cgroup-v2, "Top-down Constraint").
    fn create_unified(&self, base: &Path, group: &Path, controllers: &[String]) -> Result<(), CgroupError> {
        if group.is_dir() {
            return Ok(());
        }
        let enable = controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        let mut level = base.to_owned();
        for part in group.strip_prefix(base).unwrap_or(Path::new("")).components() {
            if !enable.is_empty() {
                hand_down(&level, &enable)?;
            }
            level.push(part);
            make(&level)?;
        }
        Ok(())
    }
}

/// v2: gives the children of a group these controllers. A group with processes in it cannot (cgroup-v2, "No Internal
/// Process Constraint"); the top of the mount has some when all of this runs in a container. They move into a leaf, as
/// they do under other engines that run in containers.
fn hand_down(group: &Path, enable: &str) -> Result<(), CgroupError> {
    let file = group.join("cgroup.subtree_control");
    for _ in 0..EVACUATIONS {
        match fs::write(&file, enable) {
            Err(err) if err.kind() == io::ErrorKind::ResourceBusy => evacuate(group)?,
            other => return other.step("write", &file),
        }
    }
    write(&file, enable)
}

fn evacuate(group: &Path) -> Result<(), CgroupError> {
    let (procs, leaf) = (group.join("cgroup.procs"), group.join(LEAF));
    make(&leaf)?;
    let leaf = leaf.join("cgroup.procs");
    for pid in fs::read_to_string(&procs).step("read", &procs)?.lines() {
        // One that has ended meanwhile is no obstacle; one that cannot move shows in the next try.
        let _ = fs::write(&leaf, pid);
    }
    Ok(())
}

/// v1: moves the processes of one group into that of another hierarchy, until a round finds all of them there: they may
/// be forking meanwhile.
fn take_in(from: &Path, into: &Path) -> Result<(), CgroupError> {
    let (from, into) = (from.join("cgroup.procs"), into.join("cgroup.procs"));
    for _ in 0..EVACUATIONS {
        let there = fs::read_to_string(&into).step("read", &into)?;
        let there: Vec<&str> = there.lines().collect();
        let here = fs::read_to_string(&from).step("read", &from)?;
        let mut left = here.lines().filter(|pid| !there.contains(pid)).peekable();
        if left.peek().is_none() {
            return Ok(());
        }
        for pid in left {
            match fs::write(&into, pid) {
                // It has ended meanwhile.
                Err(err) if err.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.step("write", &into)?,
            }
        }
    }
    Ok(())
}

/// v1: a cpuset without CPUs and memory nodes takes no process; both are handed down from the parent.
fn create_cpuset(base: &Path, group: &Path) -> Result<(), CgroupError> {
    let mut level = base.to_owned();
    for part in group.strip_prefix(base).unwrap_or(Path::new("")).components() {
        let parent = level.clone();
        level.push(part);
        make(&level)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (parent.join(file), level.join(file));
            if fs::read_to_string(&to).step("read", &to)?.trim().is_empty() {
                let value = fs::read_to_string(&from).step("read", &from)?;
                write(&to, value.trim())?;
            }
        }
    }
    Ok(())
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.step("make", path),
    }
}

/// One `write` call: control files take a value whole.
fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).step("write", path)
}

/// Waits for an event of a v2 group; whether it came. Of one that is gone nothing comes.
fn wait_for(group: &Path, max: Duration, holds: impl Fn(&str) -> bool) -> bool {
    let Ok(events) = fs::File::open(group.join("cgroup.events")) else { return false };
    let timeout = Timespec { tv_sec: i64::try_from(max.as_secs()).unwrap_or(5), tv_nsec: 0 };
    loop {
        // Read through the polled file: what comes after this very reading wakes the poll.
        let mut text = [0; 128];
        let len = events.read_at(&mut text, 0).unwrap_or(0);
        if holds(&String::from_utf8_lossy(text.get(..len).unwrap_or_default())) {
            return true;
        }
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(n) if n > 0) {
            return false;
        }
    }
}

fn remove_tree(group: &Path) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(group) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.step("list", group)?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    for _ in 0..LAG_TRIES {
        match fs::remove_dir(group) {
            Err(err) if err.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(LAG),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other.step("remove", group),
        }
    }
    fs::remove_dir(group).step("remove", group)
}
