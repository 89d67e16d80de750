//! Backups that the main process makes by itself, one at a time; each is checked as it is made, put where it belongs
//! under its own name, and then the oldest go. What fails is logged, an event and a metric, and tried again soon. That
//! one of several servers does this at a time is their affair.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use reeve_apiserver::{AboutCluster, Backups};
use reeve_client::{Component, EventRecorder};
use reeve_store::SharedKv;
use reeve_store::backup::Unpacker;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::args::SecretArgs;
use super::cron::Schedule;
use super::place::{Place, name_of, outdated, parts};
use super::seal::{Sealer, Secret};
use super::{Failed, passphrase};
use crate::cluster::BackupChoices;

/// Under this name, with random letters behind, a backup lies beside the store until it is where it belongs.
const SPOOL: &str = "backup-under-way.";
/// Pieces that wait for the disk.
const PIECES_MAX: usize = 4;
/// How soon one that failed is tried again.
const RETRY: SignedDuration = SignedDuration::from_mins(5);
/// The clock may jump, and machines sleep: no longer wait is relied on.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// What is to be done, read from the cluster's choices.
pub(crate) struct Plan {
    place: Place,
    keep: usize,
    secret: Option<Arc<Secret>>,
}

impl Plan {
    /// What the choices mean; refused in words for who made them.
    pub(crate) fn of(choices: &BackupChoices) -> Result<Self, Failed> {
        Schedule::parse(&choices.schedule)
            .map_err(|rule| Failed::Refused(format!("invalid --backup-schedule: {rule}")))?;
        let place = Place::parse(&choices.to, choices.credentials.as_deref())?;
        let secret = match &choices.key_file {
            None => None,
            Some(file) => {
                let args = SecretArgs { key_file: Some(file.clone()), passphrase_file: None };
                Some(Arc::new(passphrase::for_sealing(&args)?))
            }
        };
        Ok(Self { place, keep: choices.keep.max(1), secret })
    }
}

/// Everything that making a backup needs.
#[derive(Clone)]
pub(crate) struct Scheduled {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// Its choices. What they mean is read at each round: a key file that was missing may be there.
    pub(crate) choices: BackupChoices,
    /// The store.
    pub(crate) kv: SharedKv,
    /// What stands in a backup besides the store.
    pub(crate) about: AboutCluster,
    /// The turn, and what is told in `/metrics`.
    pub(crate) backups: Backups,
    /// Who writes the events; its clock is the schedule's.
    pub(crate) component: Component,
    /// Where a backup lies until it is where it belongs.
    pub(crate) data_dir: PathBuf,
}

