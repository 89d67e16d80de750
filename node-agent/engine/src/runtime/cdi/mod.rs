//! Devices of the Container Device Interface: named by whoever asks for a container, described in files of the node's
//! owner, which say what the container gets: device nodes, mounts, variables, groups, hooks.
//!
//! Source: the CDI specification, and how its own library finds and merges files.

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::spec::{Edits, Spec, is_name, parse};
use crate::engine::{ContainerConfig, Device, Mount, Propagation};

/// Where files are; a device of a later folder takes the place of one of an earlier folder.
pub const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// What annotations begin with that name devices, separated by commas.
pub const ANNOTATION: &str = "cdi.k8s.io/";
/// Longest file that is read, and how many of a folder.
const FILE_LEN_MAX: u64 = 4 << 20;
const FILES_MAX: usize = 256;

/// Why a container cannot have its devices. The texts are containerd's and the library's, as far as they have some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdiError {
    /// A name that names no device.
    #[error("CDI device injection failed: invalid device name {0:?}: must be vendor/class=name")]
    Name(String),
    /// Nobody describes them; or several files of one folder do, or the file that might cannot be used.
    #[error("CDI device injection failed: unresolvable CDI devices {devices}{because}")]
    Unresolvable {
        /// Their names.
        devices: String,
        /// What is wrong with files, if anything is.
        because: String,
    },
}

/// The devices that somebody asks for, by fields and by annotations, each once and in order.
#[must_use]
pub fn asked<'a>(
    named: impl Iterator<Item = &'a str>,
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<String> {
    let noted: BTreeMap<_, _> = annotations.filter(|(key, _)| key.starts_with(ANNOTATION)).collect();
    let noted = noted.into_values().flat_map(|value| value.split(','));
    let mut seen = BTreeSet::new();
    named.chain(noted).map(str::to_owned).filter(|name| seen.insert(name.clone())).collect()
}

/// Gives a container its devices. Reads the files; on an error nothing has changed.
///
/// # Errors
/// See [`CdiError`].
pub fn inject(dirs: &[PathBuf], devices: &[String], config: &mut ContainerConfig) -> Result<(), CdiError> {
    if devices.is_empty() {
        return Ok(());
    }
    if let Some(name) = devices.iter().find(|name| !is_qualified(name)) {
        return Err(CdiError::Name(name.clone()));
    }
    let found = Found::read(dirs);
    let missing: Vec<&str> =
        devices.iter().map(String::as_str).filter(|name| !found.devices.contains_key(*name)).collect();
    if !missing.is_empty() {
        let wrong: String = found.wrong.iter().map(|why| format!("; {why}")).collect();
        return Err(CdiError::Unresolvable { devices: missing.join(", "), because: wrong });
    }
    let mut shared = BTreeSet::new();
    for place in devices.iter().filter_map(|name| found.devices.get(name)) {
        let Some(spec) = found.specs.get(place.spec) else { continue };
        if shared.insert(place.spec) {
            apply(&spec.container_edits, config);
        }
        if let Some(device) = spec.devices.get(place.device) {
            apply(&device.container_edits, config);
        }
    }
    // What lies in something else comes after it.
    config.mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(())
}

fn is_qualified(name: &str) -> bool {
    let parts = name.split_once('=').and_then(|(kind, name)| Some((kind.split_once('/')?, name)));
    parts.is_some_and(|((vendor, class), name)| {
        is_name(vendor, "_-.", true) && is_name(class, "_-", true) && is_name(name, "_-.:", false)
    })
}

/// Where a device is described.
struct Place {
    spec: usize,
    device: usize,
}

/// What all files say.
#[derive(Default)]
struct Found {
    specs: Vec<Spec>,
    devices: BTreeMap<String, Place>,
    /// What is wrong with files.
    wrong: Vec<String>,
}

impl Found {
    fn read(dirs: &[PathBuf]) -> Self {
        let mut found = Self::default();
        for dir in dirs {
            found.read_dir(dir);
        }
        found
    }

