//! CRI's own messages, as a kubelet and `critest` send them: what every client of a runtime may count on, and which
//! code an error has. What containers can do is proved elsewhere; here is how it is asked for and told.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use reeve_cri::server::CriServer;
use reeve_proto::cri::image_service_client::ImageServiceClient;
use reeve_proto::cri::runtime_service_client::RuntimeServiceClient;
use reeve_proto::cri::{self, ContainerEventType, ContainerState, NamespaceMode, PodSandboxState};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::bed::{Bed, eventually, image_archive_of, log_text};
use crate::ours;

/// How long anything may take that is no command's own time.
const WAIT_MAX: Duration = Duration::from_secs(20);
pub(crate) const IMAGE: &str = "busybox:latest";

/// A server of ours and both its clients.
pub(crate) struct Wire {
    pub(crate) bed: Bed,
    pub(crate) server: CriServer,
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
}

impl Wire {
    pub(crate) async fn new() -> Self {
        let bed = Bed::new().await;
        let (server, socket) = ours::server(Arc::new(bed.engine.clone()), bed.dir()).await;
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap();
        let images = ImageServiceClient::new(channel.clone());
        Self { bed, server, runtime: RuntimeServiceClient::new(channel), images }
    }

    pub(crate) async fn close(self) {
        self.server.remove_all().await.unwrap();
        self.server.stop().await;
        self.bed.close().await;
    }

    /// A pod with names and nothing special.
    pub(crate) fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.bed.dir().join("logs").join(name).display().to_string(),
            labels: HashMap::from([("pod".to_owned(), name.to_owned())]),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("kubepods/{name}"),
                ..cri::LinuxPodSandboxConfig::default()
            }),
            ..cri::PodSandboxConfig::default()
        }
    }

    pub(crate) async fn run(&self, config: cri::PodSandboxConfig) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Ok(self.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub(crate) async fn create(&self, pod: &str, config: cri::ContainerConfig) -> Result<String, Status> {
        let pod_sandbox_id = pod.to_owned();
        let request = cri::CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config: None };
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().start_container(request).await.map(drop)
    }

    pub(crate) async fn stop(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.runtime.clone().stop_container(request).await.map(drop)
    }

    pub(crate) async fn remove(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().remove_container(request).await.map(drop)
    }

    pub(crate) async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().stop_pod_sandbox(request).await.map(drop)
    }

    pub(crate) async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().remove_pod_sandbox(request).await.map(drop)
    }

    pub(crate) async fn pod_status(&self, id: &str) -> Result<cri::PodSandboxStatusResponse, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        Ok(self.runtime.clone().pod_sandbox_status(request).await?.into_inner())
    }

    pub(crate) async fn status(&self, id: &str) -> Result<cri::ContainerStatus, Status> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(self.runtime.clone().container_status(request).await?.into_inner().status.unwrap())
    }

    /// A container that runs.
    pub(crate) async fn started(&self, pod: &str, config: cri::ContainerConfig) -> String {
        let id = self.create(pod, config).await.unwrap();
        self.start(&id).await.unwrap();
        id
    }

    /// The status of a container that has ended.
    pub(crate) async fn end(&self, id: &str) -> cri::ContainerStatus {
        let ended = async {
            loop {
                let status = self.status(id).await.unwrap();
                if status.state() == ContainerState::ContainerExited {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, ended).await.expect("it ends")
    }

    /// Runs a script to its end; its code and output.
    pub(crate) async fn output(&self, pod: &str, config: cri::ContainerConfig) -> (i32, String) {
        let id = self.started(pod, config).await;
        let status = self.end(&id).await;
        (status.exit_code, log_text(Path::new(&status.log_path)))
    }

    pub(crate) async fn exec(&self, id: &str, script: &str, timeout: i64) -> Result<cri::ExecSyncResponse, Status> {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    pub(crate) async fn list(&self, filter: cri::ContainerFilter) -> Vec<String> {
        let request = cri::ListContainersRequest { filter: Some(filter) };
        let listed = self.runtime.clone().list_containers(request).await.unwrap().into_inner().containers;
        listed.into_iter().map(|own| own.id).collect()
    }

    pub(crate) async fn list_pods(&self, filter: cri::PodSandboxFilter) -> Vec<String> {
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        let listed = self.runtime.clone().list_pod_sandbox(request).await.unwrap().into_inner().items;
        listed.into_iter().map(|own| own.id).collect()
    }

    pub(crate) async fn image(&self, name: &str) -> Option<cri::Image> {
        let request = cri::ImageStatusRequest { image: Some(spec(name)), verbose: false };
        self.images.clone().image_status(request).await.unwrap().into_inner().image
    }
}

pub(crate) fn spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() }
}

