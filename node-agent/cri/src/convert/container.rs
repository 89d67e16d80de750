//! Containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reeve_engine::engine::{
    Container, ContainerConfig, ContainerState, Device, ImageSource, LogLimits, Mount, Propagation, UserNamespace,
};
use reeve_engine::runtime::cdi;
use reeve_proto::cri::{
    self, Container as Listed, ContainerMetadata, ContainerResources, ContainerState as CriState, ContainerStatus,
    ContainerUser, CreateContainerRequest, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerUser,
    MountPropagation, NamespaceMode as CriMode, NamespaceOption,
};

use super::sandbox;
use super::{Refused, filled, from_record, nanoseconds, nanoseconds_or_none, noted, resources, security, signal};

/// Where nothing is kept.
const NOWHERE: &str = "/dev/null";
/// Exit code of a container whose own nobody knows: containerd's.
const UNKNOWN_EXIT_CODE: i32 = 255;

/// What a container is to be; its image is resolved later. `log_dir` is its sandbox's.
///
/// # Errors
/// For what is missing, and for what this engine does not have.
pub fn to_engine(request: &CreateContainerRequest, log_dir: &Path) -> Result<ContainerConfig, Refused> {
    let config = request.config.as_ref().ok_or_else(|| Refused::new("container config is nil"))?;
    let metadata = config.metadata.as_ref().ok_or_else(|| Refused::new("container config must include metadata"))?;
    let image = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
    if image.is_empty() {
        return Err(Refused::new("container config must include an image"));
    }
    let linux = config.linux.clone().unwrap_or_default();
    linux.resources.as_ref().map_or(Ok(()), resources::check)?;
    let context = linux.security_context.clone().unwrap_or_default();
    let options = context.namespace_options.clone();
    let pid = options.as_ref().map(NamespaceOption::pid);
    // The rest of the request is the sandbox's, and no news.
    let record = CreateContainerRequest { sandbox_config: None, ..request.clone() };
    Ok(ContainerConfig {
        name: metadata.name.clone(),
        attempt: metadata.attempt,
        image,
        checkpoint: None,
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        env: config.envs.iter().map(variable).collect::<Result<_, _>>()?,
        mounts: config.mounts.iter().map(mount).collect::<Result<_, _>>()?,
        devices: config.devices.iter().map(device).collect(),
        hooks: Vec::new(),
        resources: linux.resources.as_ref().map(resources::to_engine).unwrap_or_default(),
        security: security::to_engine(&context)?,
        pid: pid.map(sandbox::mode),
        pid_of: options.filter(|own| own.pid() == CriMode::Target).map(|own| own.target_id),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        log_path: log_path(log_dir, &config.log_path),
        log_limits: LogLimits::default(),
        stop_signal: signal::to_name(config.stop_signal),
        labels: BTreeMap::new(),
        annotations: noted(&config.annotations, &record),
    })
}

/// The CDI devices that a container is to have.
#[must_use]
pub fn cdi_devices(request: &CreateContainerRequest) -> Vec<String> {
    let config = request.config.clone().unwrap_or_default();
    let notes = config.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    cdi::asked(config.cdi_devices.iter().map(|device| device.name.as_str()), notes)
}

/// Without a folder or a name there is no log.
fn log_path(dir: &Path, name: &str) -> PathBuf {
    if dir.as_os_str().is_empty() || name.is_empty() { PathBuf::from(NOWHERE) } else { dir.join(name) }
}

fn variable(given: &KeyValue) -> Result<(String, String), Refused> {
    let value = String::from_utf8(given.value.to_vec());
    let value = value.map_err(|_| Refused::new(format!("the value of variable {:?} is not UTF-8", given.key)))?;
    Ok((given.key.clone(), value))
}

