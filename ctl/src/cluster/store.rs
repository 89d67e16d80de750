//! What `reeve up` may be told of a cluster's store: how much of the past it keeps, and the backups that are made of
//! it. Kept with the cluster's other lasting choices.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::error::ClusterError;

/// Backups that are kept unless `--backup-keep` says otherwise.
const KEEP: usize = 7;
/// Takes a choice back.
const OFF: &str = "off";

/// The flags. What is not given stays as it was chosen before.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StoreArgs {
    /// Make backups by itself: every so often (6h), or as cron says ("30 3 * * *"); `off` for no more
    #[arg(long, value_name = "WHEN")]
    pub backup_schedule: Option<String>,
    /// Where scheduled backups go: a folder, or s3://BUCKET/PREFIX?endpoint=URL&region=NAME
    #[arg(long, value_name = "PLACE")]
    pub backup_to: Option<String>,
    /// How many scheduled backups are kept [default: 7]
    #[arg(long, value_name = "NUMBER")]
    pub backup_keep: Option<usize>,
    /// Encrypt scheduled backups with the key in this file
    #[arg(long, value_name = "FILE")]
    pub backup_key_file: Option<PathBuf>,
    /// File with the credentials for S3, as AWS writes it
    #[arg(long, value_name = "FILE")]
    pub backup_credentials: Option<PathBuf>,
}

/// The lasting choices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct StoreChoices {
    /// Scheduled backups, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupChoices>,
}

/// Scheduled backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BackupChoices {
    /// When.
    pub schedule: String,
    /// Where to.
    pub to: String,
    /// How many are kept.
    pub keep: usize,
    /// What they are encrypted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// As whom S3 is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
}

impl StoreChoices {
    /// Whether nothing was chosen: then nothing stands in the file, which older programs can read.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl StoreArgs {
    /// Whether any flag was given.
    pub(crate) fn says_something(&self) -> bool {
        self.backup_schedule.is_some()
            || self.backup_to.is_some()
            || self.backup_keep.is_some()
            || self.backup_key_file.is_some()
            || self.backup_credentials.is_some()
    }

    /// What holds from now on; what means nothing is refused.
    pub(crate) fn merged(&self, before: StoreChoices) -> Result<StoreChoices, ClusterError> {
        Ok(StoreChoices { backup: self.backup(before.backup)? })
    }

    fn backup(&self, before: Option<BackupChoices>) -> Result<Option<BackupChoices>, ClusterError> {
        if self.backup_schedule.as_deref() == Some(OFF) {
            return Ok(None);
        }
        let invalid = |value: &str, rule: String| ClusterError::Invalid {
            what: "scheduled backup",
            value: value.to_owned(),
            rule,
        };
        let (schedule, to) = (self.backup_schedule.clone(), self.backup_to.as_deref().map(absolute));
        let mut choices = match (before, schedule, to) {
            (Some(before), schedule, to) => {
                BackupChoices { schedule: schedule.unwrap_or(before.schedule), to: to.unwrap_or(before.to), ..before }
            }
            (None, Some(schedule), Some(to)) => {
                BackupChoices { schedule, to, keep: KEEP, key_file: None, credentials: None }
            }
            (None, None, None) if !self.says_something() => return Ok(None),
            (None, schedule, to) => {
                let given = schedule.or(to).unwrap_or_default();
                return Err(invalid(&given, "--backup-schedule and --backup-to go together".to_owned()));
            }
        };
        choices.keep = self.backup_keep.unwrap_or(choices.keep);
        let path = |path: &PathBuf| PathBuf::from(absolute(&path.to_string_lossy()));
        choices.key_file = self.backup_key_file.as_ref().map(path).or(choices.key_file);
        choices.credentials = self.backup_credentials.as_ref().map(path).or(choices.credentials);
        if choices.keep == 0 {
            return Err(invalid("--backup-keep 0", "at least one backup is kept".to_owned()));
        }
        if self.says_something() {
            crate::backup::schedule::Plan::of(&choices).map_err(|err| invalid(&choices.to, err.to_string()))?;
        }
        Ok(Some(choices))
    }
}

/// The background process stands elsewhere.
fn absolute(place: &str) -> String {
    if place.starts_with("s3://") {
        return place.to_owned();
    }
    std::path::absolute(Path::new(place)).map_or_else(|_| place.to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(schedule: Option<&str>, to: Option<&str>) -> StoreArgs {
        let own = |text: &str| text.to_owned();
        StoreArgs { backup_schedule: schedule.map(own), backup_to: to.map(own), ..StoreArgs::default() }
    }

    #[test]
    fn choices_stay_until_others_are_made_and_what_means_nothing_is_refused() {
        let first = args(Some("6h"), Some("/backups")).merged(StoreChoices::default()).unwrap();
        assert_eq!(StoreArgs::default().merged(first.clone()).unwrap(), first);
        let later = StoreArgs { backup_keep: Some(3), ..args(Some("@daily"), None) }.merged(first.clone()).unwrap();
        let backup = later.backup.clone().unwrap();
        assert_eq!((&*backup.schedule, &*backup.to, backup.keep), ("@daily", "/backups", 3));
        assert!(args(Some("off"), None).merged(later).unwrap().is_default());
        for (bad, rule) in [
            (args(Some("6h"), None), "go together"),
            (args(None, Some("/b")), "go together"),
            (args(Some("soon"), Some("/b")), "is no duration"),
            (StoreArgs { backup_keep: Some(0), ..args(Some("6h"), Some("/b")) }, "at least one"),
            (StoreArgs { backup_key_file: Some("/nonexistent".into()), ..args(Some("6h"), Some("/b")) }, "nonexistent"),
        ] {
            let told = bad.merged(StoreChoices::default()).unwrap_err().to_string();
            assert!(told.contains(rule), "{told}");
        }
    }

    #[test]
    fn a_cluster_without_choices_is_written_down_as_before_there_were_any() {
        assert_eq!(serde_json::to_string(&StoreChoices::default()).unwrap(), "{}");
    }
}