/// A container that runs a shell script.
pub(crate) fn script(name: &str, script: &str) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(spec(IMAGE)),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        labels: HashMap::from([("container".to_owned(), name.to_owned())]),
        log_path: format!("{name}.log"),
        ..cri::ContainerConfig::default()
    }
}

pub(crate) fn secured(
    config: cri::ContainerConfig,
    context: cri::LinuxContainerSecurityContext,
) -> cri::ContainerConfig {
    let linux = cri::LinuxContainerConfig { security_context: Some(context), ..Default::default() };
    cri::ContainerConfig { linux: Some(linux), ..config }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Code {
    outcome.expect_err("it is refused").code()
}

pub(crate) async fn codes_tell_what_is_wrong() {
    let wire = Wire::new().await;
    let nothing = "f".repeat(64);
    for outcome in [
        wire.stop(&nothing, 0).await,
        wire.remove(&nothing).await,
        wire.stop_pod(&nothing).await,
        wire.remove_pod(&nothing).await,
    ] {
        outcome.expect("what is gone is stopped and removed");
    }
    assert_eq!(code(wire.status(&nothing).await), Code::NotFound);
    assert_eq!(code(wire.pod_status(&nothing).await), Code::NotFound);
    assert_eq!(code(wire.create(&nothing, script("app", "true")).await), Code::NotFound);
    assert_eq!(code(wire.exec(&nothing, "true", 0).await), Code::NotFound);
    let nameless = cri::PodSandboxConfig { metadata: None, ..wire.pod("web") };
    assert_eq!(code(wire.run(nameless).await), Code::InvalidArgument);
    let request = cri::RunPodSandboxRequest { config: Some(wire.pod("web")), runtime_handler: "kata".to_owned() };
    let refused = wire.runtime.clone().run_pod_sandbox(request).await.expect_err("there is no such handler");
    assert_eq!(refused.message(), "no runtime for \"kata\" is configured");

    let pod = wire.run(wire.pod("web")).await.unwrap();
    let absent = cri::ContainerConfig { image: Some(spec("no-such-image:1")), ..script("app", "true") };
    assert_eq!(code(wire.create(&pod, absent).await), Code::NotFound);
    let nameless = cri::ContainerConfig { metadata: None, ..script("app", "true") };
    assert_eq!(code(wire.create(&pod, nameless).await), Code::InvalidArgument);
    let created = wire.create(&pod, script("app", "exec sleep 1000")).await.unwrap();
    assert_eq!(code(wire.exec(&created, "true", 0).await), Code::FailedPrecondition);
    wire.start(&created).await.unwrap();
    assert_eq!(code(wire.start(&created).await), Code::FailedPrecondition);
    assert_eq!(code(wire.exec(&created, "exec sleep 1000", 1).await), Code::DeadlineExceeded);
    wire.stop(&created, 0).await.unwrap();
    wire.stop(&created, 0).await.expect("twice");
    wire.stop_pod(&pod).await.unwrap();
    wire.stop_pod(&pod).await.expect("twice");
    assert_eq!(wire.pod_status(&pod).await.unwrap().status.unwrap().state(), PodSandboxState::SandboxNotready);
    wire.remove_pod(&pod).await.unwrap();
    assert_eq!(code(wire.status(&created).await), Code::NotFound, "its containers go with it");
    wire.close().await;
}

pub(crate) async fn a_container_is_told_as_it_was_made_at_every_stage() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let config = cri::ContainerConfig {
        annotations: HashMap::from([("note".to_owned(), "kept".to_owned())]),
        ..script("app", "echo out; echo err >&2; read line; exit 7")
    };
    let config = cri::ContainerConfig { stdin: true, ..config };
    let id = wire.create(&pod, config.clone()).await.unwrap();
    let created = wire.status(&id).await.unwrap();
    assert_eq!((created.state(), created.started_at, created.finished_at), (ContainerState::ContainerCreated, 0, 0));
    assert!(created.created_at > 0 && !created.image_ref.is_empty() && !created.image_id.is_empty());
    assert_eq!((&created.labels, &created.annotations), (&config.labels, &config.annotations));
    let image = created.image.as_ref().unwrap().image.as_str();
    assert_eq!((&created.metadata, image), (&config.metadata, "docker.io/library/busybox:latest"));
    wire.start(&id).await.unwrap();
    let running = wire.status(&id).await.unwrap();
    assert_eq!((running.state(), running.finished_at), (ContainerState::ContainerRunning, 0));
    assert!(running.started_at >= created.created_at);
    let log = || std::fs::read_to_string(&created.log_path).unwrap_or_default();
    eventually("both outputs are logged", || log().contains(" stdout F out\n") && log().contains(" stderr F err\n"))
        .await;
    wire.stop(&id, 0).await.unwrap();
    let ended = wire.status(&id).await.unwrap();
    assert_eq!((ended.state(), ended.exit_code), (ContainerState::ContainerExited, 137));
    assert!(ended.finished_at >= running.started_at && ended.started_at == running.started_at);
    wire.close().await;
}