/// Refuses mounts whose ids are mapped otherwise than the engine does it: all of a pod's as the pod's own, and none
/// where it has none.
///
/// # Errors
/// With the mount's path.
pub fn check_mappings(request: &CreateContainerRequest, pod: Option<UserNamespace>) -> Result<(), Refused> {
    let mounts = request.config.iter().flat_map(|config| &config.mounts);
    for mount in mounts.filter(|mount| !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty()) {
        let path = &mount.container_path;
        let wanted = sandbox::ids(&mount.uid_mappings, &mount.gid_mappings)?;
        if pod != Some(wanted) {
            return Err(Refused::new(format!(
                "the ids of {path} must be mapped as the pod's user namespace maps them"
            )));
        }
    }
    Ok(())
}

fn mount(given: &cri::Mount) -> Result<Mount, Refused> {
    if given.container_path.is_empty() {
        return Err(Refused::new("a mount must have a container path"));
    }
    let image = given.image.as_ref().filter(|image| !image.image.is_empty()).map(|image| ImageSource {
        image: image.image.clone(),
        reference: filled(&image.user_specified_image).unwrap_or_else(|| image.image.clone()),
        sub_path: given.image_sub_path.clone(),
    });
    if image.is_none() && !given.image_sub_path.is_empty() {
        let (path, sub_path) = (&given.container_path, &given.image_sub_path);
        return Err(Refused::new(format!("image_sub_path {sub_path:?} is for mounts of images: {path}")));
    }
    if given.recursive_read_only && (!given.readonly || given.propagation() != MountPropagation::PropagationPrivate) {
        let path = &given.container_path;
        let why = "a recursively read-only mount must be read-only and private";
        return Err(Refused::new(format!("{why}: {path}")));
    }
    Ok(Mount {
        source: PathBuf::from(&given.host_path),
        target: Path::new("/").join(&given.container_path),
        read_only: given.readonly,
        recursive_read_only: given.recursive_read_only,
        propagation: match given.propagation() {
            MountPropagation::PropagationPrivate => Propagation::Private,
            MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
            MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
        },
        image,
        ..Mount::default()
    })
}

fn device(given: &cri::Device) -> Device {
    Device {
        source: PathBuf::from(&given.host_path),
        target: PathBuf::from(&given.container_path),
        permissions: given.permissions.clone(),
        ..Device::default()
    }
}

/// What a container was made from; see [`sandbox::request`].
#[must_use]
pub fn request(container: &Container) -> CreateContainerRequest {
    from_record(&container.config.annotations).unwrap_or_else(|| to_request(&container.sandbox, &container.config))
}

/// A container for another runtime.
#[must_use]
pub fn to_request(sandbox: &str, own: &ContainerConfig) -> CreateContainerRequest {
    let mut context = security::to_cri(&own.security);
    let pid = match &own.pid_of {
        Some(_) => Some(CriMode::Target),
        None => own.pid.map(sandbox::to_mode),
    };
    context.namespace_options = pid.map(|pid| NamespaceOption {
        pid: pid.into(),
        target_id: own.pid_of.clone().unwrap_or_default(),
        ..NamespaceOption::default()
    });
    let devices = own.devices.iter().map(|device| cri::Device {
        container_path: device.target.to_string_lossy().into_owned(),
        host_path: device.source.to_string_lossy().into_owned(),
        permissions: device.permissions.clone(),
    });
    let place = own.checkpoint.as_ref().map(|place| place.to_string_lossy().into_owned());
    let image = place.unwrap_or_else(|| own.image.clone());
    let envs = own.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into() });
    let config = cri::ContainerConfig {
        metadata: Some(ContainerMetadata { name: own.name.clone(), attempt: own.attempt }),
        image: Some(ImageSpec { image, ..ImageSpec::default() }),
        command: own.command.clone(),
        args: own.args.clone(),
        working_dir: own.working_dir.clone(),
        envs: envs.collect(),
        mounts: own.mounts.iter().map(to_mount).collect(),
        devices: devices.collect(),
        labels: own.labels.clone().into_iter().collect(),
        annotations: own.annotations.clone().into_iter().collect(),
        log_path: own.log_path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        tty: own.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::to_cri(&own.resources)),
            security_context: Some(context),
        }),
        stop_signal: own.stop_signal.as_deref().map_or(0, |name| signal::from_name(name).into()),
        ..cri::ContainerConfig::default()
    };
    CreateContainerRequest { pod_sandbox_id: sandbox.to_owned(), config: Some(config), sandbox_config: None }
}

