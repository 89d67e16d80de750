//! Snapshots for members that are too far behind: Raft offers the newest one, and whoever takes the offer fetches the
//! file piece by piece, at its own pace. Reading is a job; nothing else waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::time::Duration;

use raft::SnapshotStatus;
use raft::eraftpb::Snapshot;
use reeve_proto::member::{Ask, Piece, message::Kind};

use super::Member;
use crate::disk::Disk;
use crate::encoding::Position;
use crate::members::Members;
use crate::snapshot;

/// How large a piece is: small beside what may wait on a connection.
const PIECE_BYTES: u64 = 512 * 1024;
/// Raft is told that a snapshot did not arrive when nobody has asked for a piece for so long.
const ABANDONED_AFTER: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Outgoing {
    /// When each member was offered a snapshot, asked for a piece of it, or said that it makes its state of it.
    asked: BTreeMap<u64, Duration>,
    /// What is to be read; at most one for each member.
    asks: VecDeque<(u64, Ask)>,
    /// Files as far as they are read.
    files: BTreeMap<u64, File>,
    /// Who belonged to the group when the snapshot that is being written was begun.
    pub(super) members: Members,
}

/// A snapshot on its way to one member.
struct File {
    index: u64,
    offset: u64,
    reader: Box<dyn Read + Send>,
    /// The last piece: it may get lost.
    last: Option<Piece>,
}

/// What was read for a member.
pub(super) struct Served {
    to: u64,
    file: Option<File>,
    piece: Piece,
}

impl Outgoing {
    /// A member was offered a snapshot, or has asked for some of it.
    pub(super) fn note(&mut self, to: u64, now: Duration) {
        self.asked.insert(to, now);
    }

    /// Whether a member is fetching a snapshot.
    pub(super) fn is_busy(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether that member was offered a snapshot and does not yet go on from there.
    pub(super) fn is_fetching(&self, id: u64) -> bool {
        self.asked.contains_key(&id)
    }
}

impl Member {
    /// A snapshot was written: others can have it.
    pub(super) fn offer(&mut self, position: Position, bytes: u64) {
        let mut snapshot = Snapshot { data: bytes.to_be_bytes().to_vec(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (position.index, position.term);
        metadata.set_conf_state(self.outgoing.members.conf.clone());
        self.node.mut_store().offer(snapshot);
    }

    pub(super) fn on_ask(&mut self, from: u64, ask: Ask) {
        self.outgoing.note(from, self.parts.clock.monotonic());
        self.outgoing.asks.retain(|(member, _)| *member != from);
        self.outgoing.asks.push_back((from, ask));
    }

    /// Has the next piece read that somebody has asked for.
    pub(super) fn start_serving(&mut self) {
        if self.serve_job.is_some() {
            return;
        }
        let Some((to, ask)) = self.outgoing.asks.pop_front() else { return };
        let (file, disk) = (self.outgoing.files.remove(&to), self.parts.folder.disk.clone());
        self.serve_job = Some(self.parts.jobs.spawn(move || {
            let (file, piece) = read_piece(&*disk, file, ask);
            Served { to, file, piece }
        }));
    }

    pub(super) fn on_served(&mut self, served: Served) {
        let Served { to, file, piece } = served;
        if let Some(file) = file {
            self.outgoing.files.insert(to, file);
        }
        self.say(to, Kind::Piece(piece), false);
    }

    /// Somebody makes its state of a snapshot, or goes on from there. Raft's own word of that may get lost: without one
    /// it would wait for ever.
    pub(super) fn on_installing(&mut self, from: u64, goes_on: bool) {
        if goes_on {
            self.outgoing.note(from, self.parts.clock.monotonic());
            return;
        }
        self.outgoing.asked.remove(&from);
        self.outgoing.files.remove(&from);
        if self.leads() {
            self.node.report_snapshot(from, SnapshotStatus::Finish); // of no effect when Raft has heard of it
        }
    }

    /// Somebody has got all of a snapshot, and it is damaged: another one is written for whoever needs one.
    pub(super) fn on_spoilt(&mut self, from: u64, index: u64) {
        if self.node.mut_store().withdraw(index) {
            tracing::warn!(index, to = from, "The newest snapshot is damaged on this disk; it is written anew.");
        }
        self.outgoing.files.remove(&from);
        if self.leads() && self.outgoing.asked.remove(&from).is_some() {
            self.node.report_snapshot(from, SnapshotStatus::Failure);
        }
    }

    /// Tells Raft of snapshots that nobody fetches any more, so that it offers another. Called with every tick.
    pub(super) fn watch_outgoing(&mut self) {
        let now = self.now();
        let asked = std::mem::take(&mut self.outgoing.asked);
        let (late, busy): (BTreeMap<_, _>, BTreeMap<_, _>) =
            asked.into_iter().partition(|(_, at)| now.saturating_sub(*at) > ABANDONED_AFTER);
        self.outgoing.asked = busy;
        for to in late.into_keys() {
            self.outgoing.files.remove(&to);
            if self.leads() {
                self.node.report_snapshot(to, SnapshotStatus::Failure); // of no effect when it has arrived
            }
        }
    }
}

/// The piece that was asked for, and the file behind it. A piece that is empty and not the last one says that the file
/// is gone.
fn read_piece(disk: &dyn Disk, file: Option<File>, ask: Ask) -> (Option<File>, Piece) {
    let Ask { index, offset } = ask;
    let gone = Piece { index, offset, checksum: crc32fast::hash(&[]), ..Piece::default() };
    if let Some(file) = file.filter(|file| file.index == index) {
        match &file.last {
            Some(last) if last.offset == offset => {
                let piece = last.clone();
                return (Some(file), piece);
            }
            _ if file.offset == offset => return next_piece(file).unwrap_or((None, gone)),
            _ => {}
        }
    }
    let opened = snapshot::open(disk, index).map_err(|err| tracing::warn!(%err, "Cannot send a snapshot."));
    let Ok(Some(mut reader)) = opened else { return (None, gone) };
    match std::io::copy(&mut reader.by_ref().take(offset), &mut std::io::sink()) {
        Ok(skipped) if skipped == offset => {
            next_piece(File { index, offset, reader, last: None }).unwrap_or((None, gone))
        }
        _ => (None, gone),
    }
}

fn next_piece(mut file: File) -> Option<(Option<File>, Piece)> {
    let mut bytes = Vec::new();
    let read = file.reader.by_ref().take(PIECE_BYTES).read_to_end(&mut bytes);
    read.map_err(|err| tracing::warn!(%err, "Cannot read a snapshot.")).ok()?;
    let last = (bytes.len() as u64) < PIECE_BYTES;
    let checksum = crc32fast::hash(&bytes);
    let piece = Piece { index: file.index, offset: file.offset, bytes: bytes.into(), checksum, last };
    file.offset += piece.bytes.len() as u64;
    file.last = Some(piece.clone());
    Some((Some(file), piece))
}
