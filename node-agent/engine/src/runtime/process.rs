//! Compiles who a process is and what it executes: arguments, environment, user, capabilities, seccomp.

use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Config as ImageConfig;

use super::caps::{CapabilitySet, UnknownCapability};
use super::seccomp::cache::Source;
use super::seccomp::default::default_profile;
use super::seccomp::{CompileError, Filters, Profile, compile};
use super::users::{User, UserError, UserRequest, resolve};
use crate::engine::{ContainerConfig, Seccomp, Security, UserNamespace};
use crate::supervisor::plan::{BpfProgram, ProcessPlan};

/// What containerd and Docker give an image that sets no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Docker's and containerd's limit of open files, lowered to the node's own.
const OPEN_FILES_MAX: u64 = 1 << 20;
/// Longest profile read from the node.
const PROFILE_LEN_MAX: u64 = 4 << 20;

/// Why a process cannot be what it is asked to be: the fault of pod or image.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Neither pod nor image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// The folder is relative.
    #[error("working directory {0:?} must be an absolute path")]
    WorkingDir(String),
    /// The user does not exist.
    #[error(transparent)]
    User(#[from] UserError),
    /// The process would be root.
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
    /// A user or group that the pod's user namespace does not have.
    #[error("{what} {id} is not mapped: the pod's user namespace has {length} ids")]
    NotMapped {
        /// `user`, `group`
        what: &'static str,
        /// Which.
        id: u32,
        /// How many there are.
        length: u32,
    },
    /// A capability does not exist.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// A profile of the node cannot be read.
    #[error("cannot load seccomp profile {path:?}: {reason}")]
    Profile {
        /// The profile.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A profile cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// What the files of a container's root and the node say.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The image's `/etc/passwd`.
    pub passwd: String,
    /// The image's `/etc/group`.
    pub group: String,
    /// The pod's host name.
    pub hostname: String,
    /// The pod's user namespace, if it has one.
    pub users: Option<UserNamespace>,
    /// What the engine itself may do: nobody can give more.
    pub own_capabilities: CapabilitySet,
    /// System call filters that were compiled before.
    pub filters: Arc<Filters>,
    /// The AppArmor profile it gets.
    pub app_armor: Option<String>,
}

/// Compiles a container's first process.
///
/// # Errors
/// See [`ProcessError`].
pub fn compile_process(
    config: &ContainerConfig,
    image: Option<&ImageConfig>,
    surroundings: &Surroundings,
) -> Result<ProcessPlan, ProcessError> {
    let argv = argv(config, image)?;
    let user = user(&config.security, image, surroundings)?;
    let env = env(config, image, surroundings, &user);
    let (candidates, searched) = candidates(&argv, &env);
    let image_cwd = image.and_then(|image| image.working_dir().as_deref()).unwrap_or_default();
    let cwd = [config.working_dir.as_str(), image_cwd, "/"].into_iter().find(|cwd| !cwd.is_empty()).unwrap_or("/");
    if !cwd.starts_with('/') {
        return Err(ProcessError::WorkingDir(cwd.to_owned()));
    }
    let security = &config.security;
    let capabilities = if security.privileged {
        surroundings.own_capabilities
    } else {
        let requested = CapabilitySet::requested(&security.capabilities_add, &security.capabilities_drop)?;
        requested.intersection(surroundings.own_capabilities)
    };
    Ok(ProcessPlan {
        argv,
        candidates,
        searched,
        env,
        cwd: super::root::normalize(cwd),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        capabilities: capabilities.bits(),
        no_new_privs: security.no_new_privs,
        seccomp: filter(security, capabilities, &surroundings.filters)?,
        app_armor: surroundings.app_armor.clone(),
        open_files_max: OPEN_FILES_MAX,
        oom_score_adj: config.resources.oom_score_adj,
        terminal: config.tty,
    })
}

/// The same process with another command: what exec runs.
#[must_use]
pub fn exec_process(container: &ProcessPlan, command: Vec<String>, terminal: bool) -> ProcessPlan {
    let mut env = container.env.clone();
    if terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    let (candidates, searched) = candidates(&command, &env);
    ProcessPlan { argv: command, candidates, searched, env, terminal, ..container.clone() }
}

/// Kubernetes' table: a command replaces entrypoint *and* arguments of the image, arguments only the latter
/// (kubernetes.io, "Define a Command and Arguments for a Container").
fn argv(config: &ContainerConfig, image: Option<&ImageConfig>) -> Result<Vec<String>, ProcessError> {
    let entrypoint = image.and_then(|image| image.entrypoint().as_deref()).unwrap_or_default();
    let cmd = image.and_then(|image| image.cmd().as_deref()).unwrap_or_default();
    let (head, tail): (&[String], &[String]) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (entrypoint, &config.args),
        (true, true) => (entrypoint, cmd),
    };
    let argv: Vec<String> = head.iter().chain(tail).cloned().collect();
    match argv.first() {
        Some(first) if !first.is_empty() => Ok(argv),
        _ => Err(ProcessError::NoCommand),
    }
}

