//! What `reeve up` may be told of a cluster's store: how much of the past it keeps, and the backups that are made of
//! it. Kept with the cluster's other lasting choices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use reeve_apiserver::registry::HISTORY;
use reeve_store::Limits;

use super::error::ClusterError;
use crate::kubectl::connect::parse_duration;

/// Backups that are kept unless `--backup-keep` says otherwise.
const KEEP: usize = 7;
/// Fewer revisions would end watches that are only a little late.
const REVISIONS_MIN: u64 = 1000;
/// Where only the number of revisions counts.
const AGE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Takes a choice back.
const OFF: &str = "off";

/// The flags. What is not given stays as it was chosen before.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StoreArgs {
    /// How long and how many old versions are kept, whichever ends first: 1h, 100000, or 1h/100000 [default: 5m/50000]
    #[arg(long, value_name = "AGE/REVISIONS")]
    pub history: Option<String>,
    /// Bytes of objects that the store takes; when they are used up only deletions are. 0 for no limit [default: 0]
    #[arg(long, value_name = "BYTES")]
    pub quota_backend_bytes: Option<u64>,
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
    /// How much of the past is kept, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// Bytes that may live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
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

    /// How long the past is kept.
    pub(crate) fn age(&self) -> Duration {
        self.kept().map_or(HISTORY, |kept| kept.age)
    }

    /// What the store is told.
    pub(crate) fn limits(&self) -> Limits {
        let limits = Limits { quota_bytes: self.quota_bytes, ..Limits::default() };
        Limits { history_max: self.kept().map_or(limits.history_max, |kept| kept.revisions), ..limits }
    }

    fn kept(&self) -> Option<Kept> {
        self.history.as_deref().and_then(|text| Kept::parse(text).ok())
    }
}

/// How much of the past is kept: no more than either says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    age: Duration,
    revisions: u64,
}

impl Kept {
    fn parse(text: &str) -> Result<Self, String> {
        let mut kept = Self { age: HISTORY, revisions: Limits::default().history_max };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (age, revisions) = match text.split_once('/') {
            Some((age, revisions)) => (Some(age), Some(revisions)),
            None if is_number(text) => (None, Some(text)),
            None => (Some(text), None),
        };
        if let Some(age) = age {
            let parsed = parse_duration(age).ok().flatten().filter(|_| !is_number(age));
            kept.age = parsed.ok_or_else(|| format!("{age:?} is no duration such as 1h"))?;
        } else {
            kept.age = AGE_MAX; // only the number counts
        }
        if let Some(revisions) = revisions {
            kept.revisions = revisions.parse().map_err(|_| format!("{revisions:?} is no number"))?;
        } else {
            kept.revisions = u64::MAX / 4; // only the age counts
        }
        if kept.age < HISTORY || kept.revisions < REVISIONS_MIN {
            return Err(format!("clients count upon {HISTORY:?} and {REVISIONS_MIN} revisions at least"));
        }
        Ok(kept)
    }
}

impl StoreArgs {
    /// Whether any flag was given.
    pub(crate) fn says_something(&self) -> bool {
        self.history.is_some() || self.quota_backend_bytes.is_some() || self.says_of_backups()
    }

    fn says_of_backups(&self) -> bool {
        self.backup_schedule.is_some()
            || self.backup_to.is_some()
            || self.backup_keep.is_some()
            || self.backup_key_file.is_some()
            || self.backup_credentials.is_some()
    }

    /// What holds from now on; what means nothing is refused.
    pub(crate) fn merged(&self, before: StoreChoices) -> Result<StoreChoices, ClusterError> {
        if let Some(history) = &self.history {
            let invalid = |rule| ClusterError::Invalid { what: "--history", value: history.clone(), rule };
            Kept::parse(history).map_err(invalid)?;
        }
        let quota_bytes = self.quota_backend_bytes.or(before.quota_bytes).filter(|bytes| *bytes > 0);
        let history = self.history.clone().or(before.history);
        Ok(StoreChoices { history, quota_bytes, backup: self.backup(before.backup)? })
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
            (None, None, None) if !self.says_of_backups() => return Ok(None),
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
        if self.says_of_backups() {
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
    fn history_is_an_age_a_number_or_both() {
        let kept = |text: &str| Kept::parse(text).map(|kept| (kept.age.as_secs(), kept.revisions));
        assert_eq!(kept("1h/100000"), Ok((3600, 100_000)));
        assert_eq!(kept("1h"), Ok((3600, u64::MAX / 4)));
        assert_eq!(kept("100000"), Ok((AGE_MAX.as_secs(), 100_000)));
        for bad in ["", "1m", "999", "1h/", "/1000", "3600/100000", "1h/many"] {
            assert!(kept(bad).is_err(), "{bad}");
        }
        let choices = StoreChoices { history: Some("1h/2000".to_owned()), ..StoreChoices::default() };
        assert_eq!((choices.age(), choices.limits().history_max), (Duration::from_secs(3600), 2000));
        assert_eq!(StoreChoices::default().limits(), Limits::default());
    }

    #[test]
    fn a_cluster_without_choices_is_written_down_as_before_there_were_any() {
        assert_eq!(serde_json::to_string(&StoreChoices::default()).unwrap(), "{}");
    }
}