    fn read_dir(&mut self, dir: &Path) {
        let is_spec = |path: &PathBuf| path.extension().is_some_and(|own| own == "json" || own == "yaml");
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_spec).take(FILES_MAX).collect();
        files.sort();
        let (mut own, mut twice) = (BTreeMap::new(), BTreeSet::new());
        for path in files {
            let spec = match read(&path) {
                Ok(spec) => spec,
                Err(why) => {
                    self.wrong.push(format!("{}: {why}", path.display()));
                    continue;
                }
            };
            for (device, described) in spec.devices.iter().enumerate() {
                let name = format!("{}={}", spec.kind, described.name);
                if own.insert(name.clone(), Place { spec: self.specs.len(), device }).is_some() {
                    self.wrong.push(format!("{}: conflicting device {name}", path.display()));
                    twice.insert(name);
                }
            }
            self.specs.push(spec);
        }
        self.devices.extend(own);
        self.devices.retain(|name, _| !twice.contains(name));
    }
}

fn read(path: &Path) -> Result<Spec, String> {
    // Before it is opened: a FIFO would not answer.
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > FILE_LEN_MAX {
        return Err(format!("not a file of at most {FILE_LEN_MAX} bytes"));
    }
    parse(&fs::read_to_string(path).map_err(|error| error.to_string())?)
}

