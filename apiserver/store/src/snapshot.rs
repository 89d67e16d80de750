//! Snapshot files: the whole applied state as of one Raft entry, checksummed and synced, so that the log before it
//! can be dropped and a lost view rebuilt. At most one whole snapshot is kept.

use std::io::Read;

use prost::Message as _;
use reeve_proto::store::{Members, SnapshotEnd, SnapshotPart, SnapshotRecord, VERSION};

use crate::disk::{Disk, DiskError, DiskFile, GENTLE_BYTES};
use crate::encoding::{self, POSITION_KEY, Position};
use crate::frame::{self, Damage, HEADER_LEN, Header, ReadError};
use crate::kv::Revision;
use crate::view::{View, ViewBatch, ViewError, Visit};

/// The folder of the snapshots.
pub(crate) const SNAPSHOT_FOLDER: &str = "snapshots";
const WRITING: &str = "snapshots/writing.tmp";
/// A part is written when it has this many bytes. Small beside the memory of an idle process.
const PART_BYTES: usize = 256 * 1024;

/// Why a snapshot could not be written. The log stays as it is; nothing is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Why a view could not be filled from a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    View(#[from] ViewError),
}

impl From<Damage> for RestoreError {
    fn from(damage: Damage) -> Self {
        Self::Read(damage.into())
    }
}

impl From<DiskError> for RestoreError {
    fn from(err: DiskError) -> Self {
        Self::Read(err.into())
    }
}

/// Writes what the view held at `position`, then removes older snapshots; how many bytes it took. The view may
/// take over newer entries meanwhile, but nothing may be scrubbed from it.
pub(crate) fn write(disk: &dyn Disk, view: &dyn View, position: Position, members: Members) -> Result<u64, WriteError> {
    let mut writer = Writer::begin(disk)?;
    writer.file.ease(); // the log is written meanwhile
    let is_newer = |at: Revision| at > position.revision;
    writer.copy(view, &encoding::all_versions(), |key| encoding::split_version_key(key).map(|(_, at)| is_newer(at)))?;
    writer.copy(view, &encoding::all_history(), |key| encoding::history_revision(key).map(is_newer))?;
    writer
        .copy(view, &encoding::all_leases(), |key| encoding::split_lease_key(key).map(|(_, at)| at > position.index))?;
    Ok(writer.end(disk, position, members)?)
}

/// Removes snapshots older than the one of this index.
fn remove_before(disk: &dyn Disk, index: u64) -> Result<(), DiskError> {
    for name in disk.list(SNAPSHOT_FOLDER)? {
        if index_of(&name, ".snap").is_some_and(|older| older < index) {
            disk.remove(&format!("{SNAPSHOT_FOLDER}/{name}"))?;
        }
    }
    Ok(())
}

fn index_of(name: &str, suffix: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(suffix)?, 16).ok()
}

/// The index of the newest snapshot; `None` when there is none.
pub(crate) fn newest(disk: &dyn Disk) -> Result<Option<u64>, DiskError> {
    let names = disk.list(SNAPSHOT_FOLDER)?;
    Ok(names.iter().filter_map(|name| index_of(name, ".snap")).max())
}

/// What a snapshot that another member sent is called until the log says that it counts.
pub(crate) fn received_file(index: u64) -> String {
    format!("{SNAPSHOT_FOLDER}/{index:016x}.recv")
}

/// Reads a received snapshot through, so that nothing that is damaged ever counts, and makes it durable.
pub(crate) fn check_received(disk: &dyn Disk, index: u64) -> Result<SnapshotEnd, ReadError> {
    let end = read_received(disk, index)?;
    disk.sync_folder(SNAPSHOT_FOLDER)?;
    Ok(end)
}

/// Reads a received snapshot through.
fn read_received(disk: &dyn Disk, index: u64) -> Result<SnapshotEnd, ReadError> {
    let mut reader = Reader::open(disk, &received_file(index))?;
    let mut records = 0;
    loop {
        let part = reader.next()?;
        records += part.records.len() as u64;
        let Some(end) = part.end else { continue };
        if end.version > VERSION || end.index != index || end.records != records {
            return Err(reader.damage("its end does not fit").into());
        }
        return Ok(end);
    }
}

/// Makes a received snapshot the newest one: the log says by now that it begins with it.
pub(crate) fn adopt_received(disk: &dyn Disk, index: u64) -> Result<(), DiskError> {
    disk.rename(&received_file(index), &file_of(index))?;
    disk.sync_folder(SNAPSHOT_FOLDER)?;
    remove_before(disk, index)
}

