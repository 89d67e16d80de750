//! The data folder of a store that does not run, read without changing anything in it: the log record by record, and
//! the state that snapshot and log make together. A running member reads its log by [`crate::log`] instead.

use std::collections::BTreeMap;

use prost::Message as _;
use reeve_proto::store::{LogEntry, LogRecord, VERSION};

use crate::disk::{Disk, DiskError, read_file};
use crate::encoding::Position;
use crate::frame::{self, Damage, HEADER_LEN};
use crate::head::Head;
use crate::log::{self, LOG_FOLDER};
use crate::recover::{OpenError, replay};
use crate::snapshot::{self, Counting};
use crate::view::MemoryView;

/// Raft's type of an entry that holds commands.
const NORMAL: i32 = 0;

/// What a look at the whole log has found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) files: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) damage: Vec<Damage>,
    /// Bytes behind the last whole record, of which nobody was told: the next start cuts them off.
    pub(crate) torn: u64,
    /// The last entry of another member's snapshot that the log begins anew with, if it does.
    pub(crate) base: Option<u64>,
}

/// Reads every record of the log, also behind damage, and shows it. A segment that goes while it is read is left out.
pub(crate) fn scan_log(disk: &dyn Disk, show: &mut dyn FnMut(LogRecord)) -> Result<Scan, DiskError> {
    let mut scan = Scan::default();
    let names = disk.list(LOG_FOLDER)?;
    let mut next = None;
    for (n, name) in names.iter().enumerate() {
        let path = format!("{LOG_FOLDER}/{name}");
        let damage = |offset: u64, what: String| Damage { path: disk.path_of(&path), offset, what };
        let Some(first) = log::first_number(name) else {
            scan.damage.push(damage(0, "a file of this name has no place here".to_owned()));
            continue;
        };
        let Some(bytes) = read_file(disk, &path)? else { continue };
        if let Some(next) = next.filter(|next| *next != first) {
            scan.damage.push(damage(0, format!("records {next} to {} are missing before it", first.saturating_sub(1))));
        }
        scan.files += 1;
        scan.bytes += bytes.len() as u64;
        let is_last = n + 1 == names.len();
        let (mut at, mut number) = (0, first);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(payload) = frame::decode(number, rest) {
                match LogRecord::decode(payload).ok().filter(|record| record.version <= VERSION) {
                    Some(record) => {
                        scan.base = record.base.map(|base| base.index).or(scan.base);
                        show(record);
                    }
                    None => scan.damage.push(damage(at as u64, "record of a newer version".to_owned())),
                }
                scan.records += 1;
                number += 1;
                at += HEADER_LEN + payload.len();
                continue;
            }
            let torn = frame::written(rest).len() as u64;
            if torn == 0 {
                scan.bytes -= rest.len() as u64; // room that was made for records
                break;
            }
            match frame::find_later(number, rest) {
                Some((skipped, later)) => {
                    let what = format!("records {number} to {} are not whole ({skipped} bytes)", later - 1);
                    scan.damage.push(damage(at as u64, what));
                    (at, number) = (at + skipped, later);
                }
                None if is_last => {
                    scan.torn = torn;
                    break;
                }
                None => {
                    scan.damage.push(damage(at as u64, format!("record {number} is not whole")));
                    break;
                }
            }
        }
        next = Some(number);
    }
    Ok(scan)
}

