//! What a restore makes: a cluster for `reeve up`, or the first server of a control plane.

use std::io::{self, Write as _};
use std::path::Path;

use reeve_apiserver::join::Settings;
use reeve_store::backup::Summary;
use reeve_store::backup::contents::BackupHead;

use super::Failed;
use super::args::{RestoreArgs, RestoredKind};
use crate::cluster::server::{NewServer, SETTINGS_FILE};
use crate::cluster::{CONFIG_FILE, ClusterLock, NewCluster, ranges};

/// See the module.
pub(super) enum Target {
    Cluster { name: String, cluster: Box<NewCluster> },
    Server(Box<NewServer>),
}

impl Target {
    /// What the flags say, or what was backed up.
    pub(super) fn of(args: &RestoreArgs, head: &BackupHead) -> Result<Self, Failed> {
        let file = |name: &str| head.files.iter().find(|file| file.name == name).map(|file| &file.content[..]);
        let (up, server) = (file(CONFIG_FILE), file(SETTINGS_FILE));
        let kind = args.kind.unwrap_or(if server.is_some() { RestoredKind::Server } else { RestoredKind::Up });
        let dir = args.data_dir.as_deref();
        match (kind, up, server) {
            (RestoredKind::Up, None, Some(_)) => Err(Failed::Refused(
                "this is the backup of a control plane of servers: it becomes one again (--as server), and not a \
                 cluster of `reeve up`"
                    .to_owned(),
            )),
            (RestoredKind::Up, choices, _) => {
                let name = args.name.clone().unwrap_or_else(|| head.name.clone());
                let cluster = Box::new(NewCluster::of(&name, dir, choices)?);
                Ok(Self::Cluster { name, cluster })
            }
            (RestoredKind::Server, _, Some(settings)) => {
                let settings: Settings = serde_json::from_slice(settings)
                    .map_err(|err| Failed::Refused(format!("the backup's {SETTINGS_FILE} cannot be read: {err}")))?;
                let ranges = (settings.cluster_cidr, settings.service_cidr);
                Ok(Self::Server(Box::new(NewServer::of(args.name.as_deref(), dir, ranges)?)))
            }
            (RestoredKind::Server, Some(choices), None) => {
                Ok(Self::Server(Box::new(NewServer::of(args.name.as_deref(), dir, ranges(choices)?)?)))
            }
            (RestoredKind::Server, None, None) => Err(Failed::Refused(format!(
                "{SETTINGS_FILE} and {CONFIG_FILE} are missing in it: this is not the backup of a cluster"
            ))),
        }
    }

    /// Keeps other verbs away from a cluster of that name, and refuses what would meet another one.
    pub(super) fn claim(&self) -> Result<Option<ClusterLock>, Failed> {
        let Self::Cluster { name, cluster } = self else { return Ok(None) };
        let lock = ClusterLock::take(name)?;
        cluster.check()?;
        Ok(Some(lock))
    }

    /// Keeps servers away from the folder, which is there, as long as what is returned lives.
    pub(super) fn lock(&self) -> Result<Option<impl Sized + use<>>, Failed> {
        match self {
            Self::Cluster { .. } => Ok(None),
            Self::Server(server) => Ok(Some(server.lock()?)),
        }
    }

    /// What lies in the folder because of [`Target::lock`].
    pub(super) fn lock_file(&self) -> Option<&'static str> {
        matches!(self, Self::Server(_)).then_some(NewServer::LOCK)
    }

    /// Where the data goes.
    pub(super) fn data_dir(&self) -> &Path {
        match self {
            Self::Cluster { cluster, .. } => cluster.data_dir(),
            Self::Server(server) => server.data_dir(),
        }
    }

    /// The file that makes the folder what it is, and what stands in it.
    pub(super) fn choices(&self) -> Result<(&'static str, Vec<u8>), Failed> {
        Ok(match self {
            Self::Cluster { cluster, .. } => (CONFIG_FILE, cluster.choices()?),
            Self::Server(server) => (NewServer::FILE, server.file()?),
        })
    }

    /// Tells what has become of the backup, and what to do next.
    pub(super) fn say(&self, summary: &Summary) {
        let (dir, mut out) = (self.data_dir().display(), io::stdout().lock());
        let made = jiff::Timestamp::from_second(summary.head.created).unwrap_or_default();
        let keys = summary.keys;
        let _ = match self {
            Self::Cluster { name, .. } => {
                writeln!(out, "Restored cluster {name:?} into {dir}: {keys} keys, as of {made}.")
            }
            Self::Server(_) => writeln!(out, "Restored a control plane into {dir}: {keys} keys, as of {made}."),
        };
        let _ = writeln!(out, "  kubeconfigs and tokens of the old cluster go on working");
        let _ = match self {
            Self::Cluster { cluster, name } => {
                let _ = writeln!(out, "  not in a backup: images that were loaded, and what pods keep in volumes");
                let netns = if cluster.has_netns() { " --netns" } else { "" };
                writeln!(out, "Next:  reeve up --name {name} --data-dir {dir}{netns}")
            }
            Self::Server(_) => {
                let _ =
                    writeln!(out, "  servers of before do not belong to it: empty their folders, and let them join");
                writeln!(out, "Next:  reeve server --data-dir {dir}")
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use reeve_store::backup::contents::BackupFile;

    use super::*;

    fn made(of: &[(&str, &str)], kind: Option<RestoredKind>, dir: PathBuf) -> Result<Target, Failed> {
        let file = |(name, content): &(&str, &str)| BackupFile {
            name: (*name).to_owned(),
            content: content.as_bytes().to_vec(),
        };
        let head = BackupHead { name: "dev".to_owned(), files: of.iter().map(file).collect(), ..BackupHead::default() };
        let args = RestoreArgs {
            file: PathBuf::from("b"),
            kind,
            name: None,
            data_dir: Some(dir),
            secret: super::super::args::SecretArgs::default(),
        };
        Target::of(&args, &head)
    }

    #[test]
    fn a_backup_becomes_what_it_was_of_and_a_cluster_a_server_if_asked() {
        let home = tempfile::tempdir().unwrap();
        let dir = || home.path().join("new");
        let up = r#"{"name": "dev", "index": 3, "clusterCidr": "10.67.0.0/16", "serviceCidr": "10.131.0.0/20",
            "apiPort": 6443, "kubeletPort": 10250, "netns": false, "store": {"history": "1h"}}"#;
        let settings = r#"{"clusterId": "ab", "clusterCidr": "10.67.0.0/16", "serviceCidr": "10.131.0.0/20"}"#;
        let (up, servers) = ([(CONFIG_FILE, up)], [(SETTINGS_FILE, settings)]);
        assert!(matches!(made(&up, None, dir()), Ok(Target::Cluster { .. })));
        for target in [made(&servers, None, dir()), made(&up, Some(RestoredKind::Server), dir())] {
            let (name, content) = target.unwrap().choices().unwrap();
            let content: serde_json::Value = serde_json::from_slice(&content).unwrap();
            assert_eq!((name, &content["stage"]), ("server.json", &"restored".into()));
            assert_eq!(content["settings"]["serviceCidr"], "10.131.0.0/20");
            assert_ne!(content["settings"]["clusterId"], "ab", "it is another group");
        }
        let refused = made(&servers, Some(RestoredKind::Up), dir()).err().unwrap().to_string();
        assert!(refused.contains("backup of a control plane of servers"), "{refused}");
        assert!(made(&[], Some(RestoredKind::Server), dir()).is_err() && made(&[], None, dir()).is_err());
    }
}
