//! The write-ahead log: Raft's entries and hard state in append-only segment files. One record is one `fdatasync`,
//! and a write is acknowledged when its record is there. Reading is for the start; nothing reads while it runs.
//!
//! A segment is called after the number of its first record. Record numbers have no gaps, within a segment and
//! from one to the next, so that a lost or damaged piece shows. Only the end of the last segment may be torn: that
//! is a record nobody was told of, and it is cut. A bad record with a good one behind it is damage, and refused.
//! Zeros at the end of a segment are room that was made for records and not needed.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;
use reeve_proto::store::{HardState, LogEntry, LogRecord, VERSION};

use crate::disk::{Disk, DiskError, DiskFile, read_file};
use crate::frame::{self, Damage, HEADER_LEN, ReadError};

/// The folder of the segments.
pub(crate) const LOG_FOLDER: &str = "log";
/// The buffer that a record is encoded in is kept up to this size.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Writes the log. Owned by one; all methods block.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    /// Oldest first; the last one is written to if `file` is there.
    segments: VecDeque<Segment>,
    file: Option<Box<dyn DiskFile>>,
    next_number: u64,
    buffer: Vec<u8>,
    /// The largest segment is this and one record. Reading at the start holds one in memory.
    segment_bytes: u64,
}

struct Segment {
    name: String,
    bytes: u64,
    /// The highest index in it; 0 when it holds no entry.
    last_index: u64,
}

/// What was in the log.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) hard_state: HardState,
    /// The entries behind the index that was asked for, and as many before them as was asked for.
    pub(crate) entries: VecDeque<LogEntry>,
    /// Index and term of the entry before these, if it is known; 0 otherwise.
    pub(crate) before: (u64, u64),
    /// The snapshot of another member with which the log began anew: index and term of its last entry.
    pub(crate) base: Option<(u64, u64)>,
    /// The first index in the log; 0 when it is empty.
    pub(crate) first_index: u64,
    /// The last index in the log; 0 when it is empty.
    pub(crate) last_index: u64,
    /// Bytes of the entries up to `keep.after`.
    former_bytes: usize,
}

/// Which entries are kept in memory when the log is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// All behind this one.
    pub(crate) after: u64,
    /// And before it, the last ones that have so many bytes together.
    pub(crate) bytes: usize,
}

impl Log {
    /// Reads the log and makes it ready to be written.
    pub(crate) fn open(disk: Arc<dyn Disk>, segment_bytes: u64, keep: Keep) -> Result<(Self, Recovered), ReadError> {
        let mut log =
            Self { disk, segments: VecDeque::new(), file: None, next_number: 1, buffer: Vec::new(), segment_bytes };
        let mut recovered = Recovered::default();
        let names = log.disk.list(LOG_FOLDER)?;
        for (n, name) in names.iter().enumerate() {
            let first =
                first_number(name).ok_or_else(|| log.damage(name, 0, "a file of this name has no place here"))?;
            if n == 0 {
                log.next_number = first;
            }
            if first != log.next_number {
                let what = format!("records {} to {} are missing before it", log.next_number, first.saturating_sub(1));
                return Err(log.damage(name, 0, &what).into());
            }
            log.read_segment(name, n + 1 == names.len(), &mut recovered, keep)?;
        }
        Ok((log, recovered))
    }

    /// Makes a record durable. When the disk is full ([`DiskError::is_full`]) the log is as it was before; after any
    /// other error nothing is known of the record, and the log must not be used any more.
    pub(crate) fn append(&mut self, record: &LogRecord) -> Result<(), DiskError> {
        match self.write(record) {
            Err(err) if err.is_full() => {
                self.take_back()?;
                Err(err)
            }
            outcome => outcome,
        }
    }