fn user(security: &Security, image: Option<&ImageConfig>, around: &Surroundings) -> Result<User, ProcessError> {
    let of_image = image.and_then(|image| image.user().as_deref()).unwrap_or_default();
    let image_user = security.run_as_username.as_deref().unwrap_or(of_image);
    let request = UserRequest {
        image_user,
        uid: security.run_as_user,
        gid: security.run_as_group,
        supplemental: &security.supplemental_groups,
        strict: security.strict_groups,
    };
    let user = resolve(&request, &around.passwd, &around.group)?;
    if security.run_as_non_root && user.uid == 0 {
        return Err(ProcessError::Root);
    }
    if let Some(users) = around.users {
        let groups = user.groups.iter().chain([&user.gid]).map(|gid| ("group", *gid));
        let unmapped = [("user", user.uid)].into_iter().chain(groups).find(|(_, id)| users.on_node(*id).is_none());
        if let Some((what, id)) = unmapped {
            return Err(ProcessError::NotMapped { what, id, length: users.length });
        }
    }
    Ok(user)
}

/// The image's variables, then the pod's; `HOSTNAME`, `PATH`, `TERM` and `HOME` when nobody sets them.
fn env(config: &ContainerConfig, image: Option<&ImageConfig>, around: &Surroundings, user: &User) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |name: &str, value: &str, replace: bool| {
        let entry = format!("{name}={value}");
        match env.iter_mut().find(|entry| entry.split('=').next() == Some(name)) {
            Some(old) if replace => *old = entry,
            Some(_) => {}
            None => env.push(entry),
        }
    };
    for entry in image.and_then(|image| image.env().as_deref()).unwrap_or_default() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value, true);
    }
    for (name, value) in &config.env {
        set(name, value, true);
    }
    set("PATH", PATH_DEFAULT, false);
    set("HOSTNAME", &around.hostname, false);
    if config.tty {
        set("TERM", "xterm", false);
    }
    set("HOME", &user.home, false);
    env
}

/// What to try to execute: a name with a slash is a path; others are looked for in `PATH`, as `execvp` does. The
/// look-up itself happens in the container, where volumes are mounted.
fn candidates(argv: &[String], env: &[String]) -> (Vec<String>, bool) {
    let Some(command) = argv.first() else { return (Vec::new(), false) };
    if command.contains('/') {
        return (vec![command.clone()], false);
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT);
    let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
    (folders.map(|folder| format!("{}/{command}", folder.trim_end_matches('/'))).collect(), true)
}

/// None for privileged containers, whatever they ask for: as containerd.
fn filter(
    security: &Security,
    capabilities: CapabilitySet,
    filters: &Filters,
) -> Result<Option<BpfProgram>, ProcessError> {
    if security.privileged {
        return Ok(None);
    }
    let program = match &security.seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => {
            filters.get(Source::Default(capabilities.bits()), |_| compile(&default_profile(capabilities)))?
        }
        Seccomp::Localhost(path) => {
            let text = read_profile(path)?;
            filters.get(Source::Profile(text.clone()), |_| {
                let profile: Profile = serde_json::from_slice(&text).map_err(|err| ProcessError::Profile {
                    path: path.display().to_string(),
                    reason: err.to_string(),
                })?;
                Ok::<_, ProcessError>(compile(&profile)?)
            })?
        }
    };
    Ok(Some(program))
}

