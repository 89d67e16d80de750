//! What a server keeps of itself in its data folder: `server.json`. With the certificates and the store beside it that
//! is everything it needs to start again.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use reeve_apiserver::join::{Record, Settings};
use serde::{Deserialize, Serialize};

use super::super::error::{ClusterError, at};
use super::super::etcd::EtcdChoice;
use super::super::store::StoreChoices;
use super::super::{CONFIG_FILE, files};

pub(super) const FILE: &str = "server.json";
/// Locked as long as the server runs.
pub(super) const LOCK: &str = "server.lock";

/// What stands in the file. Unknown fields are refused: a newer Reeve wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Place {
    /// How this server has introduced itself.
    pub own: Record,
    /// How far it has come.
    pub stage: Stage,
    /// What all servers agree upon; known once it has joined.
    pub settings: Option<Settings>,
    /// Everybody, this server included, as far as it has heard.
    #[serde(default)]
    pub members: Vec<Record>,
    /// What its store keeps, and the backups that it makes.
    #[serde(default, skip_serializing_if = "StoreChoices::is_default")]
    pub store: StoreChoices,
    /// Where clients of etcd reach its store, if they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_port: Option<u16>,
    /// The etcd that holds the state, if it does not lie in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdChoice>,
}

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    /// It is made of a backup, and nobody has been here yet. Next: `Member`.
    Restored,
    /// It has settled a control plane whose state is to lie in an etcd, and claims that. Next: `Member`.
    Claiming,
    /// It has chosen its number and asks to be taken in. Next: `Learning`, or `Member` where nobody votes.
    Asking,
    /// It has the keys, and gets the data. Next: `Member`.
    Learning,
    /// It votes, or its state lies in an etcd and nobody does.
    Member,
    /// It was taken out for good. There is no way back: the folder is of no use.
    Removed,
}

/// A server's data folder, which no other process uses.
pub(super) struct Folder {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Makes the folder if it is missing, and takes it.
    pub(super) fn open(dir: &Path) -> Result<Self, ClusterError> {
        let dir = super::super::data_dir::resolve(dir)?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|err| ClusterError::io(at("create", &dir), err))?;
        let path = dir.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|err| ClusterError::io(at("open", &path), err))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, err)| match err {
            nix::errno::Errno::EWOULDBLOCK => ClusterError::Told(format!(
                "another server uses {} already: give this one another --data-dir",
                dir.display()
            )),
            err => ClusterError::io(at("lock", &path), err),
        })?;
        Ok(Self { dir, _lock: lock })
    }

    /// A path in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder, for people.
    pub(super) fn shown(&self) -> std::path::Display<'_> {
        self.dir.display()
    }

    /// What stands there; `None`: no server has been here.
    pub(super) fn load(&self) -> Result<Option<Place>, ClusterError> {
        load(&self.dir)
    }

    /// Refuses a folder in which something else lies than what a server has that has never run.
    pub(super) fn check_unused(&self) -> Result<(), ClusterError> {
        let dir = self.dir.display();
        let entries = std::fs::read_dir(&self.dir).map_err(|err| ClusterError::io(at("list", &self.dir), err))?;
        let names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        if names.iter().any(|name| name == CONFIG_FILE) {
            return Err(ClusterError::Told(format!(
                "{dir} holds a cluster that `reeve up` has made. A server of it is made by way of a backup: `reeve \
                 backup FILE --data-dir {dir}`, then `reeve restore FILE --as server --data-dir NEW`"
            )));
        }
        // A file that was being replaced (`files::replace`).
        let cut_short = |name: &str| name.starts_with(FILE) && name.ends_with(".tmp");
        let foreign = names.iter().find(|name| !["lost+found", LOCK].contains(&name.as_str()) && !cut_short(name));
        match foreign {
            None => Ok(()),
            Some(name) => Err(ClusterError::Told(format!(
                "{dir} is not empty (it has {name:?}) and holds no server: give this one another --data-dir"
            ))),
        }
    }

    /// Keeps it, atomically.
    pub(super) fn save(&self, place: &Place) -> Result<(), ClusterError> {
        let text = serde_json::to_vec_pretty(place).map_err(|err| ClusterError::component("server file", err))?;
        let path = self.join(FILE);
        files::replace(&path, &text, 0o600).map_err(|err| ClusterError::io(at("write", &path), err))
    }

    /// Takes it back: no server has been here.
    pub(super) fn forget(&self) -> Result<(), ClusterError> {
        let path = self.join(FILE);
        std::fs::remove_file(&path).map_err(|err| ClusterError::io(at("remove", &path), err))
    }
}

