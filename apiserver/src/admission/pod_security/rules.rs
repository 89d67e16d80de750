//! The checks themselves. Pure; texts as in `k8s.io/pod-security-admission/policy`. Each gets a pod or a template.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{Check, Violation};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Kernel parameters that are safe; the number tells how many were in each version.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Volumes that the restricted level takes, and the names of those that it does not.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const RESTRICTED_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

/// Whose setting is wrong: the pod's own, or those of containers.
#[derive(Default)]
struct Setters<'p> {
    pod: bool,
    containers: Vec<&'p str>,
}

impl<'p> Setters<'p> {
    /// Those whose security context `is_bad`.
    fn of(pod: &'p Value, is_bad: impl Fn(&Value) -> bool) -> Self {
        Self {
            pod: is_bad(&pod["spec"]["securityContext"]),
            containers: bad_containers(pod, |one| is_bad(&one["securityContext"])),
        }
    }

    fn is_empty(&self) -> bool {
        !self.pod && self.containers.is_empty()
    }

    /// `pod and container "a"`
    fn text(&self) -> String {
        let pod = self.pod.then(|| "pod".to_owned());
        let containers = (!self.containers.is_empty()).then(|| containers_text(&self.containers));
        pod.into_iter().chain(containers).collect::<Vec<_>>().join(" and ")
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

fn bad_containers(pod: &Value, is_bad: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|container| is_bad(container)).map(name).collect()
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<T> = items.into_iter().collect();
    if items.is_empty() {
        return String::new();
    }
    format!("\"{}\"", items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("\", \""))
}

fn plural(singular: &str, number: usize) -> String {
    if number == 1 { singular.to_owned() } else { format!("{singular}s") }
}

fn uses(number: usize) -> &'static str {
    if number == 1 { "uses" } else { "use" }
}

/// `containers "a", "b"`
fn containers_text(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

fn violation(reason: &str, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail: detail.into() })
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The check, unless the pod has users of its own.
pub(super) fn in_host_users(pod: &Value, check: Check) -> Option<Violation> {
    if pod["spec"]["hostUsers"] == false { None } else { check(pod) }
}

/// The check, unless the pod is one of Windows, which knows no such setting.
pub(super) fn unless_windows(pod: &Value, check: Check) -> Option<Violation> {
    if pod["spec"]["os"]["name"] == "windows" { None } else { check(pod) }
}

pub(super) fn privilege_escalation(pod: &Value) -> Option<Violation> {
    let bad = bad_containers(pod, |one| one["securityContext"]["allowPrivilegeEscalation"] != false);
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_text(&bad));
    violation("allowPrivilegeEscalation != false", detail)
}

pub(super) fn app_armor(pod: &Value) -> Option<Violation> {
    let kind = |context: &Value| context["appArmorProfile"]["type"].as_str().map(str::to_owned);
    let bad_kind = |context: &Value| {
        let is_set = context["appArmorProfile"].is_object();
        let kind = kind(context).unwrap_or_default();
        (is_set && !matches!(kind.as_str(), "RuntimeDefault" | "Localhost")).then_some(kind)
    };
    let setters = Setters::of(pod, |context| bad_kind(context).is_some());
    let contexts = containers(pod).map(|one| &one["securityContext"]).chain([&pod["spec"]["securityContext"]]);
    let mut values: Vec<String> = contexts.filter_map(bad_kind).collect::<BTreeSet<_>>().into_iter().collect();
    let mut annotations: Vec<String> = annotations(pod)
        .filter(|(key, value)| {
            let is_fine = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !is_fine
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = if setters.is_empty() { Vec::new() } else { vec![setters.text()] };
    if !annotations.is_empty() {
        annotations.sort();
        who.push(plural("annotation", annotations.len()));
        values.append(&mut annotations);
    }
    if who.is_empty() {
        return None;
    }
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values));
    violation(&plural("forbidden AppArmor profile", values.len()), detail)
}

fn annotations(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let all = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    all.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

pub(super) fn capabilities_baseline(pod: &Value) -> Option<Violation> {
    let added = |one: &Value| -> BTreeSet<String> {
        let added = texts(&one["securityContext"]["capabilities"]["add"]);
        added.filter(|own| !CAPABILITIES.contains(own)).map(str::to_owned).collect()
    };
    let bad = bad_containers(pod, |one| !added(one).is_empty());
    if bad.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = containers(pod).flat_map(added).collect();
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", containers_text(&bad), quoted(all));
    violation("non-default capabilities", detail)
}

pub(super) fn capabilities_restricted(pod: &Value) -> Option<Violation> {
    let capabilities = |one: &'_ Value| one["securityContext"]["capabilities"].clone();
    let missing = bad_containers(pod, |one| !texts(&capabilities(one)["drop"]).any(|own| own == "ALL"));
    let added = |one: &Value| -> BTreeSet<String> {
        texts(&capabilities(one)["add"]).filter(|own| *own != "NET_BIND_SERVICE").map(str::to_owned).collect()
    };
    let adding = bad_containers(pod, |one| !added(one).is_empty());
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers_text(&missing)));
    }
    if !adding.is_empty() {
        let all: BTreeSet<String> = containers(pod).flat_map(added).collect();
        let (who, what) = (containers_text(&adding), quoted(all));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn host_namespaces(pod: &Value) -> Option<Violation> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod["spec"][*field] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["volumes"].as_array().into_iter().flatten()
}

