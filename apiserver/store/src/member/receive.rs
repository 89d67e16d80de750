//! A snapshot of another member: fetched piece by piece into a file, read through, then announced to Raft; when the log
//! says that it counts it becomes the view. Raft hears of it only when it is whole, so what it is told is true.
//!
//! One at a time: an offer that comes while one is fetched from somebody else takes its place, one that comes while one
//! is being installed is left alone; the leader offers again.

use std::time::Duration;

use raft::eraftpb::{Message, MessageType, Snapshot};
use reeve_proto::member::{Ask, Piece, message::Kind};

use super::{Member, stopped};
use crate::disk::DiskFile;
use crate::encoding::Position;
use crate::frame::ReadError;
use crate::head::Head;
use crate::kv::KvError;
use crate::members::Members;
use crate::recover::{OpenError, OpenView};
use crate::snapshot::{self, Pace};

/// A piece that does not come is asked for again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// And given up after this: the leader will offer another one.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);

/// How often the leader is told that a snapshot is not installed yet.
const SAY_PERIOD: Duration = Duration::from_millis(500);

/// A snapshot that is being fetched.
pub(super) struct Arrival {
    /// What Raft is told when all is here.
    message: Message,
    index: u64,
    term: u64,
    /// What is here already.
    offset: u64,
    /// Not there before the first piece, nor while the job has it.
    file: Option<Box<dyn DiskFile>>,
    asked: Duration,
    heard: Duration,
}

/// What came of a piece.
pub(super) struct Taken {
    index: u64,
    len: u64,
    outcome: Result<TakenPiece, ReadError>,
}

enum TakenPiece {
    /// There is more to come.
    More(Box<dyn DiskFile>),
    /// It is whole, durable and sound; who belonged to the group.
    Whole(Members),
}

/// A view that another member's snapshot has become.
pub(super) type Installed = (OpenView, Head);

impl Member {
    /// The leader has a snapshot for this member.
    pub(super) fn on_offer(&mut self, message: Message) {
        let metadata = message.get_snapshot().get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        let raft = &self.node.raft;
        if message.term < raft.term || index <= raft.raft_log.committed || raft.raft_log.match_term(index, term) {
            return self.step_raft(message); // there is nothing to fetch; Raft says so
        }
        if self.arrival_job.is_some() || self.install.is_some() || self.install_job.is_some() || self.space.is_full() {
            return;
        }
        let now = self.now();
        match &mut self.arrival {
            Some(arrival) if (arrival.index, arrival.term, arrival.message.from) == (index, term, message.from) => {
                arrival.message = message;
            }
            _ => {
                tracing::info!(from = message.from, index, "Fetching a snapshot: this member is too far behind.");
                let arrival = Arrival { message, index, term, offset: 0, file: None, asked: now, heard: now };
                self.arrival = Some(arrival);
            }
        }
        self.ask_for_piece();
    }

    fn ask_for_piece(&mut self) {
        let now = self.now();
        let Some(arrival) = &mut self.arrival else { return };
        arrival.asked = now;
        let (from, ask) = (arrival.message.from, Ask { index: arrival.index, offset: arrival.offset });
        self.say(from, Kind::Ask(ask), true);
    }

    /// A piece has come: into the file with it, if it is the one that was asked for.
    pub(super) fn on_piece(&mut self, from: u64, piece: Piece) {
        let now = self.now();
        let busy = self.arrival_job.is_some();
        let fits = |arrival: &&mut Arrival| {
            (arrival.message.from, arrival.index, arrival.offset) == (from, piece.index, piece.offset) && !busy
        };
        let Some(arrival) = self.arrival.as_mut().filter(fits) else { return };
        if crc32fast::hash(&piece.bytes) != piece.checksum {
            return; // it is asked for again
        }
        if piece.bytes.is_empty() && !piece.last {
            tracing::info!(from, "The snapshot is not there any more.");
            self.arrival = None;
            return;
        }
        arrival.heard = now;
        let (file, disk, index) = (arrival.file.take(), self.parts.folder.disk.clone(), arrival.index);
        self.arrival_job = Some(self.parts.jobs.spawn(move || {
            let take = || {
                let mut file = match file {
                    Some(file) => file,
                    None => {
                        let mut file = disk.create(&snapshot::received_file(index))?;
                        file.ease();
                        file
                    }
                };
                file.append(&piece.bytes)?;
                if !piece.last {
                    return Ok(TakenPiece::More(file));
                }
                file.sync()?;
                drop(file);
                let end = snapshot::check_received(&*disk, index)?;
                Ok(TakenPiece::Whole(end.members.map(Members::from_stored).unwrap_or_default()))
            };
            Taken { index, len: piece.bytes.len() as u64, outcome: take() }
        }));
    }

