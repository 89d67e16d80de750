//! What a cluster may not leave behind: looked for on the machine itself, not asked of `reeve`.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::processes;

/// How deep below `/sys/fs/cgroup` a cluster's groups are looked for.
const CGROUP_DEPTH_MAX: usize = 8;

/// What is known of a cluster while it lives.
#[derive(Debug, Clone)]
pub(crate) struct Traces {
    /// The cluster's name.
    pub(crate) name: String,
    /// Its number on the machine: links are called `rvNUMBER…`.
    pub(crate) index: u64,
    /// Its data folder.
    pub(crate) data_dir: PathBuf,
    /// Its network namespace, if it has one of its own. As long as it is held no other gets its number.
    pub(crate) network: Option<Arc<File>>,
}

impl Traces {
    /// What is known of one that perhaps never came up: without its number and its network.
    pub(crate) fn of_name(name: &str, data_dir: PathBuf) -> Self {
        Self { name: name.to_owned(), index: u64::MAX, data_dir, network: None }
    }

    /// Everything that is still there, one line each.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let run_dir = Path::new("/run/reeve");
        for path in [self.data_dir.clone(), run_dir.join(&self.name), run_dir.join(format!("{}.lock", self.name))] {
            if path.exists() {
                left.push(format!("file {}", path.display()));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = |line: &&str| {
            line.contains(&format!("/{}/", self.name)) || line.contains(&*self.data_dir.to_string_lossy())
        };
        left.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
        let mut groups = Vec::new();
        cgroups(Path::new("/sys/fs/cgroup"), &format!("reeve-{}", self.name), CGROUP_DEPTH_MAX, &mut groups);
        left.extend(groups.iter().map(|path| format!("cgroup {}", path.display())));
        let network = self.network.as_ref().and_then(|network| network.metadata().ok());
        let inside = network.map(|network| processes::in_network(network.ino())).unwrap_or_default();
        left.extend(inside.iter().map(|process| format!("process {process:?}")));
        let named = processes::all(|process| {
            process.command.contains(&format!("/{}/", self.name))
                || process.command.contains(&format!("--name {} ", self.name))
        });
        left.extend(named.iter().map(|process| format!("process {process:?}")));
        left.extend(links(self.index).iter().map(|name| format!("link {name}")));
        left
    }
}

fn cgroups(dir: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == name {
            found.push(entry.path());
        } else {
            cgroups(&entry.path(), name, depth, found);
        }
    }
}

/// Links of that cluster in this network namespace: with `--netns` there is none at any time.
fn links(index: u64) -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ours = |name: &String| {
        let rest = name.strip_prefix(&format!("rv{index}"));
        rest.is_some_and(|rest| !rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    names.filter(ours).collect()
}