pub(super) fn host_path_volumes(pod: &Value) -> Option<Violation> {
    let bad: Vec<&str> = volumes(pod).filter(|volume| !volume["hostPath"].is_null()).map(name).collect();
    if bad.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", bad.len()), quoted(bad)))
}

pub(super) fn host_ports(pod: &Value) -> Option<Violation> {
    let ports = |one: &Value| -> BTreeSet<String> {
        let ports = one["ports"].as_array().into_iter().flatten();
        let taken = ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0);
        taken.map(|port| port.to_string()).collect()
    };
    let bad = bad_containers(pod, |one| !ports(one).is_empty());
    if bad.is_empty() {
        return None;
    }
    let all: Vec<String> = containers(pod).flat_map(ports).collect::<BTreeSet<_>>().into_iter().collect();
    let (who, what) = (containers_text(&bad), plural("hostPort", all.len()));
    violation("hostPort", format!("{who} {} {what} {}", uses(bad.len()), all.join(", ")))
}

pub(super) fn host_probes(pod: &Value) -> Option<Violation> {
    let hosts = |one: &Value| -> BTreeSet<String> {
        let handlers = [
            &one["livenessProbe"],
            &one["readinessProbe"],
            &one["startupProbe"],
            &one["lifecycle"]["postStart"],
            &one["lifecycle"]["preStop"],
        ];
        let hosts = handlers.iter().flat_map(|one| [&one["httpGet"]["host"], &one["tcpSocket"]["host"]]);
        hosts.filter_map(Value::as_str).filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let bad: BTreeSet<&str> = bad_containers(pod, |one| !hosts(one).is_empty()).into_iter().collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let all: BTreeSet<String> = containers(pod).flat_map(hosts).collect();
    let what = plural("probe or lifecycle host", all.len());
    let detail = format!("{} {} {what} {}", containers_text(&bad), uses(bad.len()), quoted(all));
    violation("probe or lifecycle host", detail)
}

pub(super) fn privileged(pod: &Value) -> Option<Violation> {
    let bad = bad_containers(pod, |one| one["securityContext"]["privileged"] == true);
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers_text(&bad)))
}

pub(super) fn proc_mount(pod: &Value) -> Option<Violation> {
    let mount = |one: &Value| {
        one["securityContext"]["procMount"].as_str().filter(|mount| *mount != "Default").map(str::to_owned)
    };
    let bad = bad_containers(pod, |one| mount(one).is_some());
    if bad.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = containers(pod).filter_map(mount).collect();
    let detail = format!("{} must not set securityContext.procMount to {}", containers_text(&bad), quoted(all));
    violation("procMount", detail)
}

pub(super) fn restricted_volumes(pod: &Value) -> Option<Violation> {
    let has = |volume: &Value, kinds: &[&'static str]| kinds.iter().find(|kind| !volume[**kind].is_null()).copied();
    let bad: Vec<&Value> = volumes(pod).filter(|volume| has(volume, &VOLUMES).is_none()).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> =
        bad.iter().map(|volume| has(volume, &RESTRICTED_VOLUMES).unwrap_or("unknown")).collect();
    let (which, number) = (quoted(bad.iter().map(|volume| name(volume))), bad.len());
    let what = plural("restricted volume type", kinds.len());
    let detail = format!("{} {which} {} {what} {}", plural("volume", number), uses(number), quoted(kinds));
    violation("restricted volume types", detail)
}

pub(super) fn run_as_non_root(pod: &Value) -> Option<Violation> {
    let field = "runAsNonRoot";
    let setters = Setters::of(pod, |context| context[field] == false);
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.text());
        return violation("runAsNonRoot != true", detail);
    }
    let is_set = pod["spec"]["securityContext"][field] == true;
    let bad = bad_containers(pod, |one| !is_set && one["securityContext"][field].is_null());
    if bad.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", containers_text(&bad));
    violation("runAsNonRoot != true", detail)
}