    pub(super) fn on_taken(&mut self, taken: Taken) {
        let Taken { index, len, outcome } = taken;
        let Some(mut arrival) = self.arrival.take_if(|arrival| arrival.index == index) else { return };
        match outcome {
            Ok(TakenPiece::More(file)) => {
                arrival.offset += len;
                arrival.file = Some(file);
                self.arrival = Some(arrival);
                self.ask_for_piece();
            }
            Ok(TakenPiece::Whole(members)) => {
                self.arrived = Some((index, members));
                self.say(arrival.message.from, Kind::Installing(true), true); // before Raft says that it is here
                self.said_installing = Some(self.now());
                self.step_raft(arrival.message);
            }
            Err(ReadError::Disk(err)) if err.is_full() => self.note_space(Ok(0)),
            Err(err) => {
                tracing::warn!(%err, "A snapshot of another member is of no use.");
                if matches!(err, ReadError::Damage(_)) {
                    self.say(arrival.message.from, Kind::Spoilt(index), true); // every piece came as it was read there
                }
            }
        }
    }

    /// Asks again for what does not come. Called with every tick.
    pub(super) fn watch_arrival(&mut self) {
        let now = self.now();
        self.say_installing(now);
        let Some(arrival) = &self.arrival else { return };
        if self.arrival_job.is_some() {
            return;
        }
        if now.saturating_sub(arrival.heard) > GIVE_UP_AFTER {
            tracing::warn!("The rest of a snapshot does not come.");
            self.arrival = None;
        } else if now.saturating_sub(arrival.asked) > ASK_AGAIN_AFTER {
            self.ask_for_piece();
        }
    }

    /// Tells the leader, whoever that is by now, that this member is not done with a snapshot.
    fn say_installing(&mut self, now: Duration) {
        let goes_on = self.install.is_some() || self.install_job.is_some();
        let is_due = self.said_installing.is_none_or(|said| now.saturating_sub(said) >= SAY_PERIOD);
        if let Some(leader) = self.leader().filter(|_| goes_on && is_due) {
            self.said_installing = Some(now);
            self.say(leader, Kind::Installing(true), true);
        }
    }

    /// Raft begins anew with a snapshot that is here; the log is about to say so.
    pub(super) fn begin_install(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        self.to_apply.clear();
        self.changing = None;
        if let Some((_, mut members)) = self.arrived.take_if(|(index, _)| *index == metadata.index) {
            members.conf = metadata.get_conf_state().clone();
            self.members = members;
        }
        self.proposals.lose_sight(metadata.term);
        self.on_members();
    }

    /// The log begins with the snapshot of this index. The leader hears of it when it has become the view: before that
    /// it would only send what cannot be taken in, again and again.
    pub(super) fn on_adopted(&mut self, index: u64, messages: Vec<Message>) {
        let tells = |message: &Message| message.get_msg_type() == MessageType::MsgAppendResponse;
        let (held, others) = messages.into_iter().partition(tells);
        self.told_when_installed = held;
        self.send(others);
        self.install = Some(index);
        self.snapshot = (index, 0);
        self.cut = Some(index);
    }

    /// Makes a view of it, when nobody works on the old one any more.
    pub(super) fn start_install(&mut self) {
        if self.install_job.is_some() || !self.view_is_free() || self.members_job.is_some() {
            return;
        }
        let Some(index) = self.install.take() else { return };
        let (folder, identity, members) = (self.parts.folder.clone(), self.identity.clone(), self.members.clone());
        // Others may wait for the answer of a voter.
        let pace = if members.votes(identity.id) { Pace::Fast } else { Pace::Gentle };
        self.install_job = Some(self.parts.jobs.spawn(move || {
            folder.write_member(&identity, &members)?;
            folder.install(index, pace)
        }));
    }

    pub(super) fn on_installed(&mut self, outcome: Result<Installed, OpenError>) -> Result<(), KvError> {
        let ((view, position), head) = outcome.map_err(|err| stopped("a snapshot of another member", &err))?;
        let Position { index, term, .. } = position;
        tracing::info!(index, revision = %position.revision, "Went on from a snapshot of another member.");
        let former = self.parts.mvcc.install(view, position, head);
        drop(self.parts.jobs.spawn(move || drop(former)));
        self.view_lost = None;
        self.scrubbing = true;
        if let Some(leader) = self.leader() {
            self.say(leader, Kind::Installing(false), true);
        }
        let told = std::mem::take(&mut self.told_when_installed);
        self.send(told);
        self.on_applied_to(index, term);
        Ok(())
    }
}
