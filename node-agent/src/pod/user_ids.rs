//! Which ids of the node each pod with users of its own has (`hostUsers: false`).
//!
//! No two pods share an id, so that whoever breaks out of one is nobody in any other. A range belongs to its pod until
//! the pod's sandbox is gone, and stands in the pod's folder, in the kubelet's own file, for the next agent. Source:
//! kubelet `userns.UsernsManager`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use reeve_api::rng::{RngExt as _, SharedRng};
use reeve_engine::engine::UserNamespace;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Ids of one pod. Source: kubelet `DefaultKubeletUserNamespacesIDsPerPod`.
const IDS_PER_POD: u32 = 1 << 16;
/// The file in a pod's folder.
const FILE: &str = "userns";
/// Longest file that is read.
const FILE_LEN_MAX: u64 = 4096;
/// Whose subordinate ids are the pods'.
const KUBELET: &str = "kubelet";

/// Why a pod has no ids.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UserIdsError {
    /// The node's own set-up is wrong.
    #[error("kubelet mappings: {0}")]
    Node(String),
    /// All are taken.
    #[error("create user namespace: could not find an empty slot to allocate a user namespace")]
    Full,
    /// What stands in a pod's folder is of no use.
    #[error("user namespace: {0}")]
    File(String),
}

/// Ranges that pods may have: `slots` of [`IDS_PER_POD`] each, from number `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slots {
    first: u32,
    slots: u32,
}

impl Default for Slots {
    /// All ids but those of the node itself.
    fn default() -> Self {
        Self { first: 1, slots: (1 << 16) - 1 }
    }
}

impl Slots {
    /// What `first` id and `length` of subordinate ids come to, for a node of at most `max_pods` pods. Pure.
    fn of(first: u32, length: u32, max_pods: u32) -> Result<Self, String> {
        let unit = IDS_PER_POD;
        if !first.is_multiple_of(unit) {
            return Err(format!("kubelet user assigned ID {first} is not a multiple of {unit}"));
        }
        if first < unit {
            return Err(format!("kubelet user assigned ID {first} must be greater or equal to {unit}"));
        }
        if !length.is_multiple_of(unit) {
            return Err(format!("kubelet user assigned IDs length {length} is not a multiple of {unit}"));
        }
        if length / unit < max_pods {
            return Err(format!("kubelet user assigned IDs are not enough to support {max_pods} pods"));
        }
        Ok(Self { first: first / unit, slots: (length / unit).min((1 << 16) - first / unit) })
    }
}

/// The ids of all pods of the node.
#[derive(Debug)]
pub(crate) struct UserIds {
    slots: Result<Slots, String>,
    rng: SharedRng,
    /// By the pods' UIDs.
    taken: Mutex<BTreeMap<String, u32>>,
}

