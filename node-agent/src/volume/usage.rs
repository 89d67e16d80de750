//! Which volumes may use only so much disk.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::PodSpec;
use reeve_api::quantity::Quantity;

use super::Mounted;

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

/// The folders of a pod's volumes that count as what it writes itself: each emptyDir on disk.
/// Source: kubelet `IsLocalEphemeralVolume`.
pub(crate) fn scratch(spec: &PodSpec, mounted: &Mounted) -> Vec<PathBuf> {
    let on_disk = |volume: &&k8s_openapi::api::core::v1::Volume| {
        let source = volume.empty_dir.as_ref();
        source.is_some_and(|source| source.medium.as_deref().unwrap_or_default().is_empty())
    };
    let volumes = spec.volumes.iter().flatten().filter(on_disk);
    volumes.filter_map(|volume| Some(mounted.get(&volume.name)?.path.clone())).collect()
}

/// Why a pod whose volume holds so many bytes is evicted; `None` while it may stay.
/// Source: kubelet `emptyDirLimitEviction`, its final blank included.
pub(crate) fn excess(limited: &Limited, used_bytes: u64) -> Option<String> {
    let over = i64::try_from(used_bytes).unwrap_or(i64::MAX) > limited.limit.value();
    over.then(|| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", limited.volume, limited.limit))
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
        assert_eq!(scratch(&spec, &mounted), ["free", "disk"].map(PathBuf::from));
        assert_eq!(excess(&found[0], 1 << 20), None);
        let message = "Usage of EmptyDir volume \"disk\" exceeds the limit \"1Mi\". ";
        assert_eq!(excess(&found[0], (1 << 20) + 1).as_deref(), Some(message));
    }
}
