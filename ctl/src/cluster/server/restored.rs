//! A server's data folder that is made of a backup: the first server of a new control plane, which others then join.

use std::path::{Path, PathBuf};

use reeve_api::rng::SeededRng;
use reeve_apiserver::join::{Record, Settings, check_name};

use super::super::data_dir;
use super::super::error::ClusterError;
use super::args::DATA_DIR;
use super::place::{FILE, Folder, LOCK, Place, Stage};
use super::{FIRST_ID, fresh_number};

/// A server to be.
pub(crate) struct NewServer {
    dir: PathBuf,
    place: Place,
}

impl NewServer {
    /// What makes a folder a server's.
    pub(crate) const FILE: &'static str = FILE;
    /// What may lie in a folder that is no server's yet.
    pub(crate) const LOCK: &'static str = LOCK;

    /// With the ranges of what was backed up. Its group is a new one: no server of the old one takes it for its own.
    /// A server without a name gets one at its first start.
    pub(crate) fn of(
        name: Option<&str>,
        dir: Option<&Path>,
        (cluster_cidr, service_cidr): (ipnet::Ipv4Net, ipnet::Ipv4Net),
    ) -> Result<Self, ClusterError> {
        name.map_or(Ok(()), check_name).map_err(ClusterError::Told)?;
        let cluster_id = format!("{:x}", fresh_number(&SeededRng::from_os()));
        let own = Record {
            name: name.unwrap_or_default().to_owned(),
            id: FIRST_ID,
            peer_address: String::new(),
            api_address: String::new(),
            replaces: None,
        };
        let settings = Settings { cluster_id, cluster_cidr, service_cidr };
        let dir = data_dir::resolve(dir.unwrap_or(Path::new(DATA_DIR)))?;
        Ok(Self { dir, place: Place::new(own, Stage::Restored, Some(settings)) })
    }

    /// Where its data goes.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.dir
    }

    /// Sees to it that no server runs there as long as what is returned lives. The folder must be there.
    pub(crate) fn lock(&self) -> Result<impl Sized + use<>, ClusterError> {
        Folder::open(&self.dir)
    }

    /// What stands in [`NewServer::FILE`].
    pub(crate) fn file(&self) -> Result<Vec<u8>, ClusterError> {
        serde_json::to_vec_pretty(&self.place).map_err(|err| ClusterError::component("server file", err))
    }
}