/// The received snapshots that are there, whole or not.
pub(crate) fn received(disk: &dyn Disk) -> Result<Vec<u64>, DiskError> {
    Ok(disk.list(SNAPSHOT_FOLDER)?.iter().filter_map(|name| index_of(name, ".recv")).collect())
}

/// Opens a snapshot to be sent; `None` when it is gone.
pub(crate) fn open(disk: &dyn Disk, index: u64) -> Result<Option<Box<dyn Read + Send>>, DiskError> {
    disk.open(&file_of(index))
}

/// What a view was filled with.
pub(crate) struct Restored {
    pub(crate) position: Position,
    /// Who belonged to the group then; `None` in the snapshot of a sole member of former versions.
    pub(crate) members: Option<Members>,
}

/// A snapshot that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// It is in the place of all others.
    Whole(u64),
    /// Another member has sent it and the log begins with it, but the process has died before it got its place: the
    /// next start puts it there.
    Received(u64),
}

impl Counting {
    /// The snapshot that the state begins with, where the log begins anew behind the entry `base`; `None`: without one.
    pub(crate) fn find(disk: &dyn Disk, base: Option<u64>) -> Result<Option<Self>, DiskError> {
        let newest = newest(disk)?;
        let is_newer = |index: &u64| newest.is_none_or(|newest| newest < *index);
        match base.filter(is_newer) {
            Some(base) if received(disk)?.contains(&base) => Ok(Some(Self::Received(base))),
            _ => Ok(newest.map(Self::Whole)),
        }
    }

    pub(crate) fn index(self) -> u64 {
        let (Self::Whole(index) | Self::Received(index)) = self;
        index
    }

    /// As [`restore`] does, wherever it is.
    pub(crate) fn restore(self, disk: &dyn Disk, view: &dyn View) -> Result<Restored, RestoreError> {
        match self {
            Self::Whole(index) => restore(disk, index, view, Pace::Fast),
            Self::Received(index) => restore_file(disk, (&received_file(index), index), view, Pace::Fast),
        }
    }
}

/// How a view is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Somebody waits for it.
    Fast,
    /// Nobody does, but others need the disk.
    Gentle,
}

/// Fills an empty view from the snapshot of this index. Only at the end the view says where it stands.
pub(crate) fn restore(disk: &dyn Disk, index: u64, view: &dyn View, pace: Pace) -> Result<Restored, RestoreError> {
    restore_file(disk, (&file_of(index), index), view, pace)
}

fn restore_file(
    disk: &dyn Disk,
    (file, index): (&str, u64),
    view: &dyn View,
    pace: Pace,
) -> Result<Restored, RestoreError> {
    let mut reader = Reader::open(disk, file)?;
    let (mut records, mut has_former) = (0, false);
    loop {
        let part = reader.next()?;
        records += part.records.len() as u64;
        let (former, kept): (Vec<_>, Vec<_>) = part.records.into_iter().partition(|r| encoding::is_former(&r.key));
        has_former |= !former.is_empty();
        view.apply(kept.into_iter().map(|record| (record.key, Some(record.value))).collect())?;
        if pace == Pace::Gentle && view.unsettled() >= GENTLE_BYTES {
            view.settle_gently()?;
        }
        let Some(end) = part.end else { continue };
        if end.version > VERSION || end.index != index || end.records != records {
            return Err(reader.damage("its end does not fit").into());
        }
        let revision = Revision(end.revision);
        // Whoever wants to follow from before must list: what lies there cannot be read any more.
        let compacted = if has_former { revision } else { Revision(end.compacted) };
        let position = Position { index, term: end.term, revision, compacted };
        let mut last = ViewBatch::default();
        last.put(POSITION_KEY.to_vec(), position.encode());
        view.apply(last)?;
        return Ok(Restored { position, members: end.members });
    }
}

/// A snapshot in the making; of no use before its end.
pub(crate) struct Writer {
    file: Box<dyn DiskFile>,
    part: SnapshotPart,
    part_bytes: usize,
    parts: u64,
    records: u64,
    bytes: u64,
}

impl Writer {
    pub(crate) fn begin(disk: &dyn Disk) -> Result<Self, DiskError> {
        let file = disk.create(WRITING)?;
        Ok(Self { file, part: SnapshotPart::default(), part_bytes: 0, parts: 0, records: 0, bytes: 0 })
    }

    /// The last of it; then it is in the place of all others. How many bytes it took.
    pub(crate) fn end(mut self, disk: &dyn Disk, position: Position, members: Members) -> Result<u64, DiskError> {
        self.finish(position, members)?;
        let file = file_of(position.index);
        disk.rename(WRITING, &file)?;
        disk.sync_folder(SNAPSHOT_FOLDER)?;
        remove_before(disk, position.index)?;
        Ok(self.bytes)
    }