fn read_profile(path: &Path) -> Result<Vec<u8>, ProcessError> {
    let fail = |reason: String| ProcessError::Profile { path: path.display().to_string(), reason };
    let metadata = std::fs::metadata(path).map_err(|err| fail(err.to_string()))?;
    if !metadata.is_file() || metadata.len() > PROFILE_LEN_MAX {
        return Err(fail(format!("not a file of at most {PROFILE_LEN_MAX} bytes")));
    }
    std::fs::read(path).map_err(|err| fail(err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::ConfigBuilder;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn image() -> ImageConfig {
        ConfigBuilder::default()
            .entrypoint(strings(&["/entry"]))
            .cmd(strings(&["a", "b"]))
            .env(strings(&["PATH=/x:/y", "COLOR=red"]))
            .working_dir("/srv".to_owned())
            .build()
            .unwrap()
    }

    fn around() -> Surroundings {
        Surroundings { own_capabilities: CapabilitySet::all(), hostname: "web-0".to_owned(), ..Surroundings::default() }
    }

    fn compiled(config: &ContainerConfig) -> ProcessPlan {
        compile_process(config, Some(&image()), &around()).unwrap()
    }

    #[test]
    fn command_and_args_follow_kubernetes_table() {
        let argv = |command: &[&str], args: &[&str]| {
            compiled(&ContainerConfig { command: strings(command), args: strings(args), ..ContainerConfig::default() })
                .argv
        };
        assert_eq!(argv(&[], &[]), ["/entry", "a", "b"]);
        assert_eq!(argv(&["c"], &[]), ["c"]);
        assert_eq!(argv(&[], &["z"]), ["/entry", "z"]);
        assert_eq!(argv(&["c"], &["z"]), ["c", "z"]);
    }

    #[test]
    fn a_bare_name_is_looked_for_in_the_containers_own_path() {
        let plan = compiled(&ContainerConfig { command: strings(&["tool"]), ..ContainerConfig::default() });
        assert_eq!((plan.candidates, plan.searched), (strings(&["/x/tool", "/y/tool"]), true));
        let plan = compiled(&ContainerConfig { command: strings(&["./tool"]), ..ContainerConfig::default() });
        assert_eq!((plan.candidates, plan.searched), (strings(&["./tool"]), false));
    }

    #[test]
    fn the_pods_variables_replace_the_images() {
        let env = vec![("COLOR".to_owned(), "blue".to_owned()), ("N".to_owned(), "1".to_owned())];
        let plan = compiled(&ContainerConfig { env, tty: true, ..ContainerConfig::default() });
        let expected = ["PATH=/x:/y", "COLOR=blue", "N=1", "HOSTNAME=web-0", "TERM=xterm", "HOME=/"];
        assert_eq!(plan.env, expected);
        assert_eq!(plan.cwd, "/srv");
    }

    #[test]
    fn what_cannot_run_is_told_in_kubernetes_words() {
        let error = |config: &ContainerConfig| compile_process(config, None, &around()).unwrap_err().to_string();
        assert_eq!(error(&ContainerConfig::default()), "no command specified");
        let mut config = ContainerConfig { command: strings(&["x"]), ..ContainerConfig::default() };
        config.security.run_as_non_root = true;
        assert_eq!(error(&config), "container has runAsNonRoot and image will run as root");
        config.security.run_as_user = Some(5);
        config.working_dir = "x".to_owned();
        assert!(error(&config).contains("must be an absolute path"));
    }

    #[test]
    fn a_user_that_the_pods_namespace_does_not_have_is_told_before_anything_starts() {
        let users = Some(UserNamespace { first: 1 << 16, length: 1 << 16 });
        let error = |edit: fn(&mut Security)| {
            let mut config = ContainerConfig { command: strings(&["x"]), ..ContainerConfig::default() };
            edit(&mut config.security);
            compile_process(&config, None, &Surroundings { users, ..around() }).map(drop).map_err(|err| err.to_string())
        };
        assert_eq!(error(|own| own.run_as_user = Some(65_535)), Ok(()));
        let told = |what: &str| Err(format!("{what} 65536 is not mapped: the pod's user namespace has 65536 ids"));
        assert_eq!(error(|own| own.run_as_user = Some(65_536)), told("user"));
        assert_eq!(error(|own| own.supplemental_groups = vec![65_536]), told("group"));
    }

    #[test]
    fn privileged_means_everything_and_no_filter() {
        let mut config = ContainerConfig::default();
        assert!(compiled(&config).seccomp.is_some(), "RuntimeDefault when nothing is said");
        config.security.privileged = true;
        let plan = compiled(&config);
        assert_eq!((plan.seccomp, plan.capabilities), (None, CapabilitySet::all().bits()));
    }
}