/// The kubelet's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl UserIds {
    /// Those of this node: the subordinate ids of the user `kubelet`, if there are such a user and `getsubids`; else
    /// all beyond the first 65,536.
    pub(crate) async fn of_node(max_pods: u32, rng: SharedRng) -> Self {
        let slots = match subordinate_ids().await {
            Ok(Some((first, length))) => Slots::of(first, length, max_pods),
            Ok(None) => Ok(Slots::default()),
            Err(error) => Err(error),
        };
        if let Err(error) = &slots {
            tracing::error!(error, "pods cannot have users of their own on this node");
        }
        Self { slots, rng, taken: Mutex::default() }
    }

    /// Those of a node on which nobody has set any up.
    #[cfg(test)]
    pub(crate) fn beyond_the_nodes(rng: SharedRng) -> Self {
        Self { slots: Ok(Slots::default()), rng, taken: Mutex::default() }
    }

    /// What a pod was given before this agent began. Reads its folder.
    pub(crate) fn recall(&self, uid: &str, dir: &Path) {
        if let Err(error) = self.remembered(uid, dir) {
            tracing::warn!(%error, uid, "passing over the ids of a pod");
        }
    }

    /// A pod's ids; the same ones until they are released. Reads and writes its folder.
    pub(crate) fn of_pod(&self, uid: &str, dir: &Path) -> Result<UserNamespace, UserIdsError> {
        if let Some(known) = self.remembered(uid, dir)? {
            return Ok(known);
        }
        let slots = self.slots.clone().map_err(UserIdsError::Node)?;
        let slot = self.take(uid, slots).ok_or(UserIdsError::Full)?;
        if let Err(error) = save(dir, slot) {
            self.release(uid);
            return Err(UserIdsError::File(format!("failed to write {}: {error}", dir.join(FILE).display())));
        }
        Ok(range(slot))
    }

    /// Gives a pod's ids back: nothing of it runs any more.
    pub(crate) fn release(&self, uid: &str) {
        self.with(|taken| taken.remove(uid));
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, u32>) -> T) -> T {
        f(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A free slot, anywhere: what another engine on this machine has is probably another one.
    fn take(&self, uid: &str, Slots { first, slots }: Slots) -> Option<u32> {
        let start = u32::try_from(self.rng.below(slots.into())).unwrap_or(0);
        self.with(|taken| {
            let used: std::collections::BTreeSet<u32> = taken.values().copied().collect();
            let free = (start..slots).chain(0..start).map(|slot| first + slot).find(|slot| !used.contains(slot))?;
            taken.insert(uid.to_owned(), free);
            Some(free)
        })
    }

    /// What stands in a pod's folder.
    fn remembered(&self, uid: &str, dir: &Path) -> Result<Option<UserNamespace>, UserIdsError> {
        if let Some(slot) = self.with(|taken| taken.get(uid).copied()) {
            return Ok(Some(range(slot)));
        }
        let path = dir.join(FILE);
        let bytes = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.len() > FILE_LEN_MAX => {
                return Err(UserIdsError::File("invalid user namespace mappings file: too long".to_owned()));
            }
            other => other.and_then(|_| std::fs::read(&path)).map_err(|error| UserIdsError::File(error.to_string()))?,
        };
        // A power cut leaves empty files; nothing runs then that could have ids.
        if bytes.is_empty() {
            return Ok(None);
        }
        let slot = slot_of(&bytes).map_err(UserIdsError::File)?;
        self.with(|taken| {
            if taken.values().any(|other| *other == slot) {
                return Err(UserIdsError::File(format!("range picked for pod {uid:?} already taken")));
            }
            taken.insert(uid.to_owned(), slot);
            Ok(Some(range(slot)))
        })
    }
}

/// A slot's ids; slots are numbers of 16 bits.
fn range(slot: u32) -> UserNamespace {
    UserNamespace { first: slot.wrapping_mul(IDS_PER_POD), length: IDS_PER_POD }
}

/// Reads the kubelet's file. Pure.
fn slot_of(bytes: &[u8]) -> Result<u32, String> {
    let file: Mappings =
        serde_json::from_slice(bytes).map_err(|error| format!("invalid user namespace mappings file: {error}"))?;
    let [mapping] = file.uid_mappings.as_slice() else {
        return Err("invalid user namespace configuration: no more than one mapping allowed.".to_owned());
    };
    if file.gid_mappings != file.uid_mappings {
        return Err("invalid user namespace configuration: GID and UID mapping should be identical".to_owned());
    }
    if mapping.container_id != 0 {
        return Err("invalid user namespace configuration: UID 0 must be mapped".to_owned());
    }
    if mapping.length != IDS_PER_POD {
        return Err(format!("wrong user namespace length {}", mapping.length));
    }
    if !mapping.host_id.is_multiple_of(IDS_PER_POD) || mapping.host_id == 0 {
        return Err(format!("wrong user namespace offset specified {}", mapping.host_id));
    }
    Ok(mapping.host_id / IDS_PER_POD)
}

/// Whole or not at all.
fn save(dir: &Path, slot: u32) -> io::Result<()> {
    let UserNamespace { first, length } = range(slot);
    let mapping = vec![Mapping { host_id: first, container_id: 0, length }];
    let text = serde_json::to_vec(&Mappings { uid_mappings: mapping.clone(), gid_mappings: mapping })?;
    let fresh = dir.join(format!("{FILE}.new"));
    std::fs::create_dir_all(dir)?;
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, dir.join(FILE))
}