pub(crate) async fn lists_are_filtered_by_every_field() {
    let wire = Wire::new().await;
    let mut pods = Vec::new();
    let mut containers = Vec::new();
    for name in ["one", "two"] {
        let pod = wire.run(wire.pod(name)).await.unwrap();
        containers.push(wire.started(&pod, script(name, "exec sleep 1000")).await);
        pods.push(pod);
    }
    wire.stop(&containers[1], 0).await.unwrap();
    let labels = |kind: &str, name: &str| HashMap::from([(kind.to_owned(), name.to_owned())]);
    let state = |state: ContainerState| Some(cri::ContainerStateValue { state: state.into() });
    let all = cri::ContainerFilter::default;
    for (filter, wanted) in [
        (cri::ContainerFilter { id: containers[0].clone(), ..all() }, &containers[..1]),
        (cri::ContainerFilter { id: containers[0][..13].to_owned(), ..all() }, &containers[..1]),
        (cri::ContainerFilter { pod_sandbox_id: pods[1].clone(), ..all() }, &containers[1..]),
        (cri::ContainerFilter { state: state(ContainerState::ContainerRunning), ..all() }, &containers[..1]),
        (cri::ContainerFilter { state: state(ContainerState::ContainerExited), ..all() }, &containers[1..]),
        (cri::ContainerFilter { label_selector: labels("container", "two"), ..all() }, &containers[1..]),
        (
            cri::ContainerFilter { id: containers[0].clone(), pod_sandbox_id: pods[1].clone(), ..all() },
            &containers[..0],
        ),
    ] {
        assert_eq!(wire.list(filter.clone()).await, wanted, "{filter:?}");
    }
    wire.stop_pod(&pods[1]).await.unwrap();
    let state = |state: PodSandboxState| Some(cri::PodSandboxStateValue { state: state.into() });
    let all = cri::PodSandboxFilter::default;
    for (filter, wanted) in [
        (cri::PodSandboxFilter { id: pods[0].clone(), ..all() }, &pods[..1]),
        (cri::PodSandboxFilter { state: state(PodSandboxState::SandboxReady), ..all() }, &pods[..1]),
        (cri::PodSandboxFilter { state: state(PodSandboxState::SandboxNotready), ..all() }, &pods[1..]),
        (cri::PodSandboxFilter { label_selector: labels("pod", "one"), ..all() }, &pods[..1]),
    ] {
        assert_eq!(wire.list_pods(filter.clone()).await, wanted, "{filter:?}");
    }
    wire.close().await;
}

pub(crate) async fn an_image_goes_by_all_its_names_and_with_any_of_them() {
    let wire = Wire::new().await;
    let names = ["docker.io/library/named:1", "docker.io/library/named:2", "docker.io/library/named:3"];
    for name in names {
        wire.bed.engine.images().load(image_archive_of(name, &["true"]).as_slice()).unwrap();
    }
    let found = wire.image(names[0]).await.expect("it is here");
    let mut tags = found.repo_tags.clone();
    tags.sort();
    assert_eq!(tags, names);
    assert!(found.size > 0 && found.uid.is_some(), "{found:?}");
    for name in ["named:2", &found.id, found.id.trim_start_matches("sha256:")] {
        assert_eq!(wire.image(name).await.expect(name).id, found.id);
    }
    let request = cri::ListImagesRequest { filter: None };
    let listed = wire.images.clone().list_images(request).await.unwrap().into_inner().images;
    assert_eq!(listed.iter().filter(|image| image.id == found.id).count(), 1, "one image, however many names");
    for _ in 0..2 {
        let request = cri::RemoveImageRequest { image: Some(spec(names[1])) };
        wire.images.clone().remove_image(request).await.expect("it goes, and may be gone");
    }
    for name in names {
        assert!(wire.image(name).await.is_none(), "{name}");
    }
    let usage = wire.images.clone().image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner();
    let own = &usage.image_filesystems[0];
    assert!(own.timestamp > 0 && own.used_bytes.unwrap().value > 0 && own.inodes_used.is_some(), "{own:?}");
    assert!(!own.fs_id.as_ref().unwrap().mountpoint.is_empty() && !usage.container_filesystems.is_empty());
    wire.close().await;
}