pub(super) fn run_as_user(pod: &Value) -> Option<Violation> {
    let setters = Setters::of(pod, |context| context["runAsUser"] == 0);
    if setters.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{} must not set runAsUser=0", setters.text()))
}

pub(super) fn se_linux(pod: &Value) -> Option<Violation> {
    se_linux_with(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn se_linux_1_31(pod: &Value) -> Option<Violation> {
    se_linux_with(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux_with(pod: &Value, allowed: &[&str]) -> Option<Violation> {
    fn text<'v>(context: &'v Value, field: &str) -> &'v str {
        context["seLinuxOptions"][field].as_str().unwrap_or_default()
    }
    let bad_type = |context: &Value| !allowed.contains(&text(context, "type"));
    let is_set = |context: &Value, field: &str| !text(context, field).is_empty();
    let is_bad = |context: &Value| bad_type(context) || is_set(context, "user") || is_set(context, "role");
    let setters = Setters::of(pod, is_bad);
    if setters.is_empty() {
        return None;
    }
    let contexts: Vec<&Value> =
        containers(pod).map(|one| &one["securityContext"]).chain([&pod["spec"]["securityContext"]]).collect();
    let types: BTreeSet<&str> =
        contexts.iter().filter(|context| bad_type(context)).map(|context| text(context, "type")).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", types.len()), quoted(types)));
    }
    for field in ["user", "role"] {
        if contexts.iter().any(|context| is_set(context, field)) {
            data.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.text(), data.join("; "));
    violation("seLinuxOptions", detail)
}

pub(super) fn seccomp_annotations(pod: &Value) -> Option<Violation> {
    let is_fine =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let of_container = |one: &Value| format!("container.seccomp.security.alpha.kubernetes.io/{}", name(one));
    let keys: Vec<String> =
        containers(pod).map(of_container).chain(["seccomp.security.alpha.kubernetes.io/pod".to_owned()]).collect();
    let bad: BTreeSet<String> = annotations(pod)
        .filter(|(key, value)| keys.iter().any(|own| own == key) && !is_fine(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let all = bad.iter().cloned().collect::<Vec<_>>().join(", ");
    violation("seccompProfile", format!("forbidden {} {all}", plural("annotation", bad.len())))
}

/// The profile's type when it is one that is not allowed.
fn bad_seccomp(context: &Value) -> Option<String> {
    let profile = &context["seccompProfile"];
    let kind = profile["type"].as_str().unwrap_or_default();
    (profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
}

pub(super) fn seccomp_baseline(pod: &Value) -> Option<Violation> {
    let setters = Setters::of(pod, |context| bad_seccomp(context).is_some());
    if setters.is_empty() {
        return None;
    }
    let contexts = containers(pod).map(|one| &one["securityContext"]).chain([&pod["spec"]["securityContext"]]);
    let values: BTreeSet<String> = contexts.filter_map(bad_seccomp).collect();
    let detail = format!("{} must not set securityContext.seccompProfile.type to {}", setters.text(), quoted(values));
    violation("seccompProfile", detail)
}

pub(super) fn seccomp_restricted(pod: &Value) -> Option<Violation> {
    let explicit = seccomp_baseline(pod);
    if explicit.is_some() {
        return explicit;
    }
    let is_set = pod["spec"]["securityContext"]["seccompProfile"].is_object();
    let bad = bad_containers(pod, |one| !is_set && !one["securityContext"]["seccompProfile"].is_object());
    if bad.is_empty() {
        return None;
    }
    let who = containers_text(&bad);
    let detail =
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    violation("seccompProfile", detail)
}

pub(super) fn sysctls_1_0(pod: &Value) -> Option<Violation> {
    sysctls(pod, 5)
}

pub(super) fn sysctls_1_27(pod: &Value) -> Option<Violation> {
    sysctls(pod, 6)
}

pub(super) fn sysctls_1_29(pod: &Value) -> Option<Violation> {
    sysctls(pod, 10)
}

pub(super) fn sysctls_1_32(pod: &Value) -> Option<Violation> {
    sysctls(pod, SYSCTLS.len())
}

fn sysctls(pod: &Value, allowed: usize) -> Option<Violation> {
    let set = pod["spec"]["securityContext"]["sysctls"].as_array().into_iter().flatten().map(name);
    let bad: Vec<&str> = set.filter(|own| !SYSCTLS.iter().take(allowed).any(|safe| safe == own)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

pub(super) fn windows_host_process(pod: &Value) -> Option<Violation> {
    let setters = Setters::of(pod, |context| context["windowsOptions"]["hostProcess"] == true);
    if setters.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.text());
    violation("hostProcess", detail)
}

#[cfg(test)]
mod tests;
