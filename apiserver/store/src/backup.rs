//! Backups: the whole state of a store at one revision as one stream of bytes, and a store made of such a stream.
//!
//! What stands in the stream says `reeve_proto::backup`. Each record has a checksum and a number, and the last one a
//! SHA-256 of all before it: what was lost, changed or put elsewhere on the way shows. The past is not in a backup, nor
//! are the members: a store that is restored is a new one of one member. Its revisions go on far behind those of the
//! old one, everything before counts as compacted: who watched the old one is told to list again, whatever it has seen
//! that is not in the backup.
//!
//! What is not here: encryption and where backups are kept (`ctl`).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use reeve_proto::backup::{BackupEnd, BackupHead, BackupKey, BackupLease, BackupPart, MAGIC, VERSION};
use reeve_proto::store::{HardState, LogEntry, LogRecord, Member, Members, VERSION as STORE_VERSION};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

pub use reeve_proto::backup as contents;

use crate::disk::{Disk as _, DiskError, LockError, RealDisk};
use crate::encoding::{self, Position};
use crate::frame::{self, HEADER_LEN, Header, ReadError};
use crate::kv::{KeyRange, KeyValue, Kv, KvError, RangeRequest, Revision};
use crate::lease::{LEASE_TTL_MIN, Lease, LeaseId, LeaseStatus};
use crate::limits::KEY_LEN_MAX;
use crate::log::{Keep, Log};
use crate::offline;
use crate::read::Overlay;
use crate::recover::{MEMBER_FILE, OpenError, SOLE_MEMBER};
use crate::snapshot;

