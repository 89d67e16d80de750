//! What a person asks for besides: `crictl info`, `inspect`, `inspectp` and `inspecti`. Scripts read it, and know
//! containerd's shape: the same names say the same here, and what we do not have is not there. Pure.

use std::collections::HashMap;

use reeve_engine::engine::{
    Container, ContainerConfig, ContainerState, Mount, NamespaceMode, Propagation, Resources, Sandbox, UserNamespace,
};
use reeve_proto::cri::PodSandboxConfig;
use serde_json::{Map, Value, json};

use crate::convert::{container, sandbox};

/// Version of the OCI's specification whose words are used.
const OCI_VERSION: &str = "1.2.0";
/// What unpacks images and merges them.
const SNAPSHOTTER: &str = "overlayfs";
/// The one kind of runtime that there is.
const RUNTIME_TYPE: &str = "reeve";

/// Under the name that `crictl` shows it by.
pub(super) fn told(info: &Value) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// A container. `image` is its image's configuration, where that is known.
pub(super) fn of_container(own: &Container, pod: Option<&Sandbox>, image: Option<&Value>) -> Value {
    let pid = match own.state {
        ContainerState::Running { pid, .. } => pid,
        _ => 0,
    };
    json!({
        "sandboxID": own.sandbox,
        "pid": pid,
        "removing": false,
        "snapshotKey": own.id,
        "snapshotter": SNAPSHOTTER,
        "runtimeType": RUNTIME_TYPE,
        "config": config(own),
        "runtimeSpec": spec(own, pod, image, pid),
        "privileged": own.config.security.privileged,
    })
}

/// What it was asked to be: the fields of CRI's own message, but for those that the OCI's words tell.
fn config(own: &Container) -> Value {
    let asked = container::request(own).config.unwrap_or_default();
    let metadata = asked.metadata.unwrap_or_default();
    let envs = asked.envs.iter().map(|env| json!({"key": env.key, "value": String::from_utf8_lossy(&env.value)}));
    let mounts = asked.mounts.iter().map(|mount| {
        json!({"container_path": mount.container_path, "host_path": mount.host_path, "readonly": mount.readonly,
            "image": mount.image.as_ref().map(|image| json!({"image": image.image}))})
    });
    json!({
        "metadata": {"name": metadata.name, "attempt": metadata.attempt},
        "image": {"image": asked.image.map(|image| image.image)},
        "command": asked.command,
        "args": asked.args,
        "working_dir": asked.working_dir,
        "envs": envs.collect::<Vec<_>>(),
        "mounts": mounts.collect::<Vec<_>>(),
        "labels": asked.labels,
        "annotations": asked.annotations,
        "log_path": asked.log_path,
        "stdin": asked.stdin,
        "stdin_once": asked.stdin_once,
        "tty": asked.tty,
    })
}

/// As an OCI runtime would have been told. What is inside is found through its process: nothing of it is mounted on
/// the node.
fn spec(own: &Container, pod: Option<&Sandbox>, image: Option<&Value>, pid: i32) -> Value {
    let config = &own.config;
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": process(own, image.map_or(&Value::Null, |image| &image["config"])),
        "root": {"readonly": config.security.read_only_rootfs},
        "mounts": config.mounts.iter().map(mount).collect::<Vec<_>>(),
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": config.name,
            "io.kubernetes.cri.image-name": own.image_id,
            "io.kubernetes.cri.sandbox-id": own.sandbox,
        },
        "linux": {"resources": resources(&config.resources), "namespaces": []},
    });
    if pid > 0 {
        spec["root"]["path"] = json!(format!("/proc/{pid}/root"));
    }
    if let Some(pod) = pod {
        let about = &pod.config;
        spec["hostname"] = json!(about.hostname);
        for (name, value) in [("name", &about.name), ("namespace", &about.namespace), ("uid", &about.uid)] {
            spec["annotations"][format!("io.kubernetes.cri.sandbox-{name}")] = json!(value);
        }
        spec["linux"]["namespaces"] = namespaces(pod, config.pid.unwrap_or(about.pid), pid).into();
    }
    spec
}

