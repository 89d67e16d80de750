//! A cluster that is made of a backup: its lasting choices come from there, its name and folder may be others.

use std::path::Path;

use super::config::{self, ClusterConfig, Paths};
use super::data_dir;
use super::error::ClusterError;
use super::state::{self, Claim, MainLock, RunState};

/// A cluster to be.
pub(crate) struct NewCluster {
    config: ClusterConfig,
    paths: Paths,
}

impl NewCluster {
    /// Of the choices that a backup holds.
    pub(crate) fn of(name: &str, dir: Option<&Path>, choices: Option<&[u8]>) -> Result<Self, ClusterError> {
        config::validate_name(name)?;
        let invalid = |rule: String| ClusterError::Invalid { what: "backup", value: config::FILE.to_owned(), rule };
        let choices =
            choices.ok_or_else(|| invalid("it is missing: this is not the backup of a cluster".to_owned()))?;
        let config: ClusterConfig = serde_json::from_slice(choices).map_err(|err| invalid(err.to_string()))?;
        let mut paths = Paths::of(name, dir);
        paths.data_dir = data_dir::resolve(&paths.data_dir)?;
        // Wherever the state lay before, it lies in the folder now.
        Ok(Self { config: ClusterConfig { name: name.to_owned(), etcd: None, ..config }, paths })
    }

    /// Refuses what would meet another cluster of this machine. The caller holds the cluster's lock.
    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        let (name, run_dir) = (&self.config.name, &self.paths.run_dir);
        let refused = |rule: String| ClusterError::Invalid { what: "cluster", value: name.clone(), rule };
        let runs = RunState::load(run_dir).is_some_and(|running| running.process.is_alive());
        if runs || MainLock::holder(run_dir).is_some() {
            return Err(refused("it is running; `reeve down` first, or restore under another --name".to_owned()));
        }
        if let Some(claim) = Claim::load(run_dir).filter(|claim| claim.data_dir != self.paths.data_dir)
            && config::load_from(&claim.data_dir.join(config::FILE)).is_ok_and(|found| found.is_some())
        {
            let rule = format!(
                "there is one already, in {}; `reeve down --purge` removes it, --name restores under another name",
                claim.data_dir.display()
            );
            return Err(refused(rule));
        }
        let meets = |other: &ClusterConfig| {
            let (own, ranges) = (&self.config, [other.cluster_cidr, other.service_cidr]);
            let overlaps = |own: ipnet::Ipv4Net| {
                ranges.iter().any(|range| range.contains(&own.network()) || own.contains(&range.network()))
            };
            other.index == own.index || overlaps(own.cluster_cidr) || overlaps(own.service_cidr)
        };
        match state::others(name).into_iter().find(meets) {
            None => Ok(()),
            Some(other) => Err(refused(format!(
                "its pods and Services have the addresses {} and {}, which cluster {:?} of this machine uses too: \
                 restore it on another machine, or `reeve down --purge --name {}` first",
                self.config.cluster_cidr, self.config.service_cidr, other.name, other.name
            ))),
        }
    }

    /// Where its data goes.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.paths.data_dir
    }

    /// Whether its node has a network namespace of its own.
    pub(crate) fn has_netns(&self) -> bool {
        self.config.netns
    }

    /// Its lasting choices as they stand in its folder.
    pub(crate) fn choices(&self) -> Result<Vec<u8>, ClusterError> {
        serde_json::to_vec_pretty(&self.config).map_err(|err| ClusterError::component("configuration", err))
    }
}

/// The ranges of pods and Services in the choices that a backup holds.
pub(crate) fn ranges(choices: &[u8]) -> Result<(ipnet::Ipv4Net, ipnet::Ipv4Net), ClusterError> {
    let config: ClusterConfig = serde_json::from_slice(choices).map_err(|err| ClusterError::Invalid {
        what: "backup",
        value: config::FILE.to_owned(),
        rule: err.to_string(),
    })?;
    Ok((config.cluster_cidr, config.service_cidr))
}

/// The name and other lasting choices in that file; `None` when there is none.
pub(crate) fn choices(file: &Path) -> Result<Option<ClusterConfig>, ClusterError> {
    config::load_from(file)
}