fn to_mount(own: &Mount) -> cri::Mount {
    cri::Mount {
        container_path: own.target.to_string_lossy().into_owned(),
        host_path: own.source.to_string_lossy().into_owned(),
        readonly: own.read_only,
        recursive_read_only: own.recursive_read_only,
        propagation: match own.propagation {
            Propagation::Private => MountPropagation::PropagationPrivate,
            Propagation::HostToContainer => MountPropagation::PropagationHostToContainer,
            Propagation::Bidirectional => MountPropagation::PropagationBidirectional,
        }
        .into(),
        image: own.image.as_ref().map(|source| ImageSpec {
            image: source.image.clone(),
            user_specified_image: source.reference.clone(),
            ..ImageSpec::default()
        }),
        image_sub_path: own.image.as_ref().map(|source| source.sub_path.clone()).unwrap_or_default(),
        ..cri::Mount::default()
    }
}

/// Where a container is in its life.
#[must_use]
pub fn state(own: &ContainerState) -> CriState {
    match own {
        ContainerState::Created => CriState::ContainerCreated,
        ContainerState::Running { .. } => CriState::ContainerRunning,
        ContainerState::Exited { .. } => CriState::ContainerExited,
    }
}

/// A container in a list.
#[must_use]
pub fn listed(container: &Container) -> Listed {
    let config = request(container).config.unwrap_or_default();
    Listed {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: config.metadata,
        image: config.image,
        image_ref: container.image_id.clone(),
        image_id: container.config.image.clone(),
        state: state(&container.state).into(),
        created_at: nanoseconds(container.created_at),
        labels: config.labels,
        annotations: config.annotations,
    }
}

/// A container with all that is known; `image_name` is its image's, where that still has one.
#[must_use]
pub fn status(container: &Container, image_name: Option<String>) -> ContainerStatus {
    let config = request(container).config.unwrap_or_default();
    let mut image = config.image.unwrap_or_default();
    image.image = image_name.or_else(|| filled(&image.image)).unwrap_or_else(|| container.config.image.clone());
    let user = container.user.as_ref().map(|user| LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
    });
    let log = &container.config.log_path;
    let mut status = ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata,
        state: state(&container.state).into(),
        created_at: nanoseconds(container.created_at),
        image: Some(image),
        image_ref: container.image_id.clone(),
        image_id: container.config.image.clone(),
        labels: config.labels,
        annotations: config.annotations,
        mounts: config.mounts.into_iter().map(|mount| with_reference(mount, container)).collect(),
        log_path: if log == Path::new(NOWHERE) { String::new() } else { log.to_string_lossy().into_owned() },
        resources: Some(ContainerResources { linux: Some(resources::to_cri(&container.config.resources)) }),
        user: user.map(|linux| ContainerUser { linux: Some(linux) }),
        stop_signal: config.stop_signal,
        ..ContainerStatus::default()
    };
    match &container.state {
        ContainerState::Created => {}
        ContainerState::Running { started_at, .. } => status.started_at = nanoseconds(*started_at),
        ContainerState::Exited { started_at, finished_at, exit_code, reason, message } => {
            status.started_at = nanoseconds_or_none(*started_at);
            status.finished_at = nanoseconds(*finished_at);
            status.exit_code = exit_code.unwrap_or(UNKNOWN_EXIT_CODE);
            status.reason.clone_from(reason);
            status.message.clone_from(message);
        }
    }
    status
}