    fn write(&mut self, record: &LogRecord) -> Result<(), DiskError> {
        self.buffer.clear();
        frame::encode(self.next_number, record, &mut self.buffer);
        let full = self.segments.back().is_none_or(|segment| segment.bytes >= self.segment_bytes);
        let new = full || self.file.is_none();
        if new {
            self.begin_segment()?;
        }
        if let (Some(file), Some(segment)) = (&mut self.file, self.segments.back_mut()) {
            file.append(&self.buffer)?;
            file.sync()?;
            segment.bytes += self.buffer.len() as u64;
            let base = record.base.map(|base| base.index);
            let last = record.entries.last().map(|entry| entry.index).or(base);
            segment.last_index = last.unwrap_or(segment.last_index);
        }
        if new {
            self.disk.sync_folder(LOG_FOLDER)?;
        }
        self.next_number += 1;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES); // a huge batch must not stay in memory
        Ok(())
    }

    /// Cuts off a record that was not written whole. The next one begins a segment: this file is not where its end is.
    fn take_back(&mut self) -> Result<(), DiskError> {
        self.file = None;
        match self.segments.back() {
            Some(segment) if segment.bytes > 0 => self.disk.truncate(&path(&segment.name), segment.bytes),
            Some(segment) => {
                self.disk.remove(&path(&segment.name))?;
                self.segments.pop_back();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes leave of the segments that hold nothing behind `index`: all that is in them is in a durable snapshot. What
    /// they are called, oldest first, for [`remove`]. Does not block.
    pub(crate) fn cut(&mut self, index: u64) -> Vec<String> {
        let mut cut = Vec::new();
        while self.segments.len() > 1 && self.segments.front().is_some_and(|segment| segment.last_index <= index) {
            cut.extend(self.segments.pop_front().map(|segment| segment.name));
        }
        cut
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Number of segments.
    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }

    fn begin_segment(&mut self) -> Result<(), DiskError> {
        let name = format!("{:016x}.log", self.next_number);
        let mut file = self.disk.create(&path(&name))?;
        file.reserve(self.segment_bytes);
        self.file = Some(file);
        self.segments.push_back(Segment { name, bytes: 0, last_index: 0 });
        Ok(())
    }

    fn read_segment(
        &mut self,
        name: &str,
        is_last: bool,
        recovered: &mut Recovered,
        keep: Keep,
    ) -> Result<(), ReadError> {
        let bytes = read_file(&*self.disk, &path(name))?.unwrap_or_default();
        let mut segment = Segment { name: name.to_owned(), bytes: 0, last_index: 0 };
        let mut at = 0;
        while let Some(payload) = bytes.get(at..).and_then(|rest| frame::decode(self.next_number, rest)) {
            let record = LogRecord::decode(payload)
                .ok()
                .filter(|record| record.version <= VERSION)
                .ok_or_else(|| self.damage(name, at, "record of a newer version"))?;
            recovered.take(record, keep).map_err(|what| self.damage(name, at, &what))?;
            segment.last_index = recovered.last_index;
            self.next_number += 1;
            at += HEADER_LEN + payload.len();
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let torn = frame::written(rest);
        if !torn.is_empty() {
            if !is_last || frame::any_later(self.next_number, rest) {
                return Err(self.damage(name, at, &format!("record {} is not whole", self.next_number)).into());
            }
            tracing::warn!(segment = name, offset = at, bytes = torn.len(), "Cut off the torn end of the log.");
        }
        if is_last {
            // Even without a torn end: a process that was killed before its sync leaves a record that can be read
            // but would not survive a power cut, and from here on it counts as written.
            self.disk.truncate(&path(name), at as u64)?;
            self.disk.sync_folder(LOG_FOLDER)?;
        }
        if at == 0 {
            self.disk.remove(&path(name))?;
            self.disk.sync_folder(LOG_FOLDER)?;
            return Ok(());
        }
        segment.bytes = at as u64;
        self.segments.push_back(segment);
        Ok(())
    }

    fn damage(&self, name: &str, offset: usize, what: &str) -> Damage {
        Damage { path: self.disk.path_of(&path(name)), offset: offset as u64, what: what.to_owned() }
    }
}

impl Recovered {
    fn take(&mut self, record: LogRecord, keep: Keep) -> Result<(), String> {
        self.hard_state = record.hard_state.ok_or("record without hard state")?;
        if let Some(base) = record.base {
            self.entries.clear();
            self.former_bytes = 0;
            self.before = (base.index, base.term);
            self.base = Some(self.before);
            (self.first_index, self.last_index) = (base.index + 1, base.index);
        }
        for entry in record.entries {
            if self.last_index != 0 && entry.index > self.last_index + 1 {
                return Err(format!("entry {} follows entry {}", entry.index, self.last_index));
            }
            while let Some(last) = self.entries.back().filter(|last| last.index >= entry.index) {
                self.former_bytes -= former_bytes(last, keep);
                self.entries.pop_back();
            }
            if self.first_index == 0 {
                self.first_index = entry.index;
            }
            self.last_index = entry.index;
            self.former_bytes += former_bytes(&entry, keep);
            self.entries.push_back(entry);
            self.forget(keep);
        }
        Ok(())
    }

    /// Drops what need not be kept.
    fn forget(&mut self, keep: Keep) {
        while let Some(first) = self.entries.front().filter(|first| first.index <= keep.after) {
            if self.former_bytes <= keep.bytes {
                return;
            }
            self.before = (first.index, first.term);
            self.former_bytes -= former_bytes(first, keep);
            self.entries.pop_front();
        }
    }
}

/// Removes segments that were cut off, oldest first, so that whatever is left of them still leads to those that count.
/// Takes as long as the file system likes: the log is written meanwhile.
pub(crate) fn remove(disk: &dyn Disk, segments: &[String]) -> Result<(), DiskError> {
    segments.iter().try_for_each(|name| disk.remove(&path(name)))?;
    if segments.is_empty() { Ok(()) } else { disk.sync_folder(LOG_FOLDER) }
}

/// What an entry counts of those that are only kept for others.
fn former_bytes(entry: &LogEntry, keep: Keep) -> usize {
    if entry.index > keep.after { 0 } else { size_of::<LogEntry>() + entry.data.len() }
}

fn path(name: &str) -> String {
    format!("{LOG_FOLDER}/{name}")
}

/// The number of a segment's first record, by which it is called.
pub(crate) fn first_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::disk::RealDisk;
    use crate::offline;

    const KEEP: Keep = Keep { after: 0, bytes: 0 };

    fn record(index: u64) -> LogRecord {
        // It ends with zeros of its own.
        let entry = LogEntry { index, term: 1, data: vec![0; 500], ..LogEntry::default() };
        LogRecord { version: VERSION, hard_state: Some(HardState::default()), entries: vec![entry], base: None }
    }

    /// A log of several segments with room behind its records, as a process leaves it that is killed.
    /// And where in the last segment the room begins.
    fn killed(folder: &std::path::Path) -> (Arc<RealDisk>, u64) {
        let disk = Arc::new(RealDisk::new(folder));
        let (mut log, _) = Log::open(disk.clone(), 4096, KEEP).unwrap();
        (1..=20).for_each(|index| log.append(&record(index)).unwrap());
        (disk, log.segments.back().unwrap().bytes)
    }

    #[test]
    fn room_that_was_made_for_records_is_no_damage_and_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, written) = killed(folder.path());
        let last = disk.path_of(&path(disk.list(LOG_FOLDER).unwrap().last().unwrap()));
        assert!(written < 4096 && std::fs::metadata(last).unwrap().len() == 4096);
        let scan = offline::scan_log(&*disk, &mut |_| {}).unwrap();
        assert!(scan.damage.is_empty() && scan.torn == 0 && scan.records == 20);
        let (mut log, recovered) = Log::open(disk.clone(), 4096, KEEP).unwrap();
        assert_eq!((recovered.last_index, scan.bytes), (20, log.bytes()));
        (21..=30).for_each(|index| log.append(&record(index)).unwrap());
        drop(log);
        assert_eq!(Log::open(disk, 4096, KEEP).unwrap().1.last_index, 30);
    }

    #[test]
    fn a_record_that_is_torn_within_that_room_is_cut_and_damage_before_a_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, at) = killed(folder.path());
        let mut whole = Vec::new();
        frame::encode(21, &record(21), &mut whole);
        let write = |segment: &str, bytes: &[u8], at: u64| {
            let file = std::fs::File::options().write(true).open(disk.path_of(&path(segment))).unwrap();
            file.write_all_at(bytes, at).unwrap();
        };
        let segments = disk.list(LOG_FOLDER).unwrap();
        write(segments.last().unwrap(), &whole[..14], at);
        let scan = offline::scan_log(&*disk, &mut |_| {}).unwrap();
        assert!(scan.damage.is_empty() && scan.torn > 0 && scan.torn <= 14);
        assert_eq!(Log::open(disk.clone(), 4096, KEEP).unwrap().1.last_index, 20);
        assert_eq!(offline::scan_log(&*disk, &mut |_| {}).unwrap().torn, 0);
        write(&segments[0], &[1; 30], 600);
        assert!(matches!(Log::open(disk.clone(), 4096, KEEP), Err(ReadError::Damage(_))));
    }
}