impl Scheduled {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let events = EventRecorder::start(&self.component, "reeve-backup", None);
        self.clear();
        let (mut last, mut failed_at) = (self.newest().await, None::<Timestamp>);
        loop {
            let now = self.component.clock.now();
            let Some(due) = self.due(now, last, failed_at) else {
                return tracing::error!(schedule = self.choices.schedule, "No backup will ever be due.");
            };
            self.sleep_until(due).await;
            match self.make().await {
                Ok((name, bytes, at)) => {
                    tracing::info!(name, bytes, to = self.choices.to, "Made a scheduled backup.");
                    self.backups.succeeded(bytes, u64::try_from(at.as_second()).unwrap_or_default());
                    (last, failed_at) = (Some(at), None);
                }
                Err(error) => {
                    tracing::error!(%error, to = self.choices.to, "A scheduled backup was not made.");
                    self.backups.failed();
                    let message = format!("No backup to {}: {error}", self.choices.to);
                    events.warning(&whom(), "BackupFailed", message);
                    failed_at = Some(self.component.clock.now());
                }
            }
        }
    }

    fn due(&self, now: Timestamp, last: Option<Timestamp>, failed_at: Option<Timestamp>) -> Option<Timestamp> {
        let schedule = Schedule::parse(&self.choices.schedule).ok()?;
        let zone = TimeZone::system();
        match failed_at {
            None => schedule.next(now, last, &zone),
            // The next try, but not less often than the schedule says.
            Some(failed_at) => {
                let next = schedule.next(now, Some(failed_at), &zone)?;
                Some(next.min(failed_at.checked_add(RETRY).ok()?).max(now))
            }
        }
    }

    async fn sleep_until(&self, due: Timestamp) {
        loop {
            let left = due.duration_since(self.component.clock.now());
            let Ok(left) = Duration::try_from(left) else { return };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(SLEEP_MAX)).await;
        }
    }

    /// When the newest backup that is there was made: a start does not begin the schedule anew.
    async fn newest(&self) -> Option<Timestamp> {
        let kept = Plan::of(&self.choices).ok()?.place.list().await.ok()?;
        let own = kept.iter().filter_map(|kept| parts(&kept.name)).filter(|(cluster, _)| *cluster == self.cluster);
        own.map(|(_, at)| at).max()
    }

    /// Makes one, puts it where it belongs and removes the oldest: name, size, moment.
    async fn make(&self) -> Result<(String, u64, Timestamp), Failed> {
        let plan = Plan::of(&self.choices)?;
        let _turn = self.backups.turn().await;
        let at = self.component.clock.now();
        let name = name_of(&self.cluster, at);
        let (sink, pieces) = mpsc::channel(PIECES_MAX);
        let about = Arc::clone(&self.about);
        let server = |err: &dyn std::fmt::Display| Failed::Server(err.to_string());
        let head = tokio::task::spawn_blocking(move || about()).await.map_err(|err| server(&err))?;
        let head = head.map_err(|err| Failed::io("read", &self.data_dir, err))?;
        let (folder, secret) = (self.data_dir.clone(), plan.secret.clone());
        let written = tokio::task::spawn_blocking(move || write(&folder, secret.as_deref(), pieces));
        let packed = reeve_store::backup::pack(&*self.kv, head, &sink).await;
        drop(sink);
        let written = written.await.map_err(|err| server(&err))?;
        packed.map_err(|err| server(&err))?;
        let (file, bytes) = written?;
        plan.place.put(file.path(), &name).await?;
        let kept = plan.place.list().await?;
        for old in outdated(&kept, &self.cluster, plan.keep) {
            plan.place.remove(old).await?;
        }
        Ok((name, bytes, at))
    }

    /// Removes what a process that was killed has left.
    fn clear(&self) {
        for entry in std::fs::read_dir(&self.data_dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(SPOOL) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Writes the pieces into a file, and checks that they are a whole backup.
fn write(
    folder: &Path,
    secret: Option<&Secret>,
    mut pieces: mpsc::Receiver<bytes::Bytes>,
) -> Result<(NamedTempFile, u64), Failed> {
    let failed = |err| Failed::io("write into", folder, err);
    let mut file = tempfile::Builder::new().prefix(SPOOL).tempfile_in(folder).map_err(failed)?;
    let mut unpacker = Unpacker::default();
    let mut take = |out: &mut dyn std::io::Write| {
        while let Some(piece) = pieces.blocking_recv() {
            unpacker.feed(&piece)?;
            out.write_all(&piece).map_err(failed)?;
        }
        Ok::<_, Failed>(())
    };
    match secret {
        None => take(&mut file)?,
        Some(secret) => {
            let mut sealer = Sealer::new(file.as_file_mut(), secret).map_err(failed)?;
            take(&mut sealer)?;
            sealer.finish().map_err(failed)?;
        }
    }
    unpacker.finish()?;
    file.as_file_mut().flush().map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let bytes = file.as_file().metadata().map_err(failed)?.len();
    Ok((file, bytes))
}

/// What the events are about: there is no object for a store.
fn whom() -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: Some("kube-system".to_owned()),
        namespace: Some("kube-system".to_owned()),
        ..ObjectReference::default()
    }
}
