//! Reads everything that a store has on disk, and says what is damaged, where, and what leads out of it: every record
//! of the log, every part of the snapshot, every record of the view with the values beside it.

use std::path::Path;

use reeve_proto::store::{Member, ViewPhase, ViewState};

use crate::disk::{Disk, DiskError, LockError, RealDisk};
use crate::encoding::{self, POSITION_KEY, Position, State};
use crate::file_view::FileViews;
use crate::frame::{self, Damage, ReadError};
use crate::offline;
use crate::recover::{MEMBER_FILE, VIEW_STATE_FILE};
use crate::snapshot::{self, Counting, RestoreError};
use crate::view::{View, ViewBatch, ViewError, Visit, Visitor};

/// Findings in the view beyond this many are not told one by one.
pub(crate) const FINDINGS_MAX: usize = 100;

/// What leads out of damage to log or snapshot: there lies what was acknowledged.
const RESTORE: &str = "the store does not start on it: where there are other members, `reeve member replace` this \
                       one; else put the folder aside and `reeve restore` the newest backup";
/// What leads out of damage to the view: it is made of the others.
const REBUILD: &str = "nothing is lost, the view is made of snapshot and log: while the store is stopped, remove the \
                       folder `view`; the next start makes it anew";

/// Something that is not as it was written.
#[derive(Debug)]
pub struct Finding {
    /// Where, and what.
    pub damage: Damage,
    /// What leads out of it, for an operator.
    pub way_out: &'static str,
}

/// What was read, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    /// Files of log, snapshots and view.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of log and snapshot.
    pub bytes: u64,
    /// What is damaged.
    pub findings: Vec<Finding>,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
}

impl Report {
    fn lost(&mut self, damage: Damage) {
        self.findings.push(Finding { damage, way_out: RESTORE });
    }

    /// Notes damage to the view.
    pub(crate) fn stale(&mut self, path: String, offset: u64, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { damage: Damage { path, offset, what }, way_out: REBUILD });
        }
    }
}

/// Reads the data folder of a store that does not run.
pub fn folder(folder: &Path) -> Result<Report, LockError> {
    let disk = RealDisk::new(folder);
    if !folder.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(DiskError { verb: "open", path: disk.path_of(""), source }.into());
    }
    let lock = disk.lock()?;
    let mut report = Report::default();
    check_files(&disk, &mut report)?;
    check_stopped_view(&disk, folder, &mut report);
    drop(lock);
    Ok(report)
}

/// Reads log and snapshot only.
#[cfg(test)]
pub(crate) fn files(disk: &dyn Disk) -> Report {
    let mut report = Report::default();
    check_files(disk, &mut report).unwrap();
    report
}

/// Reads what a running store has on disk.
pub(crate) fn running(disk: &dyn Disk, view: &dyn View) -> Report {
    let mut report = Report::default();
    if let Err(err) = check_files(disk, &mut report) {
        report.lost(Damage { path: err.path.clone(), offset: 0, what: format!("it cannot be read: {}", err.source) });
    }
    if let Err(err) = check_view(view, &mut report) {
        report.stale(disk.path_of("view"), 0, err.to_string());
    }
    report
}

fn check_files(disk: &dyn Disk, report: &mut Report) -> Result<(), DiskError> {
    match frame::read_message::<Member>(disk, MEMBER_FILE) {
        Ok(Some(_)) => report.files += 1,
        Ok(None) => report.notes.push("There is no store in this folder yet.".to_owned()),
        Err(ReadError::Damage(damage)) => report.lost(damage),
        Err(ReadError::Disk(err)) => return Err(err),
    }
    let scan = offline::scan_log(disk, &mut |_| {})?;
    if let Some(counts) = Counting::find(disk, scan.base)? {
        let counted = Counted::default();
        match counts.restore(disk, &counted) {
            Ok(_) => {}
            Err(RestoreError::Read(ReadError::Damage(damage))) => {
                // One that has got its place, or that a newer one has replaced, while it was read is no loss.
                if Counting::find(disk, scan.base)? == Some(counts) {
                    report.lost(damage);
                }
            }
            Err(RestoreError::Read(ReadError::Disk(err))) => return Err(err),
            Err(RestoreError::View(err)) => {
                let path = disk.path_of(snapshot::SNAPSHOT_FOLDER);
                report.lost(Damage { path, offset: 0, what: err.to_string() });
            }
        }
        let (records, bytes) = counted.figures();
        report.files += 1;
        report.records += records;
        report.bytes += bytes;
    }
    report.files += scan.files;
    report.records += scan.records;
    report.bytes += scan.bytes;
    scan.damage.into_iter().for_each(|damage| report.lost(damage));
    if scan.torn > 0 {
        let torn = scan.torn;
        report.notes.push(format!("The log ends with {torn} bytes of a record that was not acknowledged."));
    }
    Ok(())
}

