//! Holds the processes of a group still, and lets them go on.
//!
//! By v2's freezer, which a group without controllers has, too (cgroup-v2, `cgroup.freeze`): v1's own is not used. What
//! is frozen can still be killed.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{CgroupError, Step as _, wait_for};
use crate::supervisor::plan::CgroupPlan;

const FILE: &str = "cgroup.freeze";
/// How long a process may be in a system call that cannot be broken off.
const FREEZE_MAX: Duration = Duration::from_secs(5);

/// Holds a group's processes still. When this returns none of them runs. Blocks.
///
/// # Errors
/// When the kernel refuses, or a process cannot be held within five seconds: then all go on.
pub fn freeze(plan: &CgroupPlan) -> Result<(), CgroupError> {
    let Some(group) = &plan.unified else { return no_unified() };
    let file = group.join(FILE);
    fs::write(&file, "1").step("write", &file)?;
    if wait_for(group, FREEZE_MAX, |events| events.contains("frozen 1")) {
        return Ok(());
    }
    thaw(plan)?;
    Err(io::Error::from(io::ErrorKind::TimedOut)).step("wait for", &file)
}

/// Lets a group's processes go on; those that already do, too.
///
/// # Errors
/// When the kernel refuses.
pub fn thaw(plan: &CgroupPlan) -> Result<(), CgroupError> {
    let Some(group) = &plan.unified else { return no_unified() };
    let file = group.join(FILE);
    fs::write(&file, "0").step("write", &file)
}

/// Whether a group's processes are held still, or are about to be.
#[must_use]
pub fn is_frozen(plan: &CgroupPlan) -> bool {
    let group = plan.unified.as_ref();
    group.is_some_and(|group| fs::read_to_string(group.join(FILE)).is_ok_and(|text| text.trim() == "1"))
}

fn no_unified() -> Result<(), CgroupError> {
    let missing = io::Error::new(io::ErrorKind::Unsupported, "cgroup v2 is not mounted on this node");
    Err(missing).step("write", Path::new(FILE))
}
