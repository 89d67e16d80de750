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
use crate::snapshot;
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
                    Some(record) => show(record),
                    None => scan.damage.push(damage(at as u64, "record of a newer version".to_owned())),
                }
                scan.records += 1;
                number += 1;
                at += HEADER_LEN + payload.len();
                continue;
            }
            match frame::find_later(number, rest) {
                Some((skipped, later)) => {
                    let what = format!("records {number} to {} are not whole ({skipped} bytes)", later - 1);
                    scan.damage.push(damage(at as u64, what));
                    (at, number) = (at + skipped, later);
                }
                None if is_last => {
                    scan.torn = rest.len() as u64;
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
    let view = MemoryView::default();
    let snapshot = snapshot::newest(disk)?.unwrap_or(0);
    let mut position = match snapshot {
        0 => Position::EMPTY,
        index => snapshot::restore(disk, index, &view)?.position,
    };
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
            if entry.index > snapshot {
                entries.insert(entry.index, entry);
            }
        }
    })?;
    if let Some(damage) = scan.damage.pop() {
        return Err(damage.into());
    }
    if first > snapshot + 1 {
        return Err(OpenError::LogGap { path: disk.path_of(LOG_FOLDER), first, snapshot });
    }
    let mut head = Head::load(&view, position.revision)?;
    for entry in entries.values() {
        position = if entry.kind == NORMAL {
            replay(&mut head, &view, position, entry)?
        } else {
            Position { index: entry.index, term: entry.term, ..position }
        };
    }
    Ok((head, position))
}