fn process(own: &Container, image: &Value) -> Value {
    let config = &own.config;
    let user = own.user.as_ref();
    let folders = [config.working_dir.as_str(), image["WorkingDir"].as_str().unwrap_or_default(), "/"];
    let folder = folders.into_iter().find(|dir| !dir.is_empty());
    json!({
        "terminal": config.tty,
        "user": {
            "uid": user.map_or(0, |user| user.uid),
            "gid": user.map_or(0, |user| user.gid),
            "additionalGids": user.map(|user| user.groups.clone()).unwrap_or_default(),
        },
        "args": arguments(config, image),
        "env": environment(config, image),
        "cwd": folder,
        "noNewPrivileges": config.security.no_new_privs,
        "oomScoreAdj": config.resources.oom_score_adj,
    })
}

/// A list of texts, or a single one.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        other => other.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

/// A command drops the image's arguments with its entrypoint.
fn arguments(config: &ContainerConfig, image: &Value) -> Vec<String> {
    let (entrypoint, given) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (texts(&image["Entrypoint"]), texts(&image["Cmd"])),
        (true, false) => (texts(&image["Entrypoint"]), config.args.clone()),
        (false, _) => (config.command.clone(), config.args.clone()),
    };
    entrypoint.into_iter().chain(given).collect()
}

fn environment(config: &ContainerConfig, image: &Value) -> Vec<String> {
    let is_given = |own: &String| config.env.iter().any(|(key, _)| own.split('=').next() == Some(key));
    let images = texts(&image["Env"]).into_iter().filter(|own| !is_given(own));
    images.chain(config.env.iter().map(|(key, value)| format!("{key}={value}"))).collect()
}

fn mount(own: &Mount) -> Value {
    let propagation = match own.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    match &own.image {
        Some(image) => json!({"destination": own.target, "type": "overlay", "source": image.image, "options": ["ro"]}),
        None => json!({"destination": own.target, "type": "bind", "source": own.source,
            "options": ["rbind", propagation, if own.read_only { "ro" } else { "rw" }]}),
    }
}

fn resources(own: &Resources) -> Value {
    json!({
        "cpu": {"shares": own.cpu_shares, "quota": own.cpu_quota_us, "period": own.cpu_period_us,
            "cpus": own.cpuset_cpus, "mems": own.cpuset_mems},
        "memory": {"limit": own.memory_limit_bytes, "swap": own.memory_swap_bytes},
        "pids": {"limit": own.pids_max},
    })
}

/// Those that are not the node's; the network's has a place of its own, the others are those of the process.
fn namespaces(pod: &Sandbox, pids: NamespaceMode, pid: i32) -> Vec<Value> {
    let about = &pod.config;
    let of = |kind: &str, file: &str| match pid {
        0 => json!({"type": kind}),
        pid => json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}),
    };
    let mut all = vec![of("mount", "mnt")];
    if pids != NamespaceMode::Node {
        all.push(of("pid", "pid"));
    }
    if !about.host_ipc {
        all.push(of("ipc", "ipc"));
    }
    if !about.host_network {
        all.push(of("uts", "uts"));
    }
    if about.user_namespace.is_some() {
        all.push(of("user", "user"));
    }
    all.extend(pod.netns.as_ref().map(|path| json!({"type": "network", "path": path})));
    all
}