pub(crate) async fn a_volumes_folder_is_made_and_a_link_to_one_followed() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let dir = wire.bed.dir();
    let (missing, real, link) = (dir.join("missing/deep"), dir.join("real"), dir.join("link"));
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("file"), "content\n").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mount = |path: &Path, inside: &str| cri::Mount {
        host_path: path.display().to_string(),
        container_path: inside.to_owned(),
        ..cri::Mount::default()
    };
    let config = cri::ContainerConfig {
        mounts: vec![mount(&missing, "/made"), mount(&link, "/linked")],
        ..script("app", "cat /linked/file; echo there > /made/new")
    };
    let id = wire.create(&pod, config.clone()).await.unwrap();
    assert_eq!(wire.status(&id).await.unwrap().mounts, config.mounts);
    wire.start(&id).await.unwrap();
    let ended = wire.end(&id).await;
    assert_eq!((ended.exit_code, log_text(Path::new(&ended.log_path)).as_str()), (0, "content\n"));
    assert_eq!(std::fs::read_to_string(missing.join("new")).unwrap(), "there\n");
    wire.close().await;
}

pub(crate) async fn a_pod_has_the_name_servers_and_parameters_it_is_given() {
    let wire = Wire::new().await;
    let dns = cri::DnsConfig {
        servers: vec!["10.10.10.10".to_owned()],
        searches: vec!["google.com".to_owned()],
        options: vec!["ndots:8".to_owned()],
    };
    let mut config = cri::PodSandboxConfig { dns_config: Some(dns), ..wire.pod("web") };
    let linux = config.linux.as_mut().unwrap();
    linux.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    linux.sysctls.insert("net.ipv4.ip_local_port_range".to_owned(), "1024 65000".to_owned());
    let pod = wire.run(config).await.unwrap();
    let text = "hostname; cat /etc/hostname /etc/resolv.conf /proc/sys/kernel/shm_rmid_forced; \
        cat /proc/sys/net/ipv4/ip_local_port_range";
    let (code, told) = wire.output(&pod, script("app", text)).await;
    let wanted = "web\nweb\nsearch google.com\nnameserver 10.10.10.10\noptions ndots:8\n1\n1024\t65000\n";
    assert_eq!((code, told.as_str()), (0, wanted));
    wire.close().await;
}

pub(crate) async fn namespaces_are_shared_as_asked() {
    let wire = Wire::new().await;
    let with = |options: cri::NamespaceOption| {
        let context = cri::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let mut config = wire.pod("web");
        config.linux.as_mut().unwrap().security_context = Some(context);
        config
    };
    let options = |pid: NamespaceMode| cri::NamespaceOption { pid: pid.into(), ..cri::NamespaceOption::default() };
    let contained = |name: &str, text: &str, own: cri::NamespaceOption| {
        let context = cri::LinuxContainerSecurityContext { namespace_options: Some(own), ..Default::default() };
        secured(script(name, text), context)
    };
    let pid_of_shell = "echo $$";
    let pod = wire.run(with(options(NamespaceMode::Container))).await.unwrap();
    let first = contained("own", pid_of_shell, options(NamespaceMode::Container));
    assert_eq!(wire.output(&pod, first).await, (0, "1\n".to_owned()));
    let target = wire.started(&pod, contained("target", "exec sleep 4321", options(NamespaceMode::Container))).await;
    let aimed = cri::NamespaceOption { target_id: target.clone(), ..options(NamespaceMode::Target) };
    let (code, told) = wire.output(&pod, contained("aims", "cat /proc/1/cmdline", aimed)).await;
    assert_eq!((code, told.contains("4321")), (0, true), "{told}");
    let told = wire.status(&target).await.unwrap();
    assert_eq!(told.state(), ContainerState::ContainerRunning, "whoever looks at it does not end it");
    wire.remove_pod(&pod).await.unwrap();

    let pod = wire.run(with(options(NamespaceMode::Pod))).await.unwrap();
    wire.started(&pod, contained("sees", "exec sleep 5432", options(NamespaceMode::Pod))).await;
    let (_, told) = wire.output(&pod, contained("seen", "ps", options(NamespaceMode::Pod))).await;
    assert!(told.contains("sleep 5432"), "{told}");
    let status = wire.pod_status(&pod).await.unwrap().status.unwrap();
    let own = status.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(own.pid(), NamespaceMode::Pod);
    wire.remove_pod(&pod).await.unwrap();

    let node = NamespaceMode::Node;
    let all = cri::NamespaceOption { network: node.into(), ipc: node.into(), ..options(node) };
    let pod = wire.run(with(all.clone())).await.unwrap();
    let (_, told) = wire.output(&pod, contained("node", "stat -Lc %i /proc/self/ns/net /proc/self/ns/ipc", all)).await;
    use std::os::unix::fs::MetadataExt as _;
    let inode = |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino();
    assert_eq!(told, format!("{}\n{}\n", inode("net"), inode("ipc")));
    wire.close().await;
}

