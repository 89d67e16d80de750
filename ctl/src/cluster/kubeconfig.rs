//! The user's kubeconfig: our context goes in and comes out, everything else stays as it was.
//!
//! Edits a YAML tree, never a typed structure, so that what we do not know survives. Follows client-go: which
//! file of `$KUBECONFIG` is written, the lock file beside it, mode 0600. The context that was current before
//! ours is kept as an extension of our context, so that `down --purge` can restore it.
//!
//! Under sudo the file is touched with the invoking user's own rights ([`super::as_user`]): it lies in folders of
//! theirs, and no link in them can make root read or write anything that they could not.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::as_user::AsUser;
use super::error::{ClusterError, at};
use super::files;
use super::kubeconfig_lock::Lock;

/// Name of the extension that remembers the former current context.
const FORMER: &str = "reeve.dev/former-context";

/// One cluster's entry: how to reach it and who the admin is. PEM texts.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Name of cluster, user and context, `reeve-dev`.
    pub name: String,
    /// `https://127.0.0.1:6443`
    pub server: String,
    /// The cluster CA.
    pub ca_pem: String,
    /// The admin's certificate.
    pub cert_pem: String,
    /// The admin's key.
    pub key_pem: String,
}

/// Whose kubeconfig is meant: under sudo the invoking user's.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Their home folder.
    pub home: PathBuf,
    /// Who they are, when they are not who this process is.
    pub user: Option<nix::unistd::User>,
}

impl Owner {
    /// Reads `SUDO_UID` and the user database; else `$HOME`.
    pub(crate) fn current() -> Self {
        let uid = std::env::var("SUDO_UID").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        if uid != 0
            && nix::unistd::geteuid().is_root()
            && let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
        {
            return Self { home: user.dir.clone(), user: Some(user) };
        }
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        Self { home, user: None }
    }
}

/// The file that client-go would write: the first of `$KUBECONFIG` that exists, else its last, else `~/.kube/config`.
pub(crate) fn file_to_write(kubeconfig_env: Option<&OsStr>, owner: &Owner) -> PathBuf {
    let listed: Vec<PathBuf> = kubeconfig_env
        .map(|list| std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    let existing = listed.iter().find(|path| path.exists()).or_else(|| listed.last()).cloned();
    existing.unwrap_or_else(|| owner.home.join(".kube/config"))
}

/// The context that is current for whoever calls: in `file`, else in the first file of `$KUBECONFIG` that says one,
/// else in `~/.kube/config`; under sudo the invoking user's.
pub(crate) fn current_context(file: Option<&Path>) -> Result<Option<String>, ClusterError> {
    let owner = Owner::current();
    let _user = owner.user.as_ref().map(AsUser::become_user).transpose()?;
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let listed = std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty());
    let mut files: Vec<PathBuf> = file.map_or_else(|| listed.collect(), |file| vec![file.to_owned()]);
    if files.is_empty() {
        files.push(owner.home.join(".kube/config"));
    }
    for path in files {
        let tree = read(&path)?;
        let current = tree.get("current-context").and_then(Value::as_str).filter(|name| !name.is_empty());
        if let Some(current) = current {
            return Ok(Some(current.to_owned()));
        }
    }
    Ok(None)
}

/// A kubeconfig that holds nothing but this entry.
pub(crate) fn standalone(entry: &Entry) -> Result<String, ClusterError> {
    let mut tree = Value::Mapping(Mapping::new());
    insert(&mut tree, entry);
    print(&tree, Path::new("admin.kubeconfig"))
}

/// Puts the entry into the file and makes its context current.
pub(crate) fn merge(path: &Path, entry: &Entry, owner: &Owner) -> Result<(), ClusterError> {
    edit(path, owner, |tree| insert(tree, entry))
}

/// Takes the entry out of the file and restores the context that was current before it. Returns whether it was there.
pub(crate) fn remove(path: &Path, name: &str, owner: &Owner) -> Result<bool, ClusterError> {
    if !path.exists() {
        return Ok(false);
    }
    let mut was_there = false;
    edit(path, owner, |tree| {
        if let Value::Mapping(root) = &*tree {
            was_there = ["clusters", "users", "contexts"].iter().any(|list| named(root, list, name).is_some());
        }
        withdraw(tree, name);
    })?;
    Ok(was_there)
}