/// A pod; `network` is what its plugins said. A process that does nothing but hold its namespaces there is not: whoever
/// wants to enter them gets the first process of its oldest container that runs.
pub(super) fn of_sandbox(own: &Sandbox, network: Option<&Value>, containers: &[Container]) -> Value {
    let running = containers.iter().filter_map(|container| match container.state {
        ContainerState::Running { started_at, pid } if container.sandbox == own.id => Some((started_at, pid)),
        _ => None,
    });
    let about = &own.config;
    let asked = sandbox::request(own);
    let mappings = |users: UserNamespace| json!([{"containerID": 0, "hostID": users.first, "size": users.length}]);
    let users = about.user_namespace.map(mappings);
    json!({
        "pid": running.min().map_or(0, |(_, pid)| pid),
        "runtimeHandler": asked.runtime_handler,
        "runtimeType": RUNTIME_TYPE,
        "config": pod_config(&asked.config.unwrap_or_default()),
        "runtimeSpec": {
            "ociVersion": OCI_VERSION,
            "hostname": about.hostname,
            "linux": {"cgroupsPath": about.cgroup, "sysctl": about.sysctls, "namespaces": namespaces(own, about.pid, 0),
                "uidMappings": users, "gidMappings": users, "resources": resources(&about.resources)},
        },
        "cniResult": network.map(interfaces),
    })
}

/// What it was asked to be; see [`config`].
fn pod_config(asked: &PodSandboxConfig) -> Value {
    let metadata = asked.metadata.clone().unwrap_or_default();
    let ports = asked.port_mappings.iter().map(|port| {
        json!({"container_port": port.container_port, "host_port": port.host_port, "host_ip": port.host_ip,
            "protocol": port.protocol})
    });
    let dns = asked.dns_config.as_ref();
    json!({
        "metadata": {"name": metadata.name, "uid": metadata.uid, "namespace": metadata.namespace,
            "attempt": metadata.attempt},
        "hostname": asked.hostname,
        "log_directory": asked.log_directory,
        "dns_config": dns.map(|dns| json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options})),
        "port_mappings": ports.collect::<Vec<_>>(),
        "labels": asked.labels,
        "annotations": asked.annotations,
        "linux": asked.linux.as_ref().map(|own| json!({"cgroup_parent": own.cgroup_parent, "sysctls": own.sysctls})),
    })
}

/// A result of the CNI specification as libcni's callers tell it: by interface.
fn interfaces(result: &Value) -> Value {
    let of = |name: &str| result[name].as_array().cloned().unwrap_or_default();
    let mut all = Map::new();
    for (at, own) in of("interfaces").iter().enumerate() {
        let addresses = of("ips").into_iter().filter(|ip| ip["interface"].as_u64() == u64::try_from(at).ok());
        let addresses = addresses.map(|ip| {
            let address = ip["address"].as_str().unwrap_or_default();
            json!({"IP": address.split('/').next(), "Gateway": ip["gateway"].as_str().unwrap_or_default()})
        });
        let told = json!({"IPConfigs": addresses.collect::<Vec<_>>(), "Mac": own["mac"], "Sandbox": own["sandbox"]});
        all.insert(own["name"].as_str().unwrap_or_default().to_owned(), told);
    }
    json!({"Interfaces": all, "DNS": result["dns"], "Routes": result["routes"]})
}

/// An image, by the document of its configuration.
pub(super) fn of_image(document: &Value) -> Value {
    json!({"chainID": chain(&texts(&document["rootfs"]["diff_ids"])), "imageSpec": document})
}

/// The digest of all layers upon each other. Source: OCI image specification, "Layer ChainID".
fn chain(layers: &[String]) -> String {
    let mut layers = layers.iter();
    let lowest = layers.next().cloned().unwrap_or_default();
    layers.fold(lowest, |below, layer| {
        let hash = ring::digest::digest(&ring::digest::SHA256, format!("{below} {layer}").as_bytes());
        let digits: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    })
}

#[cfg(test)]
mod tests {
    use reeve_engine::engine::{ProcessUser, SandboxConfig, SandboxState};

    use super::*;