pub(crate) async fn who_a_process_is_and_what_it_may_do_is_as_asked_or_refused() {
    use cri::{Capability, Int64Value, LinuxContainerSecurityContext as Context};
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let number = |value| Some(Int64Value { value });
    let refused = Context { run_as_group: number(1000), ..Context::default() };
    assert_eq!(code(wire.create(&pod, secured(script("no", "id"), refused)).await), Code::InvalidArgument);
    let privileged = Context { privileged: true, ..Context::default() };
    let outcome = wire.create(&pod, secured(script("no", "id"), privileged)).await;
    assert_eq!(outcome.unwrap_err().message(), "no privileged container allowed in sandbox");
    let capability = |add: &[&str], drop: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Some(Capability { add_capabilities: owned(add), drop_capabilities: owned(drop), ..Capability::default() })
    };
    let capabilities = "grep CapEff /proc/self/status";
    for (name, text, context, wanted) in [
        ("user", "id -u; id -g", Context { run_as_user: number(1001), ..Context::default() }, "1001\n0\n"),
        (
            "name",
            "id -un; id -G",
            Context { run_as_username: "app".to_owned(), ..Context::default() },
            "app\n1000 2000\n",
        ),
        (
            "groups",
            "id -G",
            Context {
                run_as_user: number(1000),
                run_as_group: number(1234),
                supplemental_groups: vec![5678],
                ..Context::default()
            },
            "1234 2000 5678\n",
        ),
        ("all", capabilities, Context { capabilities: capability(&["ALL"], &[]), ..Context::default() }, ""),
        (
            "none",
            capabilities,
            Context { capabilities: capability(&[], &["ALL"]), ..Context::default() },
            "CapEff:\t0000000000000000\n",
        ),
        (
            "one",
            capabilities,
            Context { capabilities: capability(&["NET_ADMIN"], &["ALL"]), ..Context::default() },
            "CapEff:\t0000000000001000\n",
        ),
        (
            "root",
            "touch /x 2>/dev/null || echo read-only",
            Context { readonly_rootfs: true, ..Context::default() },
            "read-only\n",
        ),
        (
            "masked",
            "wc -c < /etc/passwd; echo x > /proc/sys/kernel/domainname || echo read-only",
            Context {
                masked_paths: vec!["/etc/passwd".to_owned()],
                readonly_paths: vec!["/proc/sys".to_owned()],
                ..Context::default()
            },
            "0\nread-only\n",
        ),
        (
            "privileges",
            "grep NoNewPrivs /proc/self/status",
            Context { no_new_privs: true, ..Context::default() },
            "NoNewPrivs:\t1\n",
        ),
    ] {
        let (_, told) = wire.output(&pod, secured(script(name, text), context)).await;
        let told = told.lines().filter(|line| !line.starts_with("sh: ")).map(|line| format!("{line}\n"));
        let told: String = told.collect();
        if name == "all" {
            let set = told.split_whitespace().nth(1).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap();
            assert_eq!(set & 0x1000, 0x1000, "{told}");
        } else {
            assert_eq!(told, wanted, "{name}");
        }
    }
    wire.close().await;
}

pub(crate) async fn the_memory_limit_and_a_missing_command_are_told_by_their_reasons() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let limits = cri::LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        memory_swap_limit_in_bytes: 16 << 20,
        ..cri::LinuxContainerResources::default()
    };
    let linux = cri::LinuxContainerConfig { resources: Some(limits), ..cri::LinuxContainerConfig::default() };
    let eats =
        cri::ContainerConfig { linux: Some(linux), ..script("eats", "exec dd if=/dev/zero of=/dev/null bs=64M") };
    let id = wire.started(&pod, eats).await;
    let ended = wire.end(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    let told = ended.resources.and_then(|own| own.linux).expect("limits are told");
    assert_eq!(told.memory_limit_in_bytes, 16 << 20);
    let nothing = cri::ContainerConfig { command: vec!["/no/such".to_owned()], ..script("nothing", "") };
    let id = wire.create(&pod, nothing).await.unwrap();
    assert_eq!(code(wire.start(&id).await), Code::Unknown);
    let ended = wire.status(&id).await.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_str()), (128, "StartError"));
    for (name, text, reason) in [("well", "exit 0", "Completed"), ("badly", "exit 3", "Error")] {
        let id = wire.started(&pod, script(name, text)).await;
        assert_eq!(wire.end(&id).await.reason, reason);
    }
    wire.close().await;
}

