//! What of a pod's resources the node has granted it, in memory and on disk.
//!
//! A pod runs with what it was granted, whatever its spec says meanwhile: everything but the decision about a resize
//! sees the pod as [`Allocation::applied`] shows it. Source: kubelet `allocation.Manager`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use super::resources::Amounts;
use super::state::{containers, spec};

/// The file in a pod's folder. It goes with the folder, when the pod ends.
const FILE: &str = "allocation.json";
/// Longest file that is read: far beyond a pod's resources.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Granted resources of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<ResourceRequirements>,
    /// By name of the container, init containers included.
    containers: BTreeMap<String, ResourceRequirements>,
}

impl Allocation {
    /// All that a pod says it wants.
    pub(crate) fn of(pod: &Pod) -> Self {
        let own = |container: &Container| container.resources.clone().unwrap_or_default();
        Self {
            pod: spec(pod).resources.clone(),
            containers: containers(spec(pod)).map(|(own_of, _)| (own_of.name.clone(), own(own_of))).collect(),
        }
    }

    /// The pod with what it was granted instead of what it wants; the very same where that is the same.
    pub(crate) fn applied(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let wanted = Self::of(pod);
        let of_pod = same(self.pod.as_ref(), wanted.pod.as_ref());
        let differs = |name: &String| {
            let granted = self.containers.get(name);
            granted.is_some_and(|granted| !same(Some(granted), wanted.containers.get(name)))
        };
        if of_pod && !wanted.containers.keys().any(differs) {
            return Arc::clone(pod);
        }
        let mut granted = Pod::clone(pod);
        if let Some(spec) = &mut granted.spec {
            if !of_pod {
                spec.resources.clone_from(&self.pod);
            }
            for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
                if let Some(granted) = self.containers.get(&container.name).filter(|_| differs(&container.name)) {
                    container.resources = Some(granted.clone());
                }
            }
        }
        Arc::new(granted)
    }

    /// What was granted before the agent's last end; `None` where nothing is known.
    pub(crate) fn load(dir: &Path) -> Option<Self> {
        let path = dir.join(FILE);
        if std::fs::metadata(&path).ok()?.len() > FILE_LEN_MAX {
            return None;
        }
        let read = std::fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        read.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "passing over an allocation")).ok()
    }

    /// Keeps it in the pod's folder, whole or not at all.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let (path, fresh) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        std::fs::create_dir_all(dir)?;
        std::fs::write(&fresh, serde_json::to_vec(self)?)?;
        std::fs::rename(fresh, path)
    }
}

/// Whether two say the same, however the amounts are written.
fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    let read = |list: Option<&Amounts>| -> BTreeMap<String, String> {
        let plain = |amount: &str| reeve_api::quantity::Quantity::canonical_text(amount).unwrap_or(amount.to_owned());
        list.into_iter().flatten().map(|(name, amount)| (name.clone(), plain(&amount.0))).collect()
    };
    let limits = |of: Option<&ResourceRequirements>| read(of.and_then(|own| own.limits.as_ref()));
    let requests = |of: Option<&ResourceRequirements>| read(of.and_then(|own| own.requests.as_ref()));
    limits(a) == limits(b) && requests(a) == requests(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str) -> Arc<Pod> {
        let resources = serde_json::json!({ "requests": { "cpu": cpu } });
        let init = serde_json::json!([{ "name": "i", "resources": resources }]);
        let spec = serde_json::json!({
            "initContainers": init,
            "containers": [{ "name": "c", "image": "a", "resources": resources }, { "name": "d" }],
        });
        Arc::new(serde_json::from_value(serde_json::json!({ "metadata": { "uid": "u" }, "spec": spec })).unwrap())
    }

    #[test]
    fn a_pod_keeps_what_it_was_granted_and_follows_its_spec_in_all_else() {
        let (before, after) = (pod("100m"), pod("200m"));
        let granted = Allocation::of(&before);
        assert!(Arc::ptr_eq(&granted.applied(&before), &before), "nothing is copied where nothing differs");
        let shown = granted.applied(&after);
        assert_eq!(Allocation::of(&shown), granted);
        let renamed = {
            let mut pod = Pod::clone(&after);
            pod.spec.as_mut().unwrap().containers[0].image = Some("b".to_owned());
            Arc::new(pod)
        };
        assert_eq!(spec(&granted.applied(&renamed)).containers[0].image.as_deref(), Some("b"));
    }

    #[test]
    fn another_way_to_write_an_amount_is_no_resize() {
        let other = pod("0.1");
        assert!(Arc::ptr_eq(&Allocation::of(&pod("100m")).applied(&other), &other));
    }

    #[test]
    fn an_allocation_survives_the_agent_and_a_torn_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Allocation::load(dir.path()), None);
        let granted = Allocation::of(&pod("100m"));
        granted.save(dir.path()).unwrap();
        assert_eq!(Allocation::load(dir.path()), Some(granted));
        std::fs::write(dir.path().join(FILE), "{\"pod\":").unwrap();
        assert_eq!(Allocation::load(dir.path()), None);
    }
}
