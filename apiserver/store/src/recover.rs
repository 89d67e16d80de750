//! How a member comes back: decides whether the view on disk may be used, rebuilds it from snapshot and log if
//! not, and reads what of the log is not in it yet.
//!
//! The view is used after a clean close, or when the machine has not been restarted since it was opened: then the
//! page cache is whole, whatever became of the process. After a restart of the machine it may have lost anything.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;
use raft::eraftpb::EntryType;
use reeve_proto::store::{Batch, LogEntry, Member, VERSION, ViewPhase, ViewState};

use crate::convert::Unknown;
use crate::disk::{Disk, DiskError, LockError};
use crate::encoding::Position;
use crate::evaluate::{Command, Evaluator};
use crate::frame::{self, Damage, ReadError};
use crate::head::Head;
use crate::log::{Keep, LOG_FOLDER, Log, Recovered};
use crate::members::Members;
use crate::mvcc::position_of;
use crate::snapshot::{self, Pace, RestoreError, Restored};
use crate::transport::{MemberConfig, Peer};
use crate::view::{View, ViewError, Views};

/// Says who this member is.
pub(crate) const MEMBER_FILE: &str = "member";
/// Says whether the view may be used.
pub(crate) const VIEW_STATE_FILE: &str = "view.state";
/// What a member keeps of the log in memory for those that are behind: some seconds of a busy cluster. It counts
/// towards what the store may take besides its data.
pub(crate) const RETAINED_BYTES: usize = 8 * 1024 * 1024;
/// Raft's number of the only member.
pub(crate) const SOLE_MEMBER: u64 = 1;