/// What stands in a server's folder; `None`: no server has been there.
pub(super) fn load(dir: &Path) -> Result<Option<Place>, ClusterError> {
    let path = dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(ClusterError::io(at("read", &path), err)),
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|err| ClusterError::Invalid {
        what: "server file",
        value: path.display().to_string(),
        rule: err.to_string(),
    })
}

impl Place {
    /// Of a server that is to be.
    pub(super) fn new(own: Record, stage: Stage, settings: Option<Settings>) -> Self {
        let (members, store) = (Vec::new(), StoreChoices::default());
        Self { own, stage, settings, members, store, etcd_port: None, etcd: None }
    }

    /// What all servers agree upon.
    pub(super) fn settings(&self) -> Result<&Settings, ClusterError> {
        let missing = || ClusterError::component("server", "it has not joined yet");
        self.settings.as_ref().ok_or_else(missing)
    }

    /// Whether it has come no further than to know where its state is to lie.
    pub(super) fn is_to_be(&self) -> bool {
        matches!(self.stage, Stage::Asking | Stage::Claiming)
    }

    /// The group's number.
    pub(super) fn cluster(&self) -> Result<u64, ClusterError> {
        let text = &self.settings()?.cluster_id;
        u64::from_str_radix(text, 16).map_err(|err| ClusterError::component("server file", err))
    }

    /// The member that it replaces.
    pub(super) fn replaces(&self) -> Option<u64> {
        u64::from_str_radix(self.own.replaces.as_ref()?, 16).ok()
    }

    /// Takes over the addresses that it has now.
    pub(super) fn move_to(&mut self, peer: SocketAddr, api: SocketAddr) {
        self.own.peer_address = peer.to_string();
        self.own.api_address = api.to_string();
        let id = self.own.id;
        self.members.retain(|member| member.id != id);
        self.members.push(self.own.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let own = Record {
            name: "a".to_owned(),
            id: u64::MAX,
            peer_address: "192.0.2.1:2380".to_owned(),
            api_address: "192.0.2.1:6443".to_owned(),
            replaces: Some("ff".to_owned()),
        };
        Place::new(own, Stage::Asking, None)
    }

    #[test]
    fn what_is_kept_is_found_again_and_the_folder_is_taken_once() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(&home.path().join("data")).unwrap();
        assert_eq!(folder.load().unwrap(), None);
        folder.save(&place()).unwrap();
        assert_eq!(folder.load().unwrap(), Some(place()));
        assert_eq!(place().replaces(), Some(255));
        let refused = Folder::open(&home.path().join("data")).err().unwrap().to_string();
        assert!(refused.contains("another server uses"), "{refused}");
        drop(folder);
        Folder::open(&home.path().join("data")).unwrap();
    }

    #[test]
    fn a_folder_with_something_of_others_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        folder.check_unused().unwrap();
        std::fs::write(home.path().join("thesis.txt"), "").unwrap();
        assert!(folder.check_unused().unwrap_err().to_string().contains("(it has \"thesis.txt\")"));
        std::fs::write(home.path().join(CONFIG_FILE), "").unwrap();
        assert!(folder.check_unused().unwrap_err().to_string().contains("`reeve restore FILE --as server"));
    }

    #[test]
    fn a_server_that_moves_stands_once_among_the_members() {
        let mut place = place();
        place.members = vec![place.own.clone()];
        place.move_to("192.0.2.9:1".parse().unwrap(), "192.0.2.9:2".parse().unwrap());
        assert_eq!(place.members, [place.own.clone()]);
        assert_eq!(place.own.peer_address, "192.0.2.9:1");
    }
}