/// First id and number of ids of the user `kubelet`. `None`: nobody has set any up. The user comes first: `getsubids`
/// may ask another machine, and nobody can tell an answer that did not come from one that says "none".
async fn subordinate_ids() -> Result<Option<(u32, u32)>, String> {
    let user = tokio::task::spawn_blocking(|| nix::unistd::User::from_name(KUBELET)).await;
    let user = user.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if user.is_none() {
        return Ok(None);
    }
    let mut answers = Vec::new();
    for (what, args) in [("uids", &[KUBELET][..]), ("gids", &["-g", KUBELET])] {
        let output = match Command::new("getsubids").args(args).kill_on_drop(true).output().await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => {
                other.map_err(|error| format!("error retrieving additional {what} for user {KUBELET:?}: {error}"))?
            }
        };
        if !output.status.success() {
            return Err(format!("error retrieving additional {what} for user {KUBELET:?}: {}", output.status));
        }
        answers.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    match answers.as_slice() {
        [uids, gids] if uids == gids => parse_subordinate_ids(uids).map(Some),
        _ => Err(format!("mismatched subuids and subgids for user {KUBELET:?}")),
    }
}

/// `0: kubelet 65536 2147483648`. Pure.
fn parse_subordinate_ids(text: &str) -> Result<(u32, u32), String> {
    let text = text.trim_matches('\n');
    if text.contains('\n') {
        return Err(format!("error parsing line {text:?}: it must contain only one line"));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [_, _, first, length] = fields.as_slice() else { return Err(format!("invalid line {text:?}")) };
    let number = |field: &str| field.parse().map_err(|error| format!("error parsing line {text:?}: {error}"));
    Ok((number(first)?, number(length)?))
}

#[cfg(test)]
mod tests {
    use reeve_api::rng::SeededRng;

    use super::*;

    fn ids(slots: u32) -> UserIds {
        UserIds { slots: Ok(Slots { first: 3, slots }), rng: SeededRng::shared(), taken: Mutex::default() }
    }

    #[test]
    fn no_two_pods_share_an_id_and_what_is_given_back_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |uid: &str| dir.path().join(uid);
        let ids = ids(3);
        let given: Vec<u32> = ["a", "b", "c"].map(|uid| ids.of_pod(uid, &folder(uid)).unwrap().first).into();
        let mut sorted = given.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [3 << 16, 4 << 16, 5 << 16]);
        assert_eq!(ids.of_pod("a", &folder("a")).unwrap().first, given[0], "the same ones as before");
        assert_eq!(ids.of_pod("d", &folder("d")), Err(UserIdsError::Full));
        ids.release("b");
        assert_eq!(ids.of_pod("d", &folder("d")).unwrap().first, given[1]);
    }

    #[test]
    fn the_next_agent_knows_what_every_pod_has() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let first = ids(2).of_pod("a", &a).unwrap();
        let next = ids(2);
        next.recall("a", &a);
        let other = next.of_pod("b", &b).unwrap();
        assert_ne!(other, first);
        assert_eq!(next.of_pod("a", &a).unwrap(), first);
        std::fs::write(a.join(FILE), r#"{"uidMappings":[],"gidMappings":[]}"#).unwrap();
        let error = ids(2).of_pod("a", &a).unwrap_err().to_string();
        assert_eq!(
            error, "user namespace: invalid user namespace configuration: no more than one mapping allowed.",
            "nobody gets another range while the old one may be in use"
        );
    }

    #[test]
    fn the_file_is_the_kubelets() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 7).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let one = r#"[{"hostId":458752,"containerId":0,"length":65536}]"#;
        assert_eq!(text, format!(r#"{{"uidMappings":{one},"gidMappings":{one}}}"#));
        assert_eq!(slot_of(text.as_bytes()), Ok(7));
        let wrong = text.replace("458752", "458753");
        assert_eq!(slot_of(wrong.as_bytes()).unwrap_err(), "wrong user namespace offset specified 458753");
    }

    #[test]
    fn subordinate_ids_are_read_as_the_kubelet_reads_them() {
        assert_eq!(parse_subordinate_ids("0: kubelet 65536 7208960\n"), Ok((65_536, 7_208_960)));
        assert!(parse_subordinate_ids("0: kubelet 1 2\n1: kubelet 3 4\n").unwrap_err().contains("only one line"));
        assert_eq!(Slots::of(65_536, 110 << 16, 110), Ok(Slots { first: 1, slots: 110 }));
        let refused = |first, length| Slots::of(first, length, 110).unwrap_err();
        assert_eq!(refused(0, 110 << 16), "kubelet user assigned ID 0 must be greater or equal to 65536");
        assert_eq!(refused(7, 110 << 16), "kubelet user assigned ID 7 is not a multiple of 65536");
        assert_eq!(refused(65_536, 109 << 16), "kubelet user assigned IDs are not enough to support 110 pods");
    }
}
