//! A file that describes devices of one kind: what a container gets that is to have one. Read strictly, pure.
//!
//! Source: the Container Device Interface specification, versions 0.3.0 to 1.0.0.

use std::path::PathBuf;

use serde::Deserialize;

use crate::runtime::hooks::{Hook, Stage};

const VERSIONS: [&str; 7] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    cdi_version: String,
    pub(super) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde::de::IgnoredAny,
    pub(super) devices: Vec<Described>,
    /// For each of its devices.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// One device.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Described {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde::de::IgnoredAny,
    pub(super) container_edits: Edits,
}

/// What changes in a container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Shown>,
    pub(super) hooks: Vec<WrittenHook>,
    #[serde(rename = "additionalGids")]
    pub(super) groups: Vec<u32>,
    intel_rdt: Option<serde::de::IgnoredAny>,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: String,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) file_mode: Option<u32>,
    permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

impl Node {
    pub(super) fn permissions(&self) -> String {
        self.permissions.clone().filter(|given| !given.is_empty()).unwrap_or_else(|| "rwm".to_owned())
    }
}

/// A folder or file of the node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Shown {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

/// A program of the node that runs while the container comes and goes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenHook {
    hook_name: Stage,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    timeout: Option<u64>,
}

impl WrittenHook {
    pub(super) fn as_engine(&self) -> (Stage, Hook) {
        let (path, args, env) = (self.path.clone(), self.args.clone(), self.env.clone());
        (self.hook_name, Hook { path, args, env, timeout: self.timeout })
    }
}

/// Options of mounts that are known, beside `ro` and its like.
const MOUNT_OPTIONS: [&str; 14] = [
    "bind", "rbind", "ro", "rw", "private", "rprivate", "slave", "rslave", "shared", "rshared", "nosuid", "nodev",
    "noexec", "dev",
];

/// Reads a file, as YAML, of which JSON is a part.
pub(super) fn parse(text: &str) -> Result<Spec, String> {
    let spec: Spec = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if !VERSIONS.contains(&spec.cdi_version.as_str()) {
        return Err(format!("invalid version {:?}: must be one of {}", spec.cdi_version, VERSIONS.join(", ")));
    }
    match spec.kind.split_once('/') {
        Some((vendor, class)) if is_name(vendor, "_-.", true) && is_name(class, "_-", true) => {}
        _ => return Err(format!("invalid kind {:?}: must be vendor/class", spec.kind)),
    }
    if spec.devices.is_empty() {
        return Err("invalid spec, no devices".to_owned());
    }
    check(&spec.container_edits)?;
    for (index, device) in spec.devices.iter().enumerate() {
        let name = &device.name;
        let wrong = |why: String| format!("invalid device {name:?}: {why}");
        if !is_name(name, "_-.:", false) {
            return Err(wrong("not a name".to_owned()));
        }
        if spec.devices.iter().take(index).any(|other| other.name == *name) {
            return Err(wrong("there are several of that name".to_owned()));
        }
        check(&device.container_edits).map_err(wrong)?;
    }
    Ok(spec)
}

/// Letters and digits at both ends, and some more characters between them.
pub(super) fn is_name(name: &str, between: &str, letter_first: bool) -> bool {
    let is_in = |c: char| c.is_ascii_alphanumeric() || between.contains(c);
    let first = |c: char| if letter_first { c.is_ascii_alphabetic() } else { c.is_ascii_alphanumeric() };
    name.starts_with(first) && name.ends_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_in)
}

fn check(edits: &Edits) -> Result<(), String> {
    let is_variable = |entry: &&String| entry.find('=').is_some_and(|at| at > 0);
    if let Some(entry) = edits.env.iter().find(|entry| !is_variable(entry)) {
        return Err(format!("invalid environment variable {entry:?}"));
    }
    edits.device_nodes.iter().try_for_each(check_node)?;
    edits.mounts.iter().try_for_each(check_mount)?;
    for hook in &edits.hooks {
        let path = hook.path.display();
        if !hook.path.is_absolute() {
            return Err(format!("invalid hook {path}: not an absolute path"));
        }
        if hook.timeout == Some(0) {
            return Err(format!("invalid hook {path}: timeout must be greater than zero"));
        }
        if let Some(entry) = hook.env.iter().find(|entry| !is_variable(entry)) {
            return Err(format!("invalid hook {path}: invalid environment variable {entry:?}"));
        }
    }
    match edits.intel_rdt {
        Some(_) => Err("intelRdt is not supported".to_owned()),
        None => Ok(()),
    }
}