/// What is there by the same name or at the same place makes way.
fn apply(edits: &Edits, config: &mut ContainerConfig) {
    for (name, value) in edits.env.iter().filter_map(|entry| entry.split_once('=')) {
        config.env.retain(|(own, _)| own != name);
        config.env.push((name.to_owned(), value.to_owned()));
    }
    for node in &edits.device_nodes {
        config.devices.retain(|own| own.target != node.path);
        config.devices.push(Device {
            source: node.host_path.clone().unwrap_or_else(|| node.path.clone()),
            target: node.path.clone(),
            permissions: node.permissions(),
            mode: node.file_mode,
            uid: node.uid,
            gid: node.gid,
        });
    }
    for shown in &edits.mounts {
        let has = |wanted: &[&str]| shown.options.iter().any(|own| wanted.contains(&own.as_str()));
        config.mounts.retain(|own| own.target != shown.container_path);
        config.mounts.push(Mount {
            source: shown.host_path.clone(),
            target: shown.container_path.clone(),
            read_only: has(&["ro"]),
            no_suid: has(&["nosuid"]),
            no_dev: has(&["nodev"]),
            no_exec: has(&["noexec"]),
            propagation: if has(&["shared", "rshared"]) {
                Propagation::Bidirectional
            } else if has(&["slave", "rslave"]) {
                Propagation::HostToContainer
            } else {
                Propagation::Private
            },
            ..Mount::default()
        });
    }
    config.hooks.extend(edits.hooks.iter().map(spec::WrittenHook::as_engine));
    for group in &edits.groups {
        if !config.security.supplemental_groups.contains(group) {
            config.security.supplemental_groups.push(*group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::hooks::Stage;

    const GPU: &str = "cdiVersion: 0.7.0
kind: vendor.com/gpu
containerEdits:
  env: [DRIVER=1]
  mounts: [{hostPath: /lib/driver, containerPath: /lib/driver, options: [ro, nosuid, nodev, rbind]}]
  hooks: [{hookName: createContainer, path: /bin/ldconfig, args: [ldconfig, -r]}]
devices:
- name: '0'
  containerEdits:
    env: [GPU=0]
    deviceNodes: [{path: /dev/gpu0, hostPath: /dev/null, permissions: rw, fileMode: 432, gid: 44}]
    additionalGids: [44]
- {name: '1', containerEdits: {env: [GPU=1]}}
";

    fn files(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let dirs = ["etc", "run"].map(|name| dir.path().join(name)).to_vec();
        (dir, dirs)
    }

    fn with(dirs: &[PathBuf], devices: &[&str]) -> Result<ContainerConfig, String> {
        let mut config =
            ContainerConfig { env: vec![("GPU".to_owned(), "none".to_owned())], ..ContainerConfig::default() };
        config.mounts.push(Mount { target: "/lib/driver/own".into(), ..Mount::default() });
        let devices: Vec<String> = devices.iter().map(|name| (*name).to_owned()).collect();
        inject(dirs, &devices, &mut config).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_container_gets_what_the_kind_and_its_devices_say_each_once() {
        let (_dir, dirs) = files(&[("etc/gpu.yaml", GPU)]);
        let config = with(&dirs, &["vendor.com/gpu=0", "vendor.com/gpu=1"]).unwrap();
        let env: Vec<_> = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["DRIVER=1", "GPU=1"], "the last word counts");
        let [device] = config.devices.as_slice() else { panic!("{:?}", config.devices) };
        assert_eq!(
            (device.source.as_path(), device.target.as_path()),
            (Path::new("/dev/null"), Path::new("/dev/gpu0"))
        );
        assert_eq!((device.permissions.as_str(), device.mode, device.gid), ("rw", Some(0o660), Some(44)));
        let [driver, own] = config.mounts.as_slice() else { panic!("{:?}", config.mounts) };
        assert_eq!(own.target, Path::new("/lib/driver/own"), "inside the other one");
        assert!(driver.read_only && driver.no_suid && driver.no_dev && !driver.no_exec);
        assert_eq!(config.security.supplemental_groups, [44]);
        assert_eq!(config.hooks.len(), 1);
        assert_eq!(
            (config.hooks[0].0, config.hooks[0].1.path.as_path()),
            (Stage::CreateContainer, Path::new("/bin/ldconfig"))
        );
    }

    #[test]
    fn a_later_folder_goes_before_and_two_files_of_one_folder_are_a_conflict() {
        let other = GPU.replace("GPU=0", "GPU=other");
        let (_dir, dirs) = files(&[("etc/gpu.yaml", GPU), ("run/gpu.json.yaml", &other)]);
        let config = with(&dirs, &["vendor.com/gpu=0"]).unwrap();
        assert!(config.env.contains(&("GPU".to_owned(), "other".to_owned())));
        let (_dir, dirs) = files(&[("etc/a.yaml", GPU), ("etc/b.yaml", GPU)]);
        let why = with(&dirs, &["vendor.com/gpu=0"]).unwrap_err();
        assert!(why.contains("b.yaml: conflicting device vendor.com/gpu=0"), "{why}");
    }

    #[test]
    fn a_device_that_nobody_describes_is_named_with_what_is_wrong_with_files() {
        let (dir, dirs) = files(&[("etc/gpu.yaml", GPU), ("run/broken.json", "{\"cdiVersion\": \"9\"")]);
        let why = with(&dirs, &["vendor.com/gpu=0", "vendor.com/gpu=7"]).unwrap_err();
        let start = "CDI device injection failed: unresolvable CDI devices vendor.com/gpu=7; ";
        assert!(why.starts_with(start) && why.contains("broken.json: "), "{why}");
        for name in ["gpu", "vendor.com/gpu", "vendor.com=0", "vendor.com/gpu=../0", "=", "v/c=", ""] {
            let why = with(&dirs, &[name]).unwrap_err();
            assert!(why.contains(&format!("invalid device name {name:?}")), "{why}");
        }
        nix::unistd::mkfifo(&dir.path().join("etc/fifo.yaml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(with(&dirs, &["vendor.com/gpu=1"]).is_ok(), "other files are no hindrance, and nobody waits for them");
        assert!(with(&[PathBuf::from("/none")], &[]).is_ok());
    }

    #[test]
    fn devices_are_asked_for_by_name_and_by_annotation() {
        let notes = [("cdi.k8s.io/b", "v.com/c=2,v.com/c=1"), ("other", "v.com/c=3"), ("cdi.k8s.io/a", "v.com/c=4")];
        assert_eq!(asked(["v.com/c=1"].into_iter(), notes.into_iter()), ["v.com/c=1", "v.com/c=4", "v.com/c=2"]);
    }
}
