//! Backups as an operator meets them: made of a cluster that runs ([`make`]) or of its folder, kept whole or not at
//! all, encrypted if wanted ([`seal`]), restored into a new folder ([`restore`]), made by themselves at set times
//! ([`schedule`]) and kept in a folder or an S3-compatible store ([`place`]).
//!
//! What stands in a backup besides encryption is `reeve_store::backup`'s.

pub(crate) mod args;
mod cron;
pub(crate) mod list;
pub(crate) mod make;
mod output;
mod passphrase;
mod place;
mod progress;
pub(crate) mod restore;
mod s3;
pub(crate) mod schedule;
mod seal;
mod target;
pub(crate) mod verify;

use std::io;
use std::path::{Path, PathBuf};

use reeve_apiserver::join::Settings;
use reeve_store::backup::contents::{BackupFile, BackupHead};

use crate::cluster::CONFIG_FILE;
use crate::cluster::server::SETTINGS_FILE;

/// Why a backup was not made or not restored; one line, with the way out where there is one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// The backup cannot be used.
    #[error("{file}: {source}")]
    Backup {
        /// Which.
        file: String,
        /// What is wrong with it.
        #[source]
        source: reeve_store::backup::BackupError,
    },
    /// The operating system refused a step.
    #[error("failed to {step}: {source}")]
    Io {
        /// What was tried, with the path.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something is not as it must be; in plain words.
    #[error("{0}")]
    Refused(String),
    /// A cluster's folder or lock.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// The server.
    #[error("{0}")]
    Server(String),
}

impl Failed {
    pub(crate) fn io(verb: &str, path: &Path, source: io::Error) -> Self {
        Self::Io { step: format!("{verb} {}", path.display()), source }
    }
}

/// The files of a cluster that belong into a backup: its lasting choices, and what makes its certificates and tokens.
/// With the authorities every kubeconfig and token goes on; certificates themselves are issued anew.
fn is_kept(name: &str) -> bool {
    let Some(key) = name.strip_prefix("pki/") else { return name == CONFIG_FILE || name == SETTINGS_FILE };
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    plain && (key == "ca.pem" || key.ends_with("-ca.pem") || key == "sa.key") && !key.starts_with('.')
}

/// Whose backup it is.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// What `reeve up` has made.
    Cluster {
        /// Its name.
        name: String,
    },
    /// The control plane of some servers.
    ControlPlane(Settings),
}

impl Subject {
    /// Whose data lies in that folder.
    fn of_folder(data_dir: &Path) -> Result<Self, Failed> {
        if let Some(config) = crate::cluster::choices(&data_dir.join(CONFIG_FILE))? {
            return Ok(Self::Cluster { name: config.name });
        }
        if let Some(settings) = crate::cluster::server::settings_in(data_dir)? {
            return Ok(Self::ControlPlane(settings));
        }
        let rule = format!("{} holds no cluster: it has neither {CONFIG_FILE} nor server.json", data_dir.display());
        Err(Failed::Refused(rule))
    }

    /// What the backup is called, and which others are of the same cluster.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Cluster { name } => name.clone(),
            Self::ControlPlane(settings) => format!("reeve-{}", settings.cluster_id),
        }
    }

    /// The file in the backup that says what the cluster is.
    fn choices(&self, data_dir: &Path) -> io::Result<BackupFile> {
        Ok(match self {
            Self::Cluster { .. } => {
                let content = std::fs::read(data_dir.join(CONFIG_FILE))?;
                BackupFile { name: CONFIG_FILE.to_owned(), content }
            }
            Self::ControlPlane(settings) => {
                BackupFile { name: SETTINGS_FILE.to_owned(), content: serde_json::to_vec_pretty(settings)? }
            }
        })
    }
}

/// What stands at the beginning of a backup of the cluster with this data folder.
pub(crate) fn about(data_dir: &Path, subject: &Subject, created: i64) -> io::Result<BackupHead> {
    let mut names = Vec::new();
    match std::fs::read_dir(data_dir.join("pki")) {
        Ok(entries) => {
            for entry in entries {
                names.push(format!("pki/{}", entry?.file_name().to_string_lossy()));
            }
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    names.retain(|name| is_kept(name));
    names.sort();
    let mut files = vec![subject.choices(data_dir)?];
    for name in names {
        match std::fs::read(data_dir.join(&name)) {
            Ok(content) => files.push(BackupFile { name, content }),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    let program = format!("reeve {}", reeve_apiserver::VERSION);
    Ok(BackupHead { name: subject.name(), created, program, files, ..BackupHead::default() })
}

/// `5.2 MiB`
pub(crate) fn sized(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let mut size = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = "B";
    while size >= 1024.0 {
        let Some(next) = units.next() else { break };
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// Where a cluster's store lies.
pub(crate) fn store_of(data_dir: &Path) -> PathBuf {
    data_dir.join("store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_keys_only_those_that_cannot_be_made_again_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pki")).unwrap();
        for name in ["cluster.json", "pki/ca.pem", "pki/front-proxy-ca.pem", "pki/sa.key", "pki/admin.pem", "reeve.log"]
        {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let head = about(folder.path(), &Subject::Cluster { name: "dev".to_owned() }, 7).unwrap();
        let names: Vec<_> = head.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["cluster.json", "pki/ca.pem", "pki/front-proxy-ca.pem", "pki/sa.key"]);
        assert_eq!(
            Subject::of_folder(&folder.path().join("none")).unwrap_err().to_string().matches("no cluster").count(),
            1
        );
        assert!(!is_kept("pki/../../etc-ca.pem") && !is_kept("/etc/passwd") && !is_kept("pki/../sa.key"));
    }

    #[test]
    fn sizes_are_told_in_units_people_know() {
        assert_eq!((sized(12).as_str(), sized(1536).as_str(), sized(5 << 30).as_str()), ("12 B", "1.5 KiB", "5.0 GiB"));
    }
}
