//! Where scheduled backups are kept: a folder, or a prefix in an S3-compatible store. Which of them go is decided by
//! their names alone ([`outdated`]).

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Failed;
use super::s3::{Bucket, Credentials};

/// What the names of backups end with.
const SUFFIX: &str = ".reevebackup";

/// A folder or a prefix.
#[derive(Debug)]
pub(crate) enum Place {
    /// Of this machine.
    Folder(PathBuf),
    /// Of an S3-compatible store.
    S3(Box<Bucket>),
}

/// A backup that lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl Place {
    /// What `--backup-to` says; `credentials` are only needed for S3.
    pub(crate) fn parse(text: &str, credentials: Option<&Path>) -> Result<Self, Failed> {
        if !text.starts_with("s3://") {
            return Ok(Self::Folder(PathBuf::from(text.strip_prefix("file://").unwrap_or(text))));
        }
        Ok(Self::S3(Box::new(Bucket::parse(text, Credentials::find(credentials)?)?)))
    }

    /// The backups that are there, oldest first. Other files are none of our business.
    pub(crate) async fn list(&self) -> Result<Vec<Kept>, Failed> {
        let mut kept = match self {
            Self::Folder(folder) => list_folder(folder)?,
            Self::S3(bucket) => bucket.list().await?,
        };
        kept.retain(|kept| parts(&kept.name).is_some());
        kept.sort_by(|one, other| parts(&one.name).map(|own| own.1).cmp(&parts(&other.name).map(|own| own.1)));
        Ok(kept)
    }

    /// Puts a whole backup there, under its name or not at all.
    pub(crate) async fn put(&self, file: &Path, name: &str) -> Result<(), Failed> {
        match self {
            Self::Folder(folder) => put_into(folder, file, name),
            Self::S3(bucket) => bucket.put(file, name).await,
        }
    }

    /// Removes a backup.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Failed> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                std::fs::remove_file(&path).map_err(|err| Failed::io("remove", &path, err))
            }
            Self::S3(bucket) => bucket.remove(name).await,
        }
    }
}

fn list_folder(folder: &Path) -> Result<Vec<Kept>, Failed> {
    let failed = |err| Failed::io("list", folder, err);
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let bytes = entry.metadata().map_err(failed)?.len();
        kept.push(Kept { name: entry.file_name().to_string_lossy().into_owned(), bytes });
    }
    Ok(kept)
}

fn put_into(folder: &Path, file: &Path, name: &str) -> Result<(), Failed> {
    let path = folder.join(name);
    let failed = |err| Failed::io("write", &path, err);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut output = super::output::Output::create(&path, false, None)?;
    let mut from = std::fs::File::open(file).map_err(failed)?;
    std::io::copy(&mut from, &mut output).map_err(failed)?;
    output.keep().map(drop)
}

/// How the backup of a cluster of that moment is called.
pub(crate) fn name_of(cluster: &str, at: Timestamp) -> String {
    format!("{cluster}-{}{SUFFIX}", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// Cluster and moment in the name of a backup; `None` for anything else.
pub(crate) fn parts(name: &str) -> Option<(&str, Timestamp)> {
    let (cluster, moment) = name.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", moment).ok()?;
    Some((cluster, civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()))
}

/// The backups of a cluster that are too many: all but the newest. `kept` is sorted.
pub(crate) fn outdated<'k>(kept: &'k [Kept], cluster: &str, keep: usize) -> Vec<&'k str> {
    let own: Vec<&str> = kept.iter().map(|kept| &*kept.name).filter(|name| is_of(name, cluster)).collect();
    own[..own.len().saturating_sub(keep)].to_vec()
}

fn is_of(name: &str, cluster: &str) -> bool {
    parts(name).is_some_and(|(own, _)| own == cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn only_the_oldest_backups_of_the_same_cluster_are_too_many() {
        let name = |cluster: &str, n: i64| name_of(cluster, at(1_700_000_000 + n));
        assert_eq!(name("dev", 0), "dev-20231114T221320Z.reevebackup");
        assert_eq!(parts(&name("my-dev", 5)), Some(("my-dev", at(1_700_000_005))));
        assert_eq!(parts("dev-notes.txt"), None);
        let kept: Vec<Kept> = [name("dev", 1), name("dev-2", 2), name("dev", 3), name("dev", 4)]
            .map(|name| Kept { name, bytes: 1 })
            .to_vec();
        assert_eq!(outdated(&kept, "dev", 1), [name("dev", 1), name("dev", 3)]);
        assert_eq!(outdated(&kept, "dev-2", 1), [""; 0]);
        assert_eq!(outdated(&kept, "dev", 7), [""; 0]);
    }

    #[tokio::test]
    async fn a_folder_shows_its_backups_oldest_first_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made");
        std::fs::write(&file, "backup").unwrap();
        let place = Place::parse(&folder.path().join("to").display().to_string(), None).unwrap();
        for n in [9, 3] {
            place.put(&file, &name_of("dev", at(n))).await.unwrap();
        }
        assert!(place.put(&file, &name_of("dev", at(9))).await.is_err(), "one that is there is not replaced");
        std::fs::write(folder.path().join("to/readme"), "").unwrap();
        let names: Vec<_> = place.list().await.unwrap().into_iter().map(|kept| (kept.name, kept.bytes)).collect();
        assert_eq!(names, [(name_of("dev", at(3)), 6), (name_of("dev", at(9)), 6)]);
        place.remove(&name_of("dev", at(3))).await.unwrap();
        assert_eq!(place.list().await.unwrap().len(), 1);
    }
}