fn check_stopped_view(disk: &dyn Disk, folder: &Path, report: &mut Report) {
    let state = match frame::read_message::<ViewState>(disk, VIEW_STATE_FILE) {
        Ok(state) => state,
        Err(ReadError::Damage(damage)) => {
            return report.stale(damage.path, damage.offset, damage.what);
        }
        Err(ReadError::Disk(err)) => return report.stale(err.path, 0, err.source.to_string()),
    };
    let is_usable = state.is_some_and(|state| match state.phase() {
        ViewPhase::Building => false,
        ViewPhase::Open => disk.boot_id().is_ok_and(|id| id == state.boot_id),
        ViewPhase::Clean => true,
    });
    if !is_usable {
        return report.notes.push("The view is of no use; the next start makes it anew.".to_owned());
    }
    let view = folder.join("view");
    if let Err(err) = FileViews::new(&view).verify(report) {
        report.stale(view.display().to_string(), 0, err.to_string());
    }
}

fn check_view(view: &dyn View, report: &mut Report) -> Result<(), ViewError> {
    let mut malformed = None;
    view.visit(&[0], &[0xff], &mut |key, record| {
        report.records += 1;
        match check_record(key, record) {
            Ok(()) => Visit::Next,
            Err(err) => {
                malformed = Some(err);
                Visit::Stop
            }
        }
    })?;
    malformed.map_or(Ok(()), Err)
}

/// Whether a record of a view can be understood.
pub(crate) fn check_record(key: &[u8], record: &[u8]) -> Result<(), ViewError> {
    let (versions, history) = (encoding::all_versions().0, encoding::all_history().0);
    let sound = if key.starts_with(&versions) {
        let parts = encoding::split_version_key(key).and_then(|(shared, _)| encoding::unescape(shared));
        parts.is_some() && State::decode(record).is_some()
    } else if key.starts_with(&history) {
        let mut rest = Some(record);
        while let Some(left) = rest.filter(|left| !left.is_empty()) {
            rest = encoding::split_change(left).map(|(_, _, behind)| behind);
        }
        rest.is_some() && encoding::history_revision(key).is_some()
    } else if key.starts_with(&encoding::all_leases().0) {
        encoding::split_lease_key(key).is_some() && encoding::decode_lease(record).is_some()
    } else if key == POSITION_KEY {
        Position::decode(record).is_some()
    } else {
        true // of a newer version, which knows what it is
    };
    if sound { Ok(()) } else { Err(ViewError::malformed("cannot be read", key)) }
}

/// A view that only counts what it is given, and looks at it.
#[derive(Debug, Default)]
struct Counted(std::sync::Mutex<(u64, u64)>);

impl Counted {
    fn figures(&self) -> (u64, u64) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl View for Counted {
    fn get(&self, _key: &[u8]) -> Result<Option<bytes::Bytes>, ViewError> {
        Ok(None)
    }

    fn visit(&self, _from: &[u8], _to: &[u8], _visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
        Ok(())
    }

    fn apply(&self, batch: ViewBatch) -> Result<(), ViewError> {
        for (key, record) in batch.changes {
            let record = record.unwrap_or_default();
            check_record(&key, &record)?;
            let mut counted = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            counted.0 += 1;
            counted.1 += (key.len() + record.len()) as u64;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), ViewError> {
        Ok(())
    }
}