    /// Copies a key space, without what is newer than the snapshot.
    fn copy(
        &mut self,
        view: &dyn View,
        (from, to): &(Vec<u8>, Vec<u8>),
        is_newer: impl Fn(&[u8]) -> Option<bool>,
    ) -> Result<(), WriteError> {
        let mut outcome = Ok(());
        view.visit(from, to, &mut |key, value| {
            match is_newer(key) {
                Some(true) => return Visit::Next,
                Some(false) => outcome = self.add(key, value).map_err(WriteError::from),
                None => outcome = Err(ViewError::malformed("cannot be copied past", key).into()),
            }
            if outcome.is_ok() { Visit::Next } else { Visit::Stop }
        })?;
        outcome
    }

    /// Adds a record of a view.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), DiskError> {
        self.part_bytes += key.len() + value.len();
        self.part.records.push(SnapshotRecord { key: key.to_vec(), value: value.to_vec() });
        self.records += 1;
        if self.part_bytes >= PART_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let mut bytes = Vec::new();
        frame::encode(self.parts, &std::mem::take(&mut self.part), &mut bytes);
        self.file.append(&bytes)?;
        self.bytes += bytes.len() as u64;
        self.parts += 1;
        self.part_bytes = 0;
        Ok(())
    }

    fn finish(&mut self, position: Position, members: Members) -> Result<(), DiskError> {
        self.part.end = Some(SnapshotEnd {
            version: VERSION,
            index: position.index,
            term: position.term,
            revision: position.revision.0,
            compacted: position.compacted.0,
            voters: members.voters.clone(),
            records: self.records,
            members: Some(members),
        });
        self.flush()?;
        self.file.sync()
    }
}

struct Reader {
    file: Box<dyn Read + Send>,
    path: String,
    offset: u64,
    parts: u64,
}

impl Reader {
    fn open(disk: &dyn Disk, name: &str) -> Result<Self, ReadError> {
        let path = disk.path_of(name);
        let gone = || Damage { path: path.clone(), offset: 0, what: "it is not there".to_owned() };
        Ok(Self { file: disk.open(name)?.ok_or_else(gone)?, path, offset: 0, parts: 0 })
    }

    fn next(&mut self) -> Result<SnapshotPart, Damage> {
        let mut header = [0; HEADER_LEN];
        self.file.read_exact(&mut header).map_err(|err| self.damage(&err.to_string()))?;
        let header = Header::decode(&header)
            .filter(|header| header.number == self.parts)
            .ok_or_else(|| self.damage("no part begins here"))?;
        let mut payload = vec![0; header.len];
        self.file.read_exact(&mut payload).map_err(|err| self.damage(&err.to_string()))?;
        let part = Some(&payload[..])
            .filter(|payload| header.fits(payload))
            .and_then(|payload| SnapshotPart::decode(payload).ok())
            .ok_or_else(|| self.damage("checksum does not fit"))?;
        self.offset += (HEADER_LEN + header.len) as u64;
        self.parts += 1;
        Ok(part)
    }

    fn damage(&self, what: &str) -> Damage {
        Damage { path: self.path.clone(), offset: self.offset, what: what.to_owned() }
    }
}

fn file_of(index: u64) -> String {
    format!("{SNAPSHOT_FOLDER}/{index:016x}.snap")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::view::MemoryView;

    #[test]
    fn history_as_it_was_once_written_counts_as_compacted() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path());
        let state = (encoding::version_key(b"k", Revision(9)), b"state".to_vec());
        let former = ([&b"r"[..], &9_u64.to_be_bytes(), &0_u32.to_be_bytes()].concat(), b"k".to_vec());
        let records = [state.clone(), former].map(|(key, value)| SnapshotRecord { key, value }).to_vec();
        let end =
            SnapshotEnd { version: VERSION, index: 5, term: 1, revision: 9, records: 2, ..SnapshotEnd::default() };
        let mut bytes = Vec::new();
        frame::encode(0, &SnapshotPart { records, end: Some(end) }, &mut bytes);
        disk.create(&file_of(5)).unwrap().append(&bytes).unwrap();

        let view = MemoryView::default();
        let position = restore(&disk, 5, &view, Pace::Fast).unwrap().position;
        assert_eq!((position.revision, position.compacted), (Revision(9), Revision(9)));
        let mut keys = Vec::new();
        view.visit(b"", b"\xff", &mut |key, _| {
            keys.push(key.to_vec());
            Visit::Next
        })
        .unwrap();
        assert_eq!(keys, [POSITION_KEY.to_vec(), state.0]);
    }
}