    fn pod() -> Sandbox {
        let config = SandboxConfig {
            name: "web".to_owned(),
            hostname: "web".to_owned(),
            cgroup: "/kubepods/u1".to_owned(),
            ..SandboxConfig::default()
        };
        Sandbox {
            id: "s".to_owned(),
            config,
            state: SandboxState::Ready,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            netns: Some("/run/x/netns".into()),
            ips: Vec::new(),
        }
    }

    fn container(config: ContainerConfig) -> Container {
        Container {
            id: "c".to_owned(),
            sandbox: "s".to_owned(),
            config,
            image_id: "x@sha256:2".to_owned(),
            user: Some(ProcessUser { uid: 7, gid: 8, groups: vec![9] }),
            state: ContainerState::Running { started_at: jiff::Timestamp::UNIX_EPOCH, pid: 42 },
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn scripts_find_what_they_look_for_where_containerd_has_it() {
        let image =
            json!({"config": {"Entrypoint": ["run"], "Cmd": ["all"], "Env": ["A=1", "B=2"], "WorkingDir": "/w"}});
        let config = ContainerConfig { env: vec![("A".to_owned(), "3".to_owned())], ..ContainerConfig::default() };
        let info = of_container(&container(config), Some(&pod()), Some(&image));
        let spec = &info["runtimeSpec"];
        assert_eq!((&info["pid"], &spec["root"]["path"]), (&json!(42), &json!("/proc/42/root")));
        let process = &spec["process"];
        assert_eq!((&process["args"], &process["env"]), (&json!(["run", "all"]), &json!(["B=2", "A=3"])));
        assert_eq!((&process["cwd"], &process["user"]["additionalGids"]), (&json!("/w"), &json!([9])));
        let network = json!({"type": "network", "path": "/run/x/netns"});
        for namespaces in
            [&spec["linux"]["namespaces"], &of_sandbox(&pod(), None, &[])["runtimeSpec"]["linux"]["namespaces"]]
        {
            assert!(namespaces.as_array().expect("a list").contains(&network), "{namespaces}");
        }
        assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-name"], json!("web"));
        let own = container(ContainerConfig::default());
        assert_eq!(of_sandbox(&pod(), None, &[own])["pid"], json!(42));
        assert_eq!(info["config"]["envs"], json!([{"key": "A", "value": "3"}]));
        assert_eq!(of_sandbox(&pod(), None, &[])["config"]["linux"]["cgroup_parent"], json!("/kubepods/u1"));
    }

    #[test]
    fn a_command_takes_the_place_of_the_images_arguments_too() {
        let image = json!({"Entrypoint": ["run"], "Cmd": ["all"]});
        let of = |command: &[&str], args: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let config = ContainerConfig { command: words(command), args: words(args), ..ContainerConfig::default() };
            arguments(&config, &image).join(" ")
        };
        assert_eq!((of(&[], &[]), of(&[], &["one"])), ("run all".to_owned(), "run one".to_owned()));
        assert_eq!((of(&["sh"], &[]), of(&["sh"], &["-c"])), ("sh".to_owned(), "sh -c".to_owned()));
    }

    #[test]
    fn addresses_are_told_by_interface() {
        let result = json!({
            "interfaces": [{"name": "cni0", "mac": "m0"}, {"name": "eth0", "mac": "m1", "sandbox": "/run/x/netns"}],
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1}],
        });
        let told = &of_sandbox(&pod(), Some(&result), &[])["cniResult"]["Interfaces"];
        assert_eq!(told["eth0"]["IPConfigs"], json!([{"IP": "10.1.0.5", "Gateway": "10.1.0.1"}]));
        assert_eq!((&told["cni0"]["IPConfigs"], &told["eth0"]["Sandbox"]), (&json!([]), &json!("/run/x/netns")));
    }

    #[test]
    fn layers_upon_each_other_have_one_digest() {
        let layers = ["sha256:a", "sha256:b"].map(str::to_owned);
        assert_eq!(chain(&layers[..1]), "sha256:a");
        assert_eq!(chain(&layers), "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8");
        assert_eq!(chain(&[]), "");
    }
}