/// A kubelet that follows events takes each for all there is: what it leaves out is forgotten.
pub(crate) async fn every_event_has_the_whole_pod() {
    let wire = Wire::new().await;
    let mut events = wire.runtime.clone().get_container_events(cri::GetEventsRequest {}).await.unwrap().into_inner();
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let first = wire.started(&pod, script("first", "exec sleep 1000")).await;
    let second = wire.started(&pod, script("second", "sleep 0.5; exit 5")).await;
    wire.end(&second).await;
    let mut told = Vec::new();
    let next = async |events: &mut tonic::Streaming<cri::ContainerEventResponse>| {
        tokio::time::timeout(WAIT_MAX, events.message()).await.expect("an event").unwrap().expect("it goes on")
    };
    for _ in 0..7 {
        told.push(next(&mut events).await);
    }
    wire.remove(&second).await.unwrap();
    told.push(next(&mut events).await);
    wire.stop_pod(&pod).await.unwrap();
    told.push(next(&mut events).await);
    told.push(next(&mut events).await);
    wire.remove_pod(&pod).await.unwrap();
    told.push(next(&mut events).await);
    told.push(next(&mut events).await);
    use ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
        ContainerStoppedEvent as Stopped,
    };
    let kinds = |id: &str| {
        let own = told.iter().filter(|event| event.container_id == id);
        own.map(cri::ContainerEventResponse::container_event_type).collect::<Vec<_>>()
    };
    for id in [&pod, &first, &second] {
        assert_eq!(kinds(id), [Created, Started, Stopped, Deleted], "{told:#?}");
    }
    let is_known =
        |event: &cri::ContainerEventResponse, id: &str| event.containers_statuses.iter().any(|status| status.id == id);
    let made = told.iter().position(|event| event.container_id == first).unwrap();
    let gone = told.iter().position(|event| event.container_event_type() == Deleted && event.container_id == first);
    for (at, event) in told.iter().enumerate() {
        let status = event.pod_sandbox_status.as_ref().expect("the pod");
        assert_eq!(status.metadata.as_ref().unwrap().uid, "uid-web");
        let there = at >= made && at < gone.unwrap();
        assert_eq!(is_known(event, &first), there, "event {at}: {event:#?}");
    }
    wire.close().await;
}

/// A kubelet that follows events takes the first container of a name for the one that counts.
pub(crate) async fn the_newest_container_of_a_pod_comes_first() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let mut made = Vec::new();
    for attempt in 0..6 {
        let metadata = Some(cri::ContainerMetadata { name: "app".to_owned(), attempt });
        let config = cri::ContainerConfig { metadata, ..script("app", "exec sleep 1000") };
        made.insert(0, wire.create(&pod, config).await.unwrap());
    }
    let mut events = wire.runtime.clone().get_container_events(cri::GetEventsRequest {}).await.unwrap().into_inner();
    wire.start(&made[0]).await.unwrap();
    let ids = |all: &[cri::ContainerStatus]| all.iter().map(|status| status.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&wire.pod_status(&pod).await.unwrap().containers_statuses), made);
    let event = tokio::time::timeout(WAIT_MAX, events.message()).await.expect("an event").unwrap().unwrap();
    assert_eq!(ids(&event.containers_statuses), made);
    wire.close().await;
}