/// Changes a kubeconfig: waits for its lock, replaces it at once, leaves it to its owner.
pub(crate) fn edit(path: &Path, owner: &Owner, change: impl FnOnce(&mut Value)) -> Result<(), ClusterError> {
    let _user = owner.user.as_ref().map(AsUser::become_user).transpose()?;
    // A link stays a link: the file behind it is replaced.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::create_dir_all(folder).map_err(|err| ClusterError::io(at("create", folder), err))?;
    }
    let _lock = Lock::take(path)?;
    let mut tree = read(path)?;
    let before = tree.clone();
    change(&mut tree);
    if tree == before && path.exists() {
        return Ok(());
    }
    let former = std::fs::metadata(path).ok();
    files::replace(path, print(&tree, path)?.as_bytes(), 0o600)
        .map_err(|err| ClusterError::io(at("write", path), err))?;
    match former {
        Some(former) if nix::unistd::geteuid().is_root() && owner.user.is_none() => give_back(path, &former),
        _ => Ok(()),
    }
}

/// A file that root replaced stays that of the user it belonged to.
fn give_back(path: &Path, former: &std::fs::Metadata) -> Result<(), ClusterError> {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    // Never what a link leads to: the folder may be the user's, who may exchange the file meanwhile.
    lchown(path, Some(former.uid()), Some(former.gid()))
        .map_err(|err| ClusterError::io(at("change the owner of", path), err))
}

fn read(path: &Path) -> Result<Value, ClusterError> {
    let refuse = |reason: String| ClusterError::Kubeconfig { path: path.to_path_buf(), reason };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(err) if err.kind() == ErrorKind::NotFound => String::new(),
        Err(err) => return Err(refuse(err.to_string())),
    };
    let tree: Value = serde_yaml::from_str(&text).map_err(|err| refuse(err.to_string()))?;
    match tree {
        Value::Null => Ok(Value::Mapping(Mapping::new())),
        Value::Mapping(map) => {
            for list in ["clusters", "users", "contexts"] {
                if !matches!(map.get(list), None | Some(Value::Null | Value::Sequence(_))) {
                    return Err(refuse(format!("{list:?} is not a list")));
                }
            }
            Ok(Value::Mapping(map))
        }
        _ => Err(refuse("it is not a YAML mapping".to_owned())),
    }
}

fn print(tree: &Value, path: &Path) -> Result<String, ClusterError> {
    serde_yaml::to_string(tree)
        .map_err(|err| ClusterError::Kubeconfig { path: path.to_path_buf(), reason: err.to_string() })
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

fn mapping<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Mapping(entries.into_iter().map(|(key, value)| (text(key), value)).collect())
}

fn insert(tree: &mut Value, entry: &Entry) {
    use base64::Engine as _;
    let base64 = |pem: &str| text(base64::engine::general_purpose::STANDARD.encode(pem));
    let Value::Mapping(root) = tree else { return };
    root.entry(text("apiVersion")).or_insert_with(|| text("v1"));
    root.entry(text("kind")).or_insert_with(|| text("Config"));
    root.entry(text("preferences")).or_insert_with(|| Value::Mapping(Mapping::new()));
    let former = former_context(root, &entry.name);
    let cluster = mapping([("certificate-authority-data", base64(&entry.ca_pem)), ("server", text(&entry.server))]);
    let user =
        mapping([("client-certificate-data", base64(&entry.cert_pem)), ("client-key-data", base64(&entry.key_pem))]);
    let extension = mapping([("name", text(FORMER)), ("extension", mapping([("context", text(former))]))]);
    let context = mapping([
        ("cluster", text(&entry.name)),
        ("extensions", Value::Sequence(vec![extension])),
        ("user", text(&entry.name)),
    ]);
    put(root, "clusters", &entry.name, "cluster", cluster);
    put(root, "users", &entry.name, "user", user);
    put(root, "contexts", &entry.name, "context", context);
    root.insert(text("current-context"), text(&entry.name));
}

/// What to restore later: the current context, or what ours already remembers when ours is current.
fn former_context(root: &Mapping, name: &str) -> String {
    let current = root.get("current-context").and_then(Value::as_str).unwrap_or_default();
    if current == name {
        return remembered(root, name).unwrap_or_default();
    }
    current.to_owned()
}

fn named<'v>(root: &'v Mapping, list: &str, name: &str) -> Option<&'v Value> {
    root.get(list)?.as_sequence()?.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(name))
}

fn remembered(root: &Mapping, name: &str) -> Option<String> {
    let extensions = named(root, "contexts", name)?.get("context")?.get("extensions")?.as_sequence()?;
    let own = extensions.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(FORMER))?;
    own.get("extension")?.get("context")?.as_str().map(str::to_owned)
}