/// A part is closed when it has this many bytes.
const PART_BYTES: usize = 512 * 1024;
/// A longer record is damage: a part has one value too much at most.
const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Keys that are read at a time: so many at first, then as many as make a part.
const PAGE_KEYS: usize = 16;
const PAGE_KEYS_MAX: usize = 2048;
/// Leases that are asked for at once: they share the question to the leader.
const LEASES_AT_ONCE: usize = 64;
/// Leases in a part.
const PART_LEASES: usize = 10_000;
/// How far the revisions of a restored store lie behind the backup's: more than any store makes between two backups
/// (a hundred days of a hundred writes per second).
pub const REVISIONS_AHEAD: u64 = 1_000_000_000;
/// A backup of a higher revision was not made by a store.
const REVISION_MAX: u64 = u64::MAX / 2;
/// A backup that was saved by a tool of etcd's is filled up with zeros to a multiple of this, and then has a
/// checksum of [`CHECKSUM_BYTES`], which its own makes superfluous.
pub const BLOCK_BYTES: usize = 512;
const CHECKSUM_BYTES: usize = 32;
/// A reader that takes nothing for so long is given up: as long as it is there, nothing of the past is removed.
const READER_PATIENCE: Duration = Duration::from_secs(60);
/// How much is read of a backup at a time.
const READ_BYTES: usize = 64 * 1024;

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It begins with something else.
    #[error("this is not a backup")]
    Foreign,
    /// A newer program made it.
    #[error("this backup has format {found}, this program knows formats up to {VERSION}: use the newer program")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It is not what was written.
    #[error("the backup is damaged at offset {offset}: {what}")]
    Damaged {
        /// Where, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// It has no end.
    #[error("the backup is cut short: it ends after {offset} bytes, in the middle")]
    Truncated {
        /// Where it ends.
        offset: u64,
    },
    /// Whoever made it could not finish it.
    #[error("the backup was broken off: {reason}")]
    BrokenOff {
        /// In its own words.
        reason: String,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why no store was made of a backup. What has been written is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The folder's disk.
    #[error("{source}: {}", source.source)]
    Disk {
        /// The step that failed.
        #[from]
        source: DiskError,
    },
    /// What lies in the folder.
    #[error(transparent)]
    Read(#[from] crate::Damage),
}

impl From<ReadError> for RestoreError {
    fn from(err: ReadError) -> Self {
        match err {
            ReadError::Disk(source) => Self::Disk { source },
            ReadError::Damage(err) => Self::Read(err),
        }
    }
}

/// Why the folder of a stopped store was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Somebody else has the folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What lies in it cannot be read.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Where the backup goes cannot be written.
    #[error("cannot write the backup: {0}")]
    Write(#[from] std::io::Error),
}

/// Whether what stands behind the end of a backup, at `offset`, is nothing, or what a tool of etcd's has left there.
fn is_trailer(offset: u64, bytes: &[u8]) -> bool {
    let Some(zeros) = bytes.len().checked_sub(CHECKSUM_BYTES) else { return bytes.is_empty() };
    let ends_a_block = (offset + zeros as u64).is_multiple_of(BLOCK_BYTES as u64);
    zeros < BLOCK_BYTES && ends_a_block && bytes[..zeros].iter().all(|byte| *byte == 0)
}

/// Writes the records of a backup.
#[derive(Debug)]
struct Packer {
    hasher: Sha256,
    number: u64,
    keys: u64,
}

impl Packer {
    fn begin(head: &BackupHead) -> (Self, Bytes) {
        let mut own = Self { hasher: Sha256::new(), number: 0, keys: 0 };
        own.hasher.update(MAGIC);
        let record = own.record(head);
        (own, [&MAGIC[..], &record[..]].concat().into())
    }

    fn record(&mut self, message: &impl prost::Message) -> Bytes {
        let mut bytes = Vec::new();
        frame::encode(self.number, message, &mut bytes);
        self.number += 1;
        self.hasher.update(&bytes);
        bytes.into()
    }

    fn part(&mut self, keys: Vec<BackupKey>) -> Bytes {
        self.keys += keys.len() as u64;
        self.record(&BackupPart { keys, ..BackupPart::default() })
    }

    /// Nothing, when there are none.
    fn leases(&mut self, leases: &[BackupLease]) -> Vec<Bytes> {
        let chunks = leases.chunks(PART_LEASES);
        chunks.map(|leases| self.record(&BackupPart { leases: leases.to_vec(), ..BackupPart::default() })).collect()
    }

    fn end(mut self) -> Bytes {
        let sha256 = self.hasher.clone().finalize().to_vec();
        let end = BackupEnd { keys: self.keys, sha256 };
        self.record(&BackupPart { end: Some(end), ..BackupPart::default() })
    }

    fn broken_off(mut self, reason: String) -> Bytes {
        self.record(&BackupPart { failure: reason, ..BackupPart::default() })
    }
}

/// Sends the newest state of a store as the pieces of a backup. `about` says what stands in its head; revision and
/// number of keys are filled in. An error is also told in the backup, which then has no end. A reader that goes away is
/// none.
pub async fn pack(kv: &dyn Kv, about: BackupHead, sink: &mpsc::Sender<Bytes>) -> Result<(), KvError> {
    // A read that is linearizable: what was acknowledged anywhere before is in what is held.
    kv.range(RangeRequest { count_only: true, ..RangeRequest::key("backup") }).await?;
    let hold = kv.hold();
    let at = hold.revision();
    let all = RangeRequest { revision: Some(at), count_only: true, ..RangeRequest::prefix(Bytes::new()) };
    let keys = kv.range(all).await?.count as u64;
    let head = BackupHead { version: VERSION, revision: at.0, keys, ..about };
    let (mut packer, begin) = Packer::begin(&head);
    let leases = match leases_of(kv).await {
        Ok(leases) => packer.leases(&leases),
        Err(err) => {
            sent(sink, packer.broken_off(err.to_string())).await;
            return Err(err);
        }
    };
    for piece in std::iter::once(begin).chain(leases) {
        if !sent(sink, piece).await {
            return Ok(());
        }
    }
    let (mut from, mut limit) = (Bytes::new(), PAGE_KEYS);
    loop {
        let page = match kv.range(page_from(&from, at, limit)).await {
            Ok(page) => page,
            Err(err) => {
                sent(sink, packer.broken_off(err.to_string())).await;
                return Err(err);
            }
        };
        let Some(last) = page.kvs.last() else { break };
        from = [&last.key[..], &[0]].concat().into();
        let bytes: usize = page.kvs.iter().map(size).sum();
        limit = (limit * PART_BYTES / bytes.max(1)).clamp(1, (4 * limit).min(PAGE_KEYS_MAX));
        let more = page.more;
        if !sent(sink, packer.part(page.kvs.into_iter().map(packed).collect())).await {
            return Ok(());
        }
        if !more {
            break;
        }
    }
    sent(sink, packer.end()).await;
    Ok(())
}

/// Whether a piece was taken in time.
async fn sent(sink: &mpsc::Sender<Bytes>, piece: Bytes) -> bool {
    matches!(tokio::time::timeout(READER_PATIENCE, sink.send(piece)).await, Ok(Ok(())))
}

/// The leases that there are, asked for when the revision is held: one of them may have ended since.
async fn leases_of(kv: &dyn Kv) -> Result<Vec<BackupLease>, KvError> {
    let asked = kv.leases().await?.into_iter().map(|id| kv.lease_status(id, false));
    let told: Vec<_> = futures::stream::iter(asked).buffered(LEASES_AT_ONCE).try_collect().await?;
    let lease = |status: LeaseStatus| BackupLease { id: status.id.0, ttl: status.granted_ttl };
    Ok(told.into_iter().flatten().map(lease).collect())
}

fn page_from(from: &Bytes, at: Revision, limit: usize) -> RangeRequest {
    // No key is longer.
    let end = Bytes::from(vec![0xff; KEY_LEN_MAX + 1]);
    let range = KeyRange::Span { start: from.clone(), end };
    RangeRequest { revision: Some(at), limit, uncounted: true, ..RangeRequest::new(range) }
}

fn size(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len() + 32
}

fn packed(kv: KeyValue) -> BackupKey {
    BackupKey {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        lease: kv.lease.0,
    }
}

/// Writes a backup of a store that does not run, whose folder this is. Nothing in the folder changes.
pub fn pack_folder(folder: &Path, about: BackupHead, out: &mut dyn Write) -> Result<Summary, PackError> {
    let disk = RealDisk::new(folder);
    let lock = disk.lock()?;
    let (head, position) = offline::load(&disk)?;
    let all = head.range(&RangeRequest::prefix(Bytes::new()), &Overlay::new()).kvs;
    let about = BackupHead { version: VERSION, revision: position.revision.0, keys: all.len() as u64, ..about };
    let (mut packer, begin) = Packer::begin(&about);
    out.write_all(&begin)?;
    let lease = |id: LeaseId| head.leases().get(id).map(|lease| BackupLease { id: id.0, ttl: lease.ttl });
    let leases: Vec<BackupLease> = head.leases().ids().filter_map(lease).collect();
    packer.leases(&leases).iter().try_for_each(|piece| out.write_all(piece))?;
    let (mut part, mut bytes) = (Vec::new(), 0);
    for kv in all {
        bytes += size(&kv);
        part.push(packed(kv));
        if bytes >= PART_BYTES {
            out.write_all(&packer.part(std::mem::take(&mut part)))?;
            bytes = 0;
        }
    }
    if !part.is_empty() {
        out.write_all(&packer.part(part))?;
    }
    let keys = packer.keys;
    out.write_all(&packer.end())?;
    drop(lock);
    Ok(Summary { head: about, keys })
}

/// A piece of a backup.
#[derive(Debug)]
pub enum Item {
    /// What it begins with.
    Head(BackupHead),
    /// Leases, before any key.
    Leases(Vec<BackupLease>),
    /// Some keys, in order.
    Keys(Vec<BackupKey>),
}

/// What a backup that is whole consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What it begins with.
    pub head: BackupHead,
    /// How many keys are in it.
    pub keys: u64,
}

/// Takes the bytes of a backup as they come, and checks them. Nothing that came out of it may be relied upon before
/// [`Unpacker::finish`] has said that all of it was whole.
#[derive(Debug, Default)]
pub struct Unpacker {
    buffer: Vec<u8>,
    /// Where the buffer begins.
    offset: u64,
    number: u64,
    keys: u64,
    head: Option<BackupHead>,
    hasher: Sha256,
    ended: bool,
}

impl Unpacker {
    /// Takes the next bytes; what is complete with them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Item>, BackupError> {
        self.buffer.extend_from_slice(bytes);
        let mut items = Vec::new();
        if self.offset == 0 {
            let known = self.buffer.len().min(MAGIC.len());
            if self.buffer[..known] != MAGIC[..known] {
                return Err(BackupError::Foreign);
            }
            if known < MAGIC.len() {
                return Ok(items);
            }
            self.taken(MAGIC.len());
        }
        loop {
            if self.ended {
                if self.buffer.len() > BLOCK_BYTES + CHECKSUM_BYTES {
                    return Err(self.damaged("something stands behind its end"));
                }
                return Ok(items);
            }
            if self.buffer.len() < HEADER_LEN {
                return Ok(items);
            }
            let header = Header::decode(&self.buffer)
                .filter(|header| header.number == self.number && header.len <= RECORD_BYTES_MAX)
                .ok_or_else(|| self.damaged("no record begins here"))?;
            let Some(payload) = self.buffer.get(HEADER_LEN..HEADER_LEN + header.len) else { return Ok(items) };
            if !header.fits(payload) {
                return Err(self.damaged("the checksum does not fit"));
            }
            items.extend({
                let payload = payload.to_vec();
                self.item(&payload)?
            });
            self.taken(HEADER_LEN + header.len);
            self.number += 1;
        }
    }

    /// After the last byte: whether that was all.
    pub fn finish(self) -> Result<Summary, BackupError> {
        let offset = self.offset + self.buffer.len() as u64;
        match self.head {
            Some(_) if self.ended && !is_trailer(self.offset, &self.buffer) => {
                Err(BackupError::Damaged { offset: self.offset, what: "something stands behind its end".to_owned() })
            }
            Some(head) if self.ended => Ok(Summary { head, keys: self.keys }),
            _ if offset == 0 => Err(BackupError::Foreign),
            _ => Err(BackupError::Truncated { offset }),
        }
    }

    /// How many keys have come.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    fn item(&mut self, payload: &[u8]) -> Result<Option<Item>, BackupError> {
        if self.head.is_none() {
            let head = BackupHead::decode(payload).map_err(|err| self.damaged(&err.to_string()))?;
            if head.version > VERSION {
                return Err(BackupError::Newer { found: head.version });
            }
            if head.revision == 0 || head.revision > REVISION_MAX {
                return Err(self.damaged("its revision cannot be"));
            }
            self.head = Some(head.clone());
            return Ok(Some(Item::Head(head)));
        }
        let part = BackupPart::decode(payload).map_err(|err| self.damaged(&err.to_string()))?;
        if !part.failure.is_empty() {
            return Err(BackupError::BrokenOff { reason: part.failure });
        }
        self.keys += part.keys.len() as u64;
        if let Some(end) = part.end {
            if end.keys != self.keys || end.sha256 != self.hasher.clone().finalize()[..] {
                return Err(self.damaged("its end does not fit what is before"));
            }
            self.ended = true;
        }
        if !part.leases.is_empty() {
            return Ok(Some(Item::Leases(part.leases)));
        }
        Ok((!part.keys.is_empty()).then_some(Item::Keys(part.keys)))
    }

    fn taken(&mut self, len: usize) {
        self.hasher.update(&self.buffer[..len]);
        self.buffer.drain(..len);
        self.offset += len as u64;
    }

    fn damaged(&self, what: &str) -> BackupError {
        BackupError::Damaged { offset: self.offset, what: what.to_owned() }
    }
}