/// A kubelet keeps of a status and an event what says that it is newer: a status that says so of what it has seen
/// before a start hides the start, and the kubelet starts the container once more.
pub(crate) async fn a_status_is_never_older_than_it_says() {
    const ROUNDS: usize = 20;
    const AT_ONCE: usize = 4;
    let wire = Arc::new(Wire::new().await);
    let mut events = wire.runtime.clone().get_container_events(cri::GetEventsRequest {}).await.unwrap().into_inner();
    let pod = wire.run(wire.pod("web")).await.unwrap();
    for round in 0..ROUNDS {
        let id = wire.create(&pod, script(&format!("app-{round}"), "exec sleep 1000")).await.unwrap();
        let watching = (0..AT_ONCE).map(|_| {
            let (wire, pod, id) = (Arc::clone(&wire), pod.clone(), id.clone());
            tokio::spawn(async move {
                let mut last_before = 0;
                loop {
                    let told = wire.pod_status(&pod).await.unwrap();
                    let own = told.containers_statuses.iter().find(|status| status.id == id).unwrap();
                    if own.state() == ContainerState::ContainerRunning {
                        return last_before;
                    }
                    last_before = last_before.max(told.timestamp);
                }
            })
        });
        let watching: Vec<_> = watching.collect();
        wire.start(&id).await.unwrap();
        let started = async {
            loop {
                let event = events.message().await.unwrap().expect("it goes on");
                if event.container_id == id && event.container_event_type() == ContainerEventType::ContainerStartedEvent
                {
                    return event.created_at;
                }
            }
        };
        let started = tokio::time::timeout(WAIT_MAX, started).await.expect("the start is told");
        for watcher in watching {
            let before = watcher.await.unwrap();
            assert!(
                before < started,
                "round {round}: what was seen before the start says {} ns later",
                before - started
            );
        }
    }
    Arc::into_inner(wire).expect("nobody else's").close().await;
}

pub(crate) async fn what_is_used_is_told_with_whose_it_is() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let text = "dd if=/dev/zero of=/file bs=64k count=16; while true; do :; done";
    let id = wire.started(&pod, script("app", text)).await;
    let used = async {
        loop {
            let request = cri::ContainerStatsRequest { container_id: id.clone() };
            let own = wire.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap();
            let value = |value: Option<cri::UInt64Value>| value.map_or(0, |value| value.value);
            let cpu = own.cpu.as_ref().map_or(0, |cpu| value(cpu.usage_core_nano_seconds));
            let memory = own.memory.as_ref().map_or(0, |memory| value(memory.working_set_bytes));
            let written = own.writable_layer.as_ref().map_or(0, |layer| value(layer.used_bytes));
            if cpu > 0 && memory > 0 && written >= 1 << 20 {
                return own;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let own = tokio::time::timeout(WAIT_MAX, used).await.expect("it is counted");
    let attributes = own.attributes.unwrap();
    assert_eq!((attributes.id.as_str(), attributes.metadata.unwrap().name.as_str()), (id.as_str(), "app"));
    assert_eq!(attributes.labels["container"], "app");
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let own = wire.runtime.clone().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
    let linux = own.linux.unwrap();
    assert_eq!(linux.containers.len(), 1);
    assert!(linux.process.unwrap().process_count.unwrap().value >= 1 && linux.cpu.is_some() && linux.memory.is_some());
    let filter = cri::ContainerStatsFilter { pod_sandbox_id: "f".repeat(64), ..Default::default() };
    let request = cri::ListContainerStatsRequest { filter: Some(filter) };
    assert!(wire.runtime.clone().list_container_stats(request).await.unwrap().into_inner().stats.is_empty());
    wire.close().await;
}

pub(crate) async fn a_checkpoint_is_restored_by_its_place_on_the_node() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("counts")).await.unwrap();
    let alone = cri::NamespaceOption { pid: NamespaceMode::Container.into(), ..cri::NamespaceOption::default() };
    let alone = cri::LinuxContainerSecurityContext { namespace_options: Some(alone), ..Default::default() };
    let counting = |script: cri::ContainerConfig| secured(script, alone.clone());
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    let id = wire.started(&pod, counting(script("count", count))).await;
    let log = wire.bed.dir().join("logs/counts/count.log");
    eventually("it counts", || log_text(&log).lines().count() > 3).await;
    let place = wire.bed.dir().join("checkpoint.tar").display().to_string();
    let request =
        cri::CheckpointContainerRequest { container_id: id.clone(), location: place.clone(), ..Default::default() };
    if let Err(status) = wire.runtime.clone().checkpoint_container(request).await {
        println!("SKIPPED: {}", status.message());
        assert!(status.message().contains("checkpoints need CRIU"), "{status}");
        return wire.close().await;
    }
    wire.remove_pod(&pod).await.unwrap();
    let other = wire.run(wire.pod("goes-on")).await.unwrap();
    let config = cri::ContainerConfig { image: Some(spec(&place)), ..counting(script("count", "exit 3")) };
    let id = wire.started(&other, config.clone()).await;
    let log = wire.bed.dir().join("logs/goes-on/count.log");
    eventually("it counts on", || log_text(&log).lines().count() > 3).await;
    let first: u32 = log_text(&log).lines().next().unwrap().parse().unwrap();
    assert!(first > 1, "it goes on where it was");
    let status = wire.status(&id).await.unwrap();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!(status.image.unwrap().image, "docker.io/library/busybox:latest", "what it stands on");
    let missing = cri::ContainerConfig { image: Some(spec("/no/such.tar")), ..config };
    assert_eq!(code(wire.create(&other, missing).await), Code::InvalidArgument, "it is no image's name either");
    wire.close().await;
}