fn put(root: &mut Mapping, list: &str, name: &str, field: &str, value: Value) {
    let items = root.entry(text(list)).or_insert_with(|| Value::Sequence(Vec::new()));
    if items.is_null() {
        *items = Value::Sequence(Vec::new());
    }
    let Some(items) = items.as_sequence_mut() else { return };
    let item = mapping([("name", text(name)), (field, value)]);
    match items.iter_mut().find(|item| item.get("name").and_then(Value::as_str) == Some(name)) {
        Some(own) => *own = item,
        None => items.push(item),
    }
}

fn withdraw(tree: &mut Value, name: &str) {
    let Value::Mapping(root) = tree else { return };
    let former = remembered(root, name).unwrap_or_default();
    for list in ["clusters", "users", "contexts"] {
        if let Some(items) = root.get_mut(list).and_then(Value::as_sequence_mut) {
            items.retain(|item| item.get("name").and_then(Value::as_str) != Some(name));
        }
    }
    forget(root, name, &former);
    if root.get("current-context").and_then(Value::as_str) == Some(name) {
        let restored = if named(root, "contexts", &former).is_some() { former } else { String::new() };
        root.insert(text("current-context"), text(restored));
    }
}

/// Other contexts of ours that would restore `name` restore what `name` would have restored.
fn forget(root: &mut Mapping, name: &str, former: &str) {
    let Some(contexts) = root.get_mut("contexts").and_then(Value::as_sequence_mut) else { return };
    for context in contexts {
        let extensions = context.get_mut("context").and_then(|context| context.get_mut("extensions"));
        let Some(extensions) = extensions.and_then(Value::as_sequence_mut) else { continue };
        for extension in extensions {
            let own = extension.get("name").and_then(Value::as_str) == Some(FORMER);
            let slot = extension.get_mut("extension").and_then(|extension| extension.get_mut("context"));
            if let Some(slot) = slot.filter(|slot| own && slot.as_str() == Some(name)) {
                *slot = text(former);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: 'https://w', odd-field: 7}\ncontexts:\n- name: work\n  context: {cluster: work, user: me, namespace: team}\nusers:\n- name: me\n  user: {exec: {command: login}}\n";

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            server: "https://127.0.0.1:6443".to_owned(),
            ca_pem: "ca".to_owned(),
            cert_pem: "cert".to_owned(),
            key_pem: "key".to_owned(),
        }
    }

    fn owner(home: &Path) -> Owner {
        Owner { home: home.to_path_buf(), user: None }
    }

    fn tree(path: &Path) -> Value {
        serde_yaml::from_str(&std::fs::read_to_string(path).expect("readable")).expect("YAML")
    }

    #[test]
    fn merging_and_removing_leaves_foreign_entries_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, FOREIGN).expect("written");
        let before = tree(&path);
        merge(&path, &entry("reeve-dev"), &owner(folder.path())).expect("merged");
        assert_eq!(tree(&path)["current-context"].as_str(), Some("reeve-dev"));
        assert_eq!(tree(&path)["clusters"][0], before["clusters"][0]);
        remove(&path, "reeve-dev", &owner(folder.path())).expect("removed");
        let mut after = tree(&path);
        after.as_mapping_mut().expect("a mapping").remove("preferences");
        assert_eq!(after, before);
    }

    #[test]
    fn purging_in_any_order_restores_the_first_context() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, FOREIGN).expect("written");
        let owner = owner(folder.path());
        merge(&path, &entry("reeve-a"), &owner).expect("merged");
        merge(&path, &entry("reeve-b"), &owner).expect("merged");
        merge(&path, &entry("reeve-b"), &owner).expect("merged twice");
        remove(&path, "reeve-a", &owner).expect("removed");
        assert_eq!(tree(&path)["current-context"].as_str(), Some("reeve-b"));
        remove(&path, "reeve-b", &owner).expect("removed");
        assert_eq!(tree(&path)["current-context"].as_str(), Some("work"));
    }

    #[test]
    fn a_file_that_does_not_parse_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "clusters: {").expect("written");
        let refused = merge(&path, &entry("reeve-dev"), &owner(folder.path()));
        assert!(matches!(refused, Err(ClusterError::Kubeconfig { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "clusters: {");
        assert!(!folder.path().join("config.lock").exists());
    }

    #[test]
    fn a_new_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/config");
        merge(&path, &entry("reeve-dev"), &owner(folder.path())).expect("merged");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_file_written_is_the_one_client_go_would_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = owner(folder.path());
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let list = std::env::join_paths([&a, &b]).expect("a list");
        assert_eq!(file_to_write(Some(&list), &owner), b);
        std::fs::write(&a, "").expect("written");
        assert_eq!(file_to_write(Some(&list), &owner), a);
        assert_eq!(file_to_write(None, &owner), folder.path().join(".kube/config"));
    }
}
