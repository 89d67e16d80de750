//! How much disk a volume uses, and which volumes may use only so much.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PodSpec;
use reeve_api::quantity::Quantity;

use super::Mounted;

/// Bytes of a block as `stat` counts them, whatever the file system.
const BLOCK_LEN: u64 = 512;

/// An emptyDir on disk with a `sizeLimit`. Those in memory are limited by their file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) volume: String,
    pub(crate) path: PathBuf,
    pub(crate) limit: Quantity,
}

/// The volumes of a pod that somebody has to look after.
pub(crate) fn limited(spec: &PodSpec, mounted: &Mounted) -> Vec<Limited> {
    let of = |volume: &k8s_openapi::api::core::v1::Volume| {
        let source = volume.empty_dir.as_ref().filter(|source| source.medium.as_deref().unwrap_or_default().is_empty());
        let limit: Quantity = source?.size_limit.as_ref()?.0.parse().ok()?;
        let path = mounted.get(&volume.name)?.path.clone();
        (!limit.is_zero()).then(|| Limited { volume: volume.name.clone(), path, limit })
    };
    spec.volumes.iter().flatten().filter_map(of).collect()
}

/// Why a pod whose volume holds so many bytes is evicted; `None` while it may stay.
/// Source: kubelet `emptyDirLimitEviction`, its final blank included.
pub(crate) fn excess(limited: &Limited, used_bytes: u64) -> Option<String> {
    let over = i64::try_from(used_bytes).unwrap_or(i64::MAX) > limited.limit.value();
    over.then(|| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", limited.volume, limited.limit))
}

/// Bytes that a folder and everything in it occupy, as `du -x` counts them: holes are free, a file with several names
/// counts once, links are not followed, other file systems are left out. What goes away meanwhile is passed over.
pub(crate) fn disk_usage(dir: &Path) -> io::Result<u64> {
    let top = fs::symlink_metadata(dir)?;
    let mut total = top.blocks() * BLOCK_LEN;
    let mut seen: HashSet<u64> = HashSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() || meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino()) {
                continue;
            }
            total = total.saturating_add(meta.blocks() * BLOCK_LEN);
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::super::MountedVolume;
    use super::*;

    #[test]
    fn only_volumes_on_disk_with_a_limit_are_looked_after() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({ "containers": [], "volumes": [
            { "name": "free", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            { "name": "disk", "emptyDir": { "sizeLimit": "1Mi" } },
        ]}))
        .unwrap();
        let volume = |name: &str| (name.to_owned(), MountedVolume { path: name.into(), read_only: false });
        let mounted = Mounted::from(["free", "memory", "disk"].map(volume));
        let found = limited(&spec, &mounted);
        assert_eq!(found.iter().map(|one| one.volume.as_str()).collect::<Vec<_>>(), ["disk"]);
        assert_eq!(excess(&found[0], 1 << 20), None);
        let message = "Usage of EmptyDir volume \"disk\" exceeds the limit \"1Mi\". ";
        assert_eq!(excess(&found[0], (1 << 20) + 1).as_deref(), Some(message));
    }

    #[test]
    fn usage_counts_blocks_once_and_follows_no_links() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("big"), vec![1; 4 << 20]).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("sub/file"), dir.path().join("again")).unwrap();
        fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("link")).unwrap();
        let used = disk_usage(dir.path()).unwrap();
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
    }
}