pub(crate) async fn cdi_devices_are_what_their_files_say_or_refused() {
    let wire = Wire::new().await;
    let (dir, out) = (wire.bed.dir().join("cdi"), wire.bed.dir().join("hooked"));
    let library = wire.bed.dir().join("library");
    std::fs::create_dir(&dir).unwrap();
    std::fs::create_dir(&library).unwrap();
    std::fs::write(library.join("file"), "from the node\n").unwrap();
    // Something that no container may use without being given it, and that nobody is harmed by opening.
    let device = ["/dev/net/tun", "/dev/fuse", "/dev/loop-control"].into_iter().find(|path| Path::new(path).exists());
    let device = device.expect("a device to give");
    let number = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(device).unwrap());
    let node = format!("640 7 4444 {:x}:{:x}", nix::libc::major(number), nix::libc::minor(number));
    let spec = serde_json::json!({
        "cdiVersion": "0.7.0", "kind": "vendor.com/gpu",
        "containerEdits": {
            "env": ["DRIVER=5"],
            "mounts": [{"hostPath": library, "containerPath": "/library", "options": ["ro", "nosuid", "nodev", "noexec", "rbind"]}],
            "hooks": [{"hookName": "createRuntime", "path": "/bin/sh",
                "args": ["sh", "-c", format!("cat > {}", out.display())], "env": ["PATH=/usr/bin:/bin"]}],
        },
        "devices": [
            {"name": "0", "containerEdits": {"additionalGids": [4444], "env": ["GPU=0"], "deviceNodes": [
                {"path": "/dev/gpu0", "hostPath": device, "permissions": "r", "fileMode": 0o640, "uid": 7, "gid": 4444},
            ]}},
            {"name": "gone", "containerEdits": {"deviceNodes": [{"path": "/dev/reeve-no-such-device"}]}},
        ],
    });
    std::fs::write(dir.join("gpu.json"), spec.to_string()).unwrap();
    let named = |name: &str| cri::CdiDevice { name: name.to_owned() };
    let looks = "id -G; echo $DRIVER $GPU; stat -c '%a %u %g %t:%T' /dev/gpu0; cat /library/file; \
        grep ' /library ' /proc/mounts | cut -d' ' -f4; (: </dev/gpu0) && echo read; echo x >/dev/gpu0";
    let pod = wire.run(wire.pod("gpu")).await.unwrap();
    let by_field = cri::ContainerConfig { cdi_devices: vec![named("vendor.com/gpu=0")], ..script("field", looks) };
    let annotations = HashMap::from([("cdi.k8s.io/plugin_gpu".to_owned(), "vendor.com/gpu=0".to_owned())]);
    let by_note = cri::ContainerConfig { annotations, ..script("note", looks) };
    for config in [by_field, by_note] {
        let _ = std::fs::remove_file(&out);
        let (code, text) = wire.output(&pod, config).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["0 4444", "5 0", node.as_str(), "from the node"], "{text}");
        assert!(
            ["ro", "nosuid", "nodev", "noexec"].iter().all(|own| lines[4].split(',').any(|has| has == *own)),
            "{text}"
        );
        assert!(text.contains("\nread\n") && text.contains("Operation not permitted") && code != 0, "{text}");
        assert!(std::fs::read_to_string(&out).unwrap().contains("\"status\":\"creating\""), "its hook ran");
    }
    for (name, why) in [
        ("vendor.com/gpu=1", "CDI device injection failed: unresolvable CDI devices vendor.com/gpu=1"),
        ("gpu", "CDI device injection failed: invalid device name \"gpu\": must be vendor/class=name"),
        ("vendor.com/gpu=gone", "adding custom device \"/dev/reeve-no-such-device\": No such file or directory"),
    ] {
        let config = cri::ContainerConfig { cdi_devices: vec![named(name)], ..script("refused", "true") };
        let refused = wire.create(&pod, config).await.unwrap_err();
        assert!(refused.message().contains(why), "{refused:?}");
    }
    assert_eq!(wire.list(cri::ContainerFilter::default()).await.len(), 2, "nothing is left of those that were refused");
    wire.close().await;
}