/// Why a store could not be opened. Nothing has been changed, but that a torn end of the log was cut.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has the data folder, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk refuses something.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file is damaged. Restore a backup, or remove the data folder to begin anew.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The log ends before what is known to have been applied: acknowledged writes are missing.
    #[error("{path} ends at entry {last}, but entry {applied} was applied: acknowledged writes are missing")]
    LogTooShort {
        /// The folder of the log.
        path: String,
        /// The last entry in it.
        last: u64,
        /// The last entry in view or snapshot.
        applied: u64,
    },
    /// Entries between the snapshot and the log are missing.
    #[error("{path} begins at entry {first}, but the snapshot ends at entry {snapshot}")]
    LogGap {
        /// The folder of the log.
        path: String,
        /// The first entry in it.
        first: u64,
        /// The last entry in the snapshot.
        snapshot: u64,
    },
    /// The folder belongs to another member or group than the one it was opened as.
    #[error("{path} belongs to {owner}, but was opened as {opened}")]
    Identity {
        /// The member file.
        path: String,
        /// Whose it is.
        owner: String,
        /// As whom it was opened.
        opened: String,
    },
    /// Even a new view fails.
    #[error(transparent)]
    View(#[from] ViewError),
    /// An old view cannot be removed.
    #[error("cannot remove the old view")]
    DiscardView(#[source] std::io::Error),
    /// The data folder was written by a newer version.
    #[error("entry {index} of the log cannot be understood: {reason}")]
    Entry {
        /// The entry.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Raft refuses its configuration. A bug.
    #[error("raft does not start: {0}")]
    Raft(String),
    /// The process is ending while the store is opened.
    #[error("opening the store was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
    /// The store failed before it was ready.
    #[error("store stopped while it replayed its log")]
    Stopped(#[source] crate::KvError),
}

impl From<ReadError> for OpenError {
    fn from(err: ReadError) -> Self {
        match err {
            ReadError::Disk(err) => err.into(),
            ReadError::Damage(err) => err.into(),
        }
    }
}

impl From<RestoreError> for OpenError {
    fn from(err: RestoreError) -> Self {
        match err {
            RestoreError::Read(err) => err.into(),
            RestoreError::View(err) => err.into(),
        }
    }
}

/// A data folder: the disk of log and snapshots, and the views beside it.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) views: Arc<dyn Views>,
    /// Size of the log's segments.
    pub(crate) segment_bytes: u64,
}

/// A view and where it stands.
pub(crate) type OpenView = (Arc<dyn View>, Position);

/// As whom a data folder is opened.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: u64,
    /// 0 for a sole member.
    pub(crate) cluster: u64,
    /// Who votes when the folder is empty; nobody when it joins.
    pub(crate) founders: Vec<Peer>,
}

impl Identity {
    pub(crate) fn of(config: &MemberConfig) -> Self {
        match config {
            MemberConfig::Sole => {
                Self { id: SOLE_MEMBER, cluster: 0, founders: vec![Peer { id: SOLE_MEMBER, address: String::new() }] }
            }
            MemberConfig::Cluster { id, cluster, peers, .. } => {
                Self { id: *id, cluster: *cluster, founders: peers.clone() }
            }
            MemberConfig::Join { id, cluster, .. } => Self { id: *id, cluster: *cluster, founders: Vec::new() },
        }
    }

    /// Bytes of applied entries that are kept for members that are behind.
    pub(crate) fn retained_bytes(&self) -> usize {
        if self.cluster == 0 { 0 } else { RETAINED_BYTES }
    }
}

/// All that a member starts from.
pub(crate) struct Start {
    pub(crate) identity: Identity,
    pub(crate) members: Members,
    pub(crate) view: Arc<dyn View>,
    pub(crate) position: Position,
    pub(crate) log: Log,
    /// Hard state, and the entries that are not in the view.
    pub(crate) recovered: Recovered,
    /// Index of the newest snapshot; 0 when there is none.
    pub(crate) snapshot: u64,
}

impl DataFolder {
    /// Reads everything a member starts from. Blocks.
    pub(crate) fn start(&self, identity: Identity) -> Result<Start, OpenError> {
        let mut members = self.members(&identity)?;
        let newest = snapshot::newest(&*self.disk)?.unwrap_or(0);
        let usable = self.usable_view()?;
        let after = usable.as_ref().map_or(newest, |(_, position)| position.index);
        let keep = Keep { after, bytes: identity.retained_bytes() };
        let (log, recovered) = Log::open(self.disk.clone(), self.segment_bytes, keep)?;
        let snapshot = newest.max(self.settle_received(&recovered)?);
        self.check_end(&recovered, after.max(snapshot))?;
        if let Some((view, position)) = usable.filter(|_| reaches_back(&recovered, after)) {
            return Ok(Start { identity, members, view, position, log, recovered, snapshot });
        }
        let ((view, position), stored) = self.new_view(snapshot, Pace::Fast)?;
        if let Some(stored) = stored.filter(|stored| stored.index > members.index) {
            members = stored;
            self.write_member(&identity, &members)?;
        }
        drop(log);
        let keep = Keep { after: snapshot, bytes: identity.retained_bytes() };
        let (log, recovered) = Log::open(self.disk.clone(), self.segment_bytes, keep)?;
        if !reaches_back(&recovered, snapshot) {
            let (path, first) = (self.disk.path_of(LOG_FOLDER), recovered.first_index);
            return Err(OpenError::LogGap { path, first, snapshot });
        }
        Ok(Start { identity, members, view, position, log, recovered, snapshot })
    }

    /// Finishes what was begun with a snapshot of another member: the log says whether it counts. Its index, if it
    /// does and did not before; 0 otherwise.
    fn settle_received(&self, recovered: &Recovered) -> Result<u64, OpenError> {
        let mut adopted = 0;
        for index in snapshot::received(&*self.disk)? {
            if recovered.base.is_some_and(|(base, _)| base == index) {
                snapshot::adopt_received(&*self.disk, index)?;
                adopted = index;
            } else {
                self.disk.remove(&snapshot::received_file(index))?;
            }
        }
        Ok(adopted)
    }

    /// A new view of what another member has sent, while this one runs; the log begins with it already.
    pub(crate) fn install(&self, index: u64, pace: Pace) -> Result<(OpenView, Head), OpenError> {
        let ((view, position), _) = self.new_view(index, pace)?;
        let head = Head::load(&*view, position.revision)?;
        Ok(((view, position), head))
    }

    /// A new view that stands where the failed one stood, while the member runs. Nothing may be writing the log.
    pub(crate) fn rebuild(&self, stood: Position) -> Result<Arc<dyn View>, OpenError> {
        let snapshot = snapshot::newest(&*self.disk)?.unwrap_or(0);
        let ((view, mut position), _) = self.new_view(snapshot, Pace::Fast)?;
        let (_, recovered) = Log::open(self.disk.clone(), self.segment_bytes, Keep { after: snapshot, bytes: 0 })?;
        let mut head = Head::load(&*view, position.revision)?;
        for entry in recovered.entries.iter().take_while(|entry| entry.index <= stood.index) {
            position = replay(&mut head, &*view, position, entry)?;
        }
        if position == stood {
            return Ok(view);
        }
        Err(OpenError::LogTooShort { path: self.disk.path_of(LOG_FOLDER), last: position.index, applied: stood.index })
    }

    /// Notes that the view was synced and closed.
    pub(crate) fn mark_clean(&self) -> Result<(), DiskError> {
        self.mark_view(ViewPhase::Clean)
    }

    /// Notes that the view is of no use: the next start makes it anew.
    pub(crate) fn give_up_view(&self) -> Result<(), DiskError> {
        self.mark_view(ViewPhase::Building)
    }

    /// Writes down who this is and who belongs to its group.
    pub(crate) fn write_member(&self, identity: &Identity, members: &Members) -> Result<(), DiskError> {
        let Identity { id, cluster, .. } = *identity;
        let voters = members.conf.voters.clone();
        let member = Member { version: VERSION, id, voters, cluster, members: Some(members.to_stored()) };
        frame::write_message(&*self.disk, MEMBER_FILE, &member)
    }

    /// Who belongs to the group, as far as the member file knows; it is written when there is none.
    fn members(&self, identity: &Identity) -> Result<Members, OpenError> {
        if let Some(member) = frame::read_message::<Member>(&*self.disk, MEMBER_FILE)? {
            return self.members_of(member, identity);
        }
        if !self.disk.list(LOG_FOLDER)?.is_empty() {
            let what = "it is missing, but there is a log".to_owned();
            return Err(Damage { path: self.disk.path_of(MEMBER_FILE), offset: 0, what }.into());
        }
        let members = Members::founders(&identity.founders);
        self.write_member(identity, &members)?;
        Ok(members)
    }

    fn members_of(&self, member: Member, identity: &Identity) -> Result<Members, OpenError> {
        let stored = member.members.map(Members::from_stored);
        let members = stored.unwrap_or_else(|| {
            let nameless = |id: &u64| Peer { id: *id, address: String::new() };
            Members::founders(&member.voters.iter().map(nameless).collect::<Vec<_>>())
        });
        let Identity { id, cluster, .. } = *identity;
        let becomes_member = member.cluster == 0 && cluster != 0;
        let goes_on_alone = cluster == 0 && members.is_alone(id);
        let fits = member.cluster == cluster || becomes_member || goes_on_alone;
        if member.version > VERSION || member.id != id || !fits {
            let path = self.disk.path_of(MEMBER_FILE);
            let owner = format!("member {} of cluster {:x}, version {}", member.id, member.cluster, member.version);
            let opened = format!("member {id} of cluster {cluster:x}, version {VERSION}");
            return Err(OpenError::Identity { path, owner, opened });
        }
        if becomes_member {
            self.write_member(identity, &members)?;
        }
        Ok(members)
    }

    /// The view on disk, if it may be used and can be.
    fn usable_view(&self) -> Result<Option<OpenView>, OpenError> {
        let state: Option<ViewState> = match frame::read_message(&*self.disk, VIEW_STATE_FILE) {
            Ok(state) => state,
            Err(ReadError::Damage(damage)) => {
                tracing::warn!(%damage, "Cannot tell whether the view is whole.");
                None
            }
            Err(ReadError::Disk(err)) => return Err(err.into()),
        };
        let Some(state) = state.filter(|state| state.version <= VERSION) else { return Ok(None) };
        let whole = match state.phase() {
            ViewPhase::Building => false,
            ViewPhase::Open => state.boot_id == self.disk.boot_id()?,
            ViewPhase::Clean => true,
        };
        if !whole {
            return Ok(None);
        }
        self.mark_view(ViewPhase::Open)?; // before the first write to the view
        let opened = self.views.open().and_then(|view| Ok((position_of(&*view)?, view)));
        Ok(opened
            .map(|(position, view)| (view, position))
            .map_err(|err| tracing::warn!(%err, "The view is rebuilt."))
            .ok())
    }

    /// An empty view filled from the snapshot, with the members as they were then; 0 means there is none.
    fn new_view(&self, snapshot: u64, pace: Pace) -> Result<(OpenView, Option<Members>), OpenError> {
        self.mark_view(ViewPhase::Building)?;
        self.views.discard().map_err(OpenError::DiscardView)?;
        let view = self.views.open()?;
        let restored = match snapshot {
            0 => Restored { position: Position::EMPTY, members: None },
            index => snapshot::restore(&*self.disk, index, &*view, pace)?,
        };
        self.mark_view(ViewPhase::Open)?;
        Ok(((view, restored.position), restored.members.map(Members::from_stored)))
    }

    fn mark_view(&self, phase: ViewPhase) -> Result<(), DiskError> {
        let state = ViewState { version: VERSION, boot_id: self.disk.boot_id()?, phase: phase.into() };
        frame::write_message(&*self.disk, VIEW_STATE_FILE, &state)
    }

    fn check_end(&self, recovered: &Recovered, applied: u64) -> Result<(), OpenError> {
        if recovered.last_index >= applied {
            return Ok(());
        }
        Err(OpenError::LogTooShort { path: self.disk.path_of(LOG_FOLDER), last: recovered.last_index, applied })
    }
}

/// Whether the log has everything behind `index`.
fn reaches_back(recovered: &Recovered, index: u64) -> bool {
    recovered.first_index == 0 || recovered.first_index <= index + 1
}

/// Applies one entry to a view that nobody else has.
pub(crate) fn replay(
    head: &mut Head,
    view: &dyn View,
    position: Position,
    entry: &LogEntry,
) -> Result<Position, OpenError> {
    let mut evaluator = Evaluator::new(head, view, position);
    let is_normal = entry.kind == EntryType::EntryNormal as i32;
    let data = if is_normal { &entry.data[..] } else { &[] }; // changes of the members concern no key
    let (_, commands) = decode_entry(data).map_err(|reason| OpenError::Entry { index: entry.index, reason })?;
    commands.iter().try_for_each(|command| evaluator.execute(command))?;
    let evaluated = evaluator.finish((entry.index, entry.term));
    view.apply(evaluated.batch)?;
    head.take(evaluated.newest);
    Ok(evaluated.position)
}

/// What an entry asks for, with proposer and sequence; nothing, when it only begins a term.
pub(crate) fn decode_entry(data: &[u8]) -> Result<((u64, u64), Vec<Command>), String> {
    if data.is_empty() {
        return Ok(((0, 0), Vec::new()));
    }
    let batch = Batch::decode(data).map_err(|err| err.to_string())?;
    if batch.version > VERSION {
        return Err(format!("it is of version {}, this is version {VERSION}", batch.version));
    }
    let commands: Result<Vec<Command>, Unknown> = batch.commands.into_iter().map(TryInto::try_into).collect();
    Ok(((batch.proposer, batch.sequence), commands.map_err(|err| err.to_string())?))
}

/// The entries as Raft knows them.
pub(crate) fn into_raft(entries: VecDeque<LogEntry>) -> VecDeque<raft::eraftpb::Entry> {
    let convert = |entry: LogEntry| raft::eraftpb::Entry {
        index: entry.index,
        term: entry.term,
        entry_type: entry.kind,
        data: entry.data,
        context: entry.context,
        ..raft::eraftpb::Entry::default()
    };
    entries.into_iter().map(convert).collect()
}

/// The same the other way. The context of a batch is for whoever proposed it, while it runs; it is not kept.
pub(crate) fn from_raft(entry: raft::eraftpb::Entry) -> LogEntry {
    let is_normal = entry.entry_type == EntryType::EntryNormal as i32;
    let context = if is_normal { Vec::new() } else { entry.context };
    LogEntry { index: entry.index, term: entry.term, kind: entry.entry_type, data: entry.data, context }
}