/// The state that snapshot and log make: with all that was acknowledged. What is behind the last commit that this
/// member knew of counts too: it may have been acknowledged.
pub(crate) fn load(disk: &dyn Disk) -> Result<(Head, Position), OpenError> {
    let known = snapshot::newest(disk)?.unwrap_or(0);
    let mut entries: BTreeMap<u64, LogEntry> = BTreeMap::new();
    let mut first = 0;
    let mut scan = scan_log(disk, &mut |record| {
        if let Some(base) = record.base {
            entries.clear();
            first = base.index + 1;
        }
        for entry in record.entries {
            if first == 0 {
                first = entry.index;
            }
            entries.split_off(&entry.index);
            if entry.index > known {
                entries.insert(entry.index, entry);
            }
        }
    })?;
    if let Some(damage) = scan.damage.pop() {
        return Err(damage.into());
    }
    let view = MemoryView::default();
    let begins = Counting::find(disk, scan.base)?;
    let (snapshot, mut position) = match begins {
        None => (0, Position::EMPTY),
        Some(begins) => (begins.index(), begins.restore(disk, &view)?.position),
    };
    if first > snapshot + 1 {
        return Err(OpenError::LogGap { path: disk.path_of(LOG_FOLDER), first, snapshot });
    }
    let mut head = Head::load(&view, position.revision)?;
    for entry in entries.range(snapshot + 1..).map(|(_, entry)| entry) {
        position = if entry.kind == NORMAL {
            replay(&mut head, &view, position, entry)?
        } else {
            Position { index: entry.index, term: entry.term, ..position }
        };
    }
    Ok((head, position))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reeve_proto::store::{HardState, LogBase};

    use super::*;
    use crate::encoding;
    use crate::kv::{KeyValue, Revision};
    use crate::lease::LeaseId;
    use crate::log::{Keep, Log};
    use crate::sim_disk::SimDisk;
    use crate::verify;

    /// A snapshot of one key with this value.
    fn snapshot(disk: &SimDisk, index: u64, value: &[u8]) {
        let revision = Revision(index);
        let (value, lease) = (value.to_vec().into(), LeaseId::NONE);
        let kv =
            KeyValue { key: "k".into(), value, create_revision: revision, mod_revision: revision, version: 1, lease };
        let mut writer = snapshot::Writer::begin(disk).unwrap();
        writer.add(&encoding::version_key(b"k", revision), &encoding::encode_put(&kv)).unwrap();
        let position = Position { index, term: 1, revision, compacted: revision };
        writer.end(disk, position, reeve_proto::store::Members::default()).unwrap();
    }

    /// A log that goes on behind these entries.
    fn log(disk: &SimDisk, bases: &[u64]) {
        let keep = Keep { after: 0, bytes: 0 };
        let (mut log, _) = Log::open(Arc::new(disk.clone()), 1 << 20, keep).unwrap();
        for index in bases {
            let base = Some(LogBase { index: *index, term: 1 });
            let empty = |index| LogEntry { index, term: 1, ..LogEntry::default() };
            let hard_state = Some(HardState { term: 1, vote: 0, commit: *index });
            let entries = vec![empty(index + 1), empty(index + 2)];
            log.append(&LogRecord { version: VERSION, hard_state, entries, base }).unwrap();
        }
    }

    fn names(disk: &SimDisk) -> Vec<String> {
        disk.list(snapshot::SNAPSHOT_FOLDER).unwrap()
    }

    #[test]
    fn a_snapshot_whose_taking_over_a_crash_has_interrupted_counts_when_the_log_says_so() {
        for log_says_so in [true, false] {
            let disk = SimDisk::default();
            snapshot(&disk, 40, b"sent");
            disk.rename("snapshots/0000000000000028.snap", &snapshot::received_file(40)).unwrap();
            snapshot(&disk, 10, b"own");
            log(&disk, if log_says_so { &[10, 40] } else { &[10] });
            let before = names(&disk);
            assert_eq!(before.len(), 2);
            let (head, position) = load(&disk).unwrap();
            let value = head.get(&"k".into()).unwrap().value;
            let expected: (&[u8], _) = if log_says_so { (b"sent", 42) } else { (b"own", 12) };
            assert_eq!((&value[..], position.index), expected);
            assert_eq!(names(&disk), before, "nothing in the folder has changed");
        }
    }

    #[test]
    fn damage_to_a_snapshot_that_only_the_log_says_counts_is_found() {
        let disk = SimDisk::default();
        snapshot(&disk, 40, b"sent");
        disk.rename("snapshots/0000000000000028.snap", &snapshot::received_file(40)).unwrap();
        log(&disk, &[40]);
        let sound = verify::files(&disk);
        assert!(sound.findings.is_empty(), "{sound:?}");
        assert!(disk.flip(&snapshot::received_file(40), 20));
        let report = verify::files(&disk);
        let found: Vec<_> = report.findings.iter().map(|finding| finding.damage.to_string()).collect();
        assert_eq!(found, ["sim:/snapshots/0000000000000028.recv is damaged at offset 0: checksum does not fit"]);
        assert!(load(&disk).is_err());
    }
}