/// Reads a backup to its end; every piece of it is shown as it comes.
pub fn unpack<E: From<BackupError>>(
    backup: &mut dyn Read,
    mut show: impl FnMut(Item) -> Result<(), E>,
) -> Result<Summary, E> {
    let mut unpacker = Unpacker::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match backup.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => unpacker.feed(&buffer[..n])?.into_iter().try_for_each(&mut show)?,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(BackupError::from(err).into()),
        }
    }
    Ok(unpacker.finish()?)
}

/// Makes a store in an empty folder. After an error the folder is of no use; when it returns `Ok` all of it is on disk.
pub fn restore(backup: &mut dyn Read, folder: &Path) -> Result<Summary, RestoreError> {
    restore_some(backup, folder, &|_| true)
}

/// [`restore`], but only of the keys that are `wanted`.
pub fn restore_some(
    backup: &mut dyn Read,
    folder: &Path,
    wanted: &dyn Fn(&BackupKey) -> bool,
) -> Result<Summary, RestoreError> {
    let disk = RealDisk::new(folder);
    let mut writer = snapshot::Writer::begin(&disk)?;
    let mut leases = BTreeMap::new();
    let summary = unpack(backup, |item| {
        let keys = match item {
            Item::Keys(keys) => keys,
            Item::Leases(more) => {
                leases.extend(more.into_iter().map(|lease| (lease.id, lease.ttl)));
                return Ok(());
            }
            Item::Head(_) => return Ok(()),
        };
        for key in keys.into_iter().filter(|key| wanted(key)) {
            if LeaseId(key.lease).is_some() {
                // One that ended while the backup was made: so it does again.
                leases.entry(key.lease).or_insert(LEASE_TTL_MIN);
            }
            let kv = KeyValue {
                key: key.key,
                value: key.value,
                create_revision: Revision(key.create_revision),
                mod_revision: Revision(key.mod_revision),
                version: key.version,
                lease: LeaseId(key.lease),
            };
            writer.add(&encoding::version_key(&kv.key, kv.mod_revision), &encoding::encode_put(&kv))?;
        }
        Ok::<_, RestoreError>(())
    })?;
    let revision = Revision(summary.head.revision + REVISIONS_AHEAD);
    let position = Position { index: 1, term: 1, revision, compacted: revision };
    for (id, ttl) in leases {
        let lease = Lease { ttl, renewals: 0 };
        writer.add(&encoding::lease_key(LeaseId(id), position.index), &encoding::encode_lease(Some(&lease)))?;
    }
    let members = Members { voters: vec![SOLE_MEMBER], ..Members::default() };
    writer.end(&disk, position, members.clone())?;
    // The one entry that the snapshot stands for: a log that began behind it would lack something.
    let hard_state = HardState { term: 1, vote: SOLE_MEMBER, commit: 1 };
    let entry = LogEntry { index: 1, term: 1, ..LogEntry::default() };
    let record = LogRecord {
        version: STORE_VERSION,
        hard_state: Some(hard_state),
        entries: vec![entry],
        ..LogRecord::default()
    };
    let (mut log, _) = Log::open(std::sync::Arc::new(disk.clone()), u64::MAX, Keep { after: 0, bytes: 0 })?;
    log.append(&record)?;
    let voters = members.voters.clone();
    let member = Member { version: STORE_VERSION, id: SOLE_MEMBER, voters, cluster: 0, members: Some(members) };
    frame::write_message(&disk, MEMBER_FILE, &member)?;
    Ok(summary)
}