fn check_node(node: &Node) -> Result<(), String> {
    let wrong = |why: String| Err(format!("invalid device node {}: {why}", node.path.display()));
    if !node.path.is_absolute() || node.host_path.as_ref().is_some_and(|path| !path.is_absolute()) {
        return wrong("not an absolute path".to_owned());
    }
    if !matches!(node.kind.as_str(), "" | "b" | "c" | "u") {
        return wrong(format!("type {:?} is not supported", node.kind));
    }
    match node.permissions().chars().find(|c| !"rwm".contains(*c)) {
        Some(other) => wrong(format!("permission {other:?} is none of r, w, m")),
        None => Ok(()),
    }
}

fn check_mount(mount: &Shown) -> Result<(), String> {
    let wrong = |why: String| Err(format!("invalid mount {}: {why}", mount.container_path.display()));
    if !mount.host_path.is_absolute() || !mount.container_path.is_absolute() {
        return wrong(format!("{} and its place must be absolute paths", mount.host_path.display()));
    }
    if !matches!(mount.kind.as_str(), "" | "bind" | "none") {
        return wrong(format!("type {:?} is not supported", mount.kind));
    }
    match mount.options.iter().find(|option| !MOUNT_OPTIONS.contains(&option.as_str())) {
        Some(option) => wrong(format!("option {option:?} is not supported")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(version: &str, kind: &str, edits: &str) -> Result<Spec, String> {
        parse(&format!("cdiVersion: {version}\nkind: {kind}\ndevices: [{{name: one, containerEdits: {edits}}}]\n"))
    }

    #[test]
    fn every_version_is_read_as_yaml_and_as_json() {
        for version in VERSIONS {
            assert!(spec(version, "vendor.com/gpu", "{env: [A=b]}").is_ok(), "{version}");
        }
        let json = r#"{"cdiVersion": "0.6.0", "kind": "v.com/net-1", "annotations": {"a": "b"},
            "devices": [{"name": "0", "annotations": {"c": "d"}, "containerEdits": {"env": ["A="]}}]}"#;
        assert_eq!(parse(json).unwrap().devices[0].container_edits.env, ["A="]);
    }

    #[test]
    fn what_a_file_may_not_say_is_refused_with_the_reason() {
        let edits = |edits: &str| spec("0.7.0", "v.com/c", edits).unwrap_err();
        for (said, why) in [
            (spec("1.1.0", "v.com/c", "{}").unwrap_err(), "invalid version \"1.1.0\""),
            (spec("0.7.0", "v.com", "{}").unwrap_err(), "invalid kind \"v.com\": must be vendor/class"),
            (spec("0.7.0", "-v/c", "{}").unwrap_err(), "invalid kind"),
            (parse("cdiVersion: 0.7.0\nkind: v.com/c\ndevices: []\n").unwrap_err(), "no devices"),
            (parse("[]").unwrap_err(), "invalid type"),
            (edits("{env: [=x]}"), "invalid environment variable \"=x\""),
            (edits("{deviceNodes: [{path: dev/x}]}"), "invalid device node dev/x: not an absolute path"),
            (edits("{deviceNodes: [{path: /dev/x, permissions: rx}]}"), "permission 'x' is none of r, w, m"),
            (edits("{deviceNodes: [{path: /dev/x, type: p}]}"), "type \"p\" is not supported"),
            (edits("{mounts: [{hostPath: /a, containerPath: b}]}"), "must be absolute paths"),
            (edits("{mounts: [{hostPath: /a, containerPath: /b, type: tmpfs}]}"), "type \"tmpfs\" is not supported"),
            (edits("{mounts: [{hostPath: /a, containerPath: /b, options: [x]}]}"), "option \"x\" is not supported"),
            (edits("{hooks: [{hookName: createRuntime, path: x}]}"), "invalid hook x: not an absolute path"),
            (edits("{hooks: [{hookName: later, path: /x}]}"), "unknown variant `later`"),
            (edits("{intelRdt: {closID: a}}"), "intelRdt is not supported"),
            (edits("{netDevices: []}"), "unknown field `netDevices`"),
        ] {
            assert!(said.contains(why), "{said} does not say {why}");
        }
        let twice = "cdiVersion: 0.7.0\nkind: v.com/c\ndevices:\n- {name: a, containerEdits: {}}\n- {name: a, containerEdits: {}}\n";
        assert!(parse(twice).unwrap_err().contains("several of that name"));
    }
}
