//! Words for what a child reported: containerd's and runc's where they have them, because users look for them.

use std::io;

use super::child::{FAILURE_SIZE, Failure, Step};
use super::plan::{LaunchPlan, ProcessPlan, RootOp};

impl Failure {
    /// Reads what the pipe gave; `None` when it is not a whole report.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FAILURE_SIZE] = bytes.try_into().ok()?;
        let [s0, s1, s2, s3, i0, i1, i2, i3, e0, e1, e2, e3] = *bytes;
        Some(Self {
            step: u32::from_ne_bytes([s0, s1, s2, s3]),
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
        })
    }
}

/// Text for a container's first process that could not be started.
pub(super) fn describe(failure: Failure, plan: &LaunchPlan) -> String {
    let index = failure.index as usize;
    let reason = reason(failure.errno);
    let op = |step: u32| {
        let op = plan.root_ops.get(index);
        match op {
            Some(RootOp::Bind { source, target, .. }) if step == Step::BindSource as u32 => {
                format!("error mounting {source:?} to rootfs at {target:?}: {reason}")
            }
            Some(RootOp::Bind { source, .. }) if step == Step::IdMap as u32 => format!(
                "failed to set MOUNT_ATTR_IDMAP on {source}: {reason} (maybe the filesystem used doesn't support idmap \
                 mounts on this kernel?)"
            ),
            Some(RootOp::Mount { fs, target, .. }) if failure.errno == libc::ENOTDIR => format!(
                "error mounting {fs:?} to rootfs at {target:?}: filesystem {fs:?} must be mounted on ordinary directory"
            ),
            Some(op) => format!("failed to {op}: {reason}"),
            None => format!("failed to mount /dev/console: {reason}"),
        }
    };
    match failure.step {
        step if [Step::BindSource, Step::IdMap, Step::Op].iter().any(|own| *own as u32 == step) => op(step),
        step if step == Step::Cgroup as u32 => {
            let group = plan.cgroup.legacy.get(index).map(|p| p.display().to_string()).unwrap_or_default();
            format!("failed to join cgroup {group}: {reason}")
        }
        step if step == Step::Root as u32 => format!("failed to mount root {}: {reason}", plan.rootfs.display()),
        _ => describe_process(failure, &plan.process),
    }
}

/// Text for an exec'd command that could not be started.
pub(super) fn describe_process(failure: Failure, process: &ProcessPlan) -> String {
    let reason = reason(failure.errno);
    let command = process.argv.first().map_or("", String::as_str);
    let candidate = process.candidates.get(failure.index as usize).map_or(command, String::as_str);
    let steps: [(Step, &str); 14] = [
        (Step::Hook, "run a hook"),
        (Step::Criu, "start CRIU"),
        (Step::Cgroup, "join a cgroup"),
        (Step::Namespace, "join the namespaces"),
        (Step::CgroupNamespace, "make a cgroup namespace"),
        (Step::UserNamespace, "enter the pod's user namespace"),
        (Step::Pivot, "change into the root"),
        (Step::Streams, "connect the standard streams"),
        (Step::Terminal, "make the terminal the controlling one"),
        (Step::Limits, "set the limit of open files"),
        (Step::Capabilities, "set capabilities"),
        (Step::Groups, "set groups"),
        (Step::User, "set the user"),
        (Step::NoNewPrivs, "set no_new_privs"),
    ];
    if failure.step == Step::NotThere as u32 {
        return if process.searched {
            format!("exec: {command:?}: executable file not found in $PATH")
        } else {
            format!("exec: {command:?}: stat {command}: no such file or directory")
        };
    }
    if failure.step == Step::Exec as u32 {
        return match failure.errno {
            libc::EACCES => format!("exec: {command:?}: permission denied"),
            libc::EISDIR => format!("exec: {command:?}: is a directory"),
            _ => format!("exec {candidate}: {reason}"),
        };
    }
    if failure.step == Step::Cwd as u32 {
        return format!("chdir to cwd ({:?}) set in config.json failed: {reason}", process.cwd);
    }
    if failure.step == Step::Seccomp as u32 {
        return format!("error loading seccomp filter: {reason}");
    }
    if failure.step == Step::AppArmor as u32 {
        return format!("unable to apply apparmor profile: apparmor failed to apply profile: {reason}");
    }
    let step = steps.iter().find(|(step, _)| *step as u32 == failure.step).map_or("start", |(_, text)| *text);
    format!("failed to {step}: {reason}")
}

/// The kernel's word for an error number, in lower case as Go's and C's programs print it.
fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &str, searched: bool) -> ProcessPlan {
        ProcessPlan {
            argv: vec![command.to_owned()],
            candidates: vec![command.to_owned()],
            searched,
            cwd: "/x".to_owned(),
            ..ProcessPlan::default()
        }
    }

    #[test]
    fn failures_are_told_in_the_words_of_containerd() {
        let text = |step: Step, errno, command, searched| {
            describe_process(Failure { step: step as u32, index: 0, errno }, &process(command, searched))
        };
        assert_eq!(text(Step::NotThere, 2, "foo", true), r#"exec: "foo": executable file not found in $PATH"#);
        assert_eq!(text(Step::NotThere, 2, "/x", false), r#"exec: "/x": stat /x: no such file or directory"#);
        assert_eq!(text(Step::Exec, libc::EACCES, "/x", false), r#"exec: "/x": permission denied"#);
        assert_eq!(text(Step::Exec, libc::EISDIR, "/x", false), r#"exec: "/x": is a directory"#);
        assert_eq!(text(Step::Exec, libc::ENOEXEC, "/x", false), "exec /x: exec format error");
        assert_eq!(text(Step::Exec, libc::ENOENT, "/x", false), "exec /x: no such file or directory");
    }

    #[test]
    fn a_torn_report_is_no_report() {
        assert!(Failure::from_bytes(&[1, 2, 3]).is_none());
    }
}
