//! Runs a container's hooks. The supervisor holds its process where a stage is reached, and waits for nobody: who
//! launches runs them, and tells it to let the process go on, or to give up.

#![allow(unsafe_code, reason = "a hook joins its container's namespaces between fork and exec")]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::records::{self, make_dir};
use super::{BuiltinEngine, Inner};
use crate::engine::{Container, EngineError, Sandbox};
use crate::runtime::hooks::{self, Hook, Stage, Subject};
use crate::supervisor::plan::{LaunchPlan, PausePlan};

/// How long a hook may run that does not say how long itself: the kubelet's limit of a whole start.
const HOOK_MAX: Duration = Duration::from_secs(120);
/// How much is told of what a failed one says.
const SAID_MAX: u64 = 4096;
/// The version of the specification that states follow.
const OCI_VERSION: &str = "1.0.2";

/// The hooks of one container.
#[derive(Debug, Clone, Default)]
pub(super) struct Hooks {
    all: Vec<(Stage, Hook)>,
    state: serde_json::Value,
}

impl Hooks {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Where its process has to wait.
    pub(super) fn pauses(&self) -> PausePlan {
        let has = |stages: &[Stage]| self.all.iter().any(|(stage, _)| stages.contains(stage));
        PausePlan {
            created: has(&[Stage::Prestart, Stage::CreateRuntime, Stage::CreateContainer]),
            starting: has(&[Stage::StartContainer]),
        }
    }

    /// Runs those of a process that waits.
    pub(super) async fn on_pause(&self, pid: i32, starting: bool) -> Result<(), EngineError> {
        if starting {
            return self.run(Stage::StartContainer, "created", pid).await;
        }
        for stage in [Stage::Prestart, Stage::CreateRuntime, Stage::CreateContainer] {
            self.run(stage, "creating", pid).await?;
        }
        Ok(())
    }

    /// Runs those after the fact: a failure is no more than told.
    pub(super) async fn after(&self, stage: Stage, status: &str, pid: i32) {
        if let Err(error) = self.run(stage, status, pid).await {
            tracing::warn!(container = %self.state["id"], %error, "going on");
        }
    }

    async fn run(&self, stage: Stage, status: &str, pid: i32) -> Result<(), EngineError> {
        let mut state = self.state.clone();
        state["status"] = status.into();
        if pid > 0 {
            state["pid"] = pid.into();
        }
        let own = self.all.iter().filter(|(own, _)| *own == stage);
        for (number, (_, hook)) in own.enumerate() {
            let limit = hook.timeout.map_or(HOOK_MAX, |seconds| Duration::from_secs(seconds).min(HOOK_MAX));
            let result = match tokio::time::timeout(limit, run(hook, stage, pid, state.to_string())).await {
                Ok(result) => result,
                Err(_) => Err(format!("hook ran past specified timeout of {}s", limit.as_secs())),
            };
            // runc's words.
            result
                .map_err(|why| EngineError::Start(format!("error running {} hook #{number}: {why}", stage.name())))?;
        }
        Ok(())
    }
}

impl Inner {
    /// The hooks of a container. What they are told of it is written beside its FIFOs, as they expect it.
    pub(super) fn hooks(
        &self,
        container: &Container,
        sandbox: &Sandbox,
        plan: Option<&LaunchPlan>,
    ) -> Result<Hooks, EngineError> {
        let mut annotations = sandbox.config.annotations.clone();
        annotations.extend(container.config.annotations.clone());
        let command = plan.and_then(|plan| plan.process.argv.first()).or(container.config.command.first());
        let subject = Subject {
            annotations: &annotations,
            command: command.map_or("", String::as_str),
            has_bind_mounts: !container.config.mounts.is_empty(),
        };
        let others = hooks::of(&self.config.hook_dirs, &subject);
        let mut all = container.config.hooks.clone();
        all.extend(others.map_err(|error| EngineError::Start(error.to_string()))?);
        if all.is_empty() {
            return Ok(Hooks::default());
        }
        let bundle = self.layout.container_run(&container.id);
        if let Some(plan) = plan {
            make_dir(&bundle)?;
            records::write(&bundle.join("config.json"), &bundle_config(container, sandbox, plan))?;
        }
        let state = json!({
            "ociVersion": OCI_VERSION, "id": container.id, "bundle": bundle, "annotations": annotations,
        });
        Ok(Hooks { all, state })
    }
}

impl BuiltinEngine {
    /// Runs the `poststop` hooks of a container that is gone.
    pub(super) async fn after_stop(&self, container: &Container) {
        let Ok(sandbox) = self.inner.sandbox(&container.sandbox) else { return };
        match self.inner.hooks(container, &sandbox, None) {
            Ok(hooks) => hooks.after(Stage::Poststop, "stopped", 0).await,
            Err(error) => tracing::warn!(container = container.id, %error, "going on without hooks"),
        }
    }
}

/// What hooks read of the specification's configuration.
fn bundle_config(container: &Container, sandbox: &Sandbox, plan: &LaunchPlan) -> serde_json::Value {
    let process = &plan.process;
    let mounts = container.config.mounts.iter().map(|mount| {
        let access = if mount.read_only { "ro" } else { "rw" };
        json!({"destination": mount.target, "source": mount.source, "type": "bind", "options": ["rbind", access]})
    });
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": process.terminal, "args": process.argv, "env": process.env, "cwd": process.cwd,
            "user": {"uid": process.uid, "gid": process.gid, "additionalGids": process.groups},
            "noNewPrivileges": process.no_new_privs,
        },
        "root": {"path": plan.rootfs, "readonly": plan.rootfs_read_only},
        "hostname": sandbox.config.hostname,
        "mounts": mounts.collect::<Vec<_>>(),
        "annotations": container.config.annotations,
        "linux": {},
    })
}

/// Runs one; its state is its standard input.
async fn run(hook: &Hook, stage: Stage, pid: i32, state: String) -> Result<(), String> {
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    if matches!(stage, Stage::CreateContainer | Stage::StartContainer) {
        join(&mut command, pid)?;
    }
    let mut child = command.spawn().map_err(|error| format!("fork/exec {}: {error}", hook.path.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has ended, or does not want to know.
        let _ = stdin.write_all(state.as_bytes()).await;
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(SAID_MAX).read_to_end(&mut said).await;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"));
    Err(format!("{code}, stdout: , stderr: {}", String::from_utf8_lossy(&said).trim()))
}

/// Has a command run in the namespaces of a container, but for its process ids.
fn join(command: &mut Command, pid: i32) -> Result<(), String> {
    let found = rustix::process::Pid::from_raw(pid).ok_or_else(|| "the container is gone".to_owned())?;
    let opened = rustix::process::pidfd_open(found, rustix::process::PidfdFlags::empty());
    let process: OwnedFd = opened.map_err(|errno| errno.to_string())?;
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let enter = move || {
        // SAFETY: setns(2) on a descriptor of ours; the process has one thread.
        match unsafe { libc::setns(process.as_raw_fd(), namespaces) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only one system call is made, on a descriptor that lives as long as the command.
    unsafe { command.pre_exec(enter) };
    Ok(())
}