/// A mount as it was asked for; one of an image also tells which one that was: the name may be another's by now.
fn with_reference(mut mount: cri::Mount, container: &Container) -> cri::Mount {
    let target = Path::new("/").join(&mount.container_path);
    let own = container.config.mounts.iter().find(|own| own.target == target).and_then(|own| own.image.as_ref());
    if let (Some(image), Some(own)) = (&mut mount.image, own) {
        image.image_ref.clone_from(&own.image);
    }
    mount
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reeve_engine::engine::NamespaceMode;

    use super::*;

    fn request_of(config: cri::ContainerConfig) -> CreateContainerRequest {
        let metadata = Some(ContainerMetadata { name: "app".to_owned(), attempt: 2 });
        let image = Some(ImageSpec { image: "sha256:1".to_owned(), ..ImageSpec::default() });
        let config = cri::ContainerConfig { metadata, image, ..config };
        CreateContainerRequest { pod_sandbox_id: "s".to_owned(), config: Some(config), sandbox_config: None }
    }

    #[test]
    fn a_container_without_a_place_for_its_log_has_none() {
        let request = request_of(cri::ContainerConfig { log_path: "app/2.log".to_owned(), ..Default::default() });
        assert_eq!(to_engine(&request, Path::new("/logs")).expect("valid").log_path, Path::new("/logs/app/2.log"));
        assert_eq!(to_engine(&request, Path::new("")).expect("valid").log_path, Path::new(NOWHERE));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let of = |mount| cri::ContainerConfig { mounts: vec![mount], ..cri::ContainerConfig::default() };
        let mount = |path: &str| cri::Mount { container_path: path.to_owned(), ..cri::Mount::default() };
        let sub_path = || "dir".to_owned();
        for (config, why) in [
            (
                of(cri::Mount { image_sub_path: sub_path(), ..mount("/data") }),
                "image_sub_path \"dir\" is for mounts of images: /data",
            ),
            (
                of(cri::Mount { recursive_read_only: true, ..mount("/data") }),
                "a recursively read-only mount must be read-only and private: /data",
            ),
            (of(mount("")), "a mount must have a container path"),
        ] {
            assert_eq!(to_engine(&request_of(config), Path::new("")).expect_err("refused").0, why);
        }
    }

    #[test]
    fn an_exit_that_nobody_saw_has_containerds_code_and_our_reason() {
        let config = to_engine(&request_of(cri::ContainerConfig::default()), Path::new("")).expect("valid");
        let container = Container {
            id: "c".to_owned(),
            sandbox: "s".to_owned(),
            config,
            image_id: "x@sha256:2".to_owned(),
            user: None,
            state: ContainerState::Exited {
                started_at: None,
                finished_at: Timestamp::from_second(1).expect("a time"),
                exit_code: None,
                reason: "ContainerStatusUnknown".to_owned(),
                message: "nobody saw it".to_owned(),
            },
            created_at: Timestamp::UNIX_EPOCH,
        };
        let status = status(&container, Some("x:1".to_owned()));
        assert_eq!((status.exit_code, status.finished_at), (255, 1_000_000_000));
        assert_eq!((status.image.expect("an image").image.as_str(), status.image_id.as_str()), ("x:1", "sha256:1"));
        assert_eq!(listed(&container).metadata.expect("metadata").attempt, 2);
    }

    #[test]
    fn a_container_survives_the_way_to_another_runtime_and_back() {
        let own = ContainerConfig {
            name: "app".to_owned(),
            image: "sha256:1".to_owned(),
            command: vec!["sh".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            mounts: vec![
                Mount { source: "/a".into(), target: "/b".into(), read_only: true, ..Mount::default() },
                Mount {
                    target: "/c".into(),
                    read_only: true,
                    image: Some(ImageSource {
                        image: "sha256:2".to_owned(),
                        reference: "data:1".to_owned(),
                        sub_path: "dir".to_owned(),
                    }),
                    ..Mount::default()
                },
            ],
            pid: Some(NamespaceMode::Container),
            pid_of: Some("other".to_owned()),
            stop_signal: Some("SIGUSR1".to_owned()),
            log_path: "/logs/app.log".into(),
            ..ContainerConfig::default()
        };
        let back = to_engine(&to_request("s", &own), Path::new("/logs")).expect("valid");
        assert_eq!((back.command, back.env, back.log_path), (own.command, own.env, own.log_path));
        assert_eq!((back.pid, back.pid_of, back.stop_signal), (own.pid, own.pid_of, own.stop_signal));
        assert_eq!(format!("{:?}", back.mounts), format!("{:?}", own.mounts));
    }
}
