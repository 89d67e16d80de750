//! How a member comes back: decides whether the view on disk may be used, rebuilds it from snapshot and log if
//! not, and reads what of the log is not in it yet.
//!
//! The view is used after a clean close, or when the machine has not been restarted since it was opened: then the
//! page cache is whole, whatever became of the process. After a restart of the machine it may have lost anything.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;
use reeve_proto::store::{Batch, LogEntry, Member, VERSION, ViewPhase, ViewState};

use crate::convert::Unknown;
use crate::disk::{Disk, DiskError, LockError};
use crate::encoding::Position;
use crate::evaluate::{Command, Evaluator};
use crate::frame::{self, Damage, ReadError};
use crate::head::Head;
use crate::log::{LOG_FOLDER, Log, Recovered};
use crate::mvcc::position_of;
use crate::snapshot::{self, RestoreError};
use crate::view::{View, ViewError, Views};

/// Says who this member is.
pub(crate) const MEMBER_FILE: &str = "member";
/// Says whether the view may be used.
pub(crate) const VIEW_STATE_FILE: &str = "view.state";
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
type OpenView = (Arc<dyn View>, Position);

/// All that a member starts from.
pub(crate) struct Start {
    pub(crate) member: Member,
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
    pub(crate) fn start(&self) -> Result<Start, OpenError> {
        let member = self.member()?;
        let snapshot = snapshot::newest(&*self.disk)?.unwrap_or(0);
        let usable = self.usable_view()?;
        let kept = usable.as_ref().map_or(snapshot, |(_, position)| position.index);
        let (log, recovered) = Log::open(self.disk.clone(), self.segment_bytes, kept)?;
        self.check_end(&recovered, kept.max(snapshot))?;
        if let Some((view, position)) = usable.filter(|_| reaches_back(&recovered, kept)) {
            return Ok(Start { member, view, position, log, recovered, snapshot });
        }
        let (view, position) = self.new_view(snapshot)?;
        drop(log);
        let (log, recovered) = Log::open(self.disk.clone(), self.segment_bytes, snapshot)?;
        if !reaches_back(&recovered, snapshot) {
            let (path, first) = (self.disk.path_of(LOG_FOLDER), recovered.first_index);
            return Err(OpenError::LogGap { path, first, snapshot });
        }
        Ok(Start { member, view, position, log, recovered, snapshot })
    }

    /// A new view that stands where the failed one stood, while the member runs. Nothing may be writing the log.
    pub(crate) fn rebuild(&self, stood: Position) -> Result<Arc<dyn View>, OpenError> {
        let snapshot = snapshot::newest(&*self.disk)?.unwrap_or(0);
        let (view, mut position) = self.new_view(snapshot)?;
        let (_, recovered) = Log::open(self.disk.clone(), self.segment_bytes, snapshot)?;
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

    fn member(&self) -> Result<Member, OpenError> {
        if let Some(member) = frame::read_message(&*self.disk, MEMBER_FILE)? {
            return Ok(member);
        }
        if !self.disk.list(LOG_FOLDER)?.is_empty() {
            let what = "it is missing, but there is a log".to_owned();
            return Err(Damage { path: self.disk.path_of(MEMBER_FILE), offset: 0, what }.into());
        }
        let member = Member { version: VERSION, id: SOLE_MEMBER, voters: vec![SOLE_MEMBER] };
        frame::write_message(&*self.disk, MEMBER_FILE, &member)?;
        Ok(member)
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

    /// An empty view filled from the snapshot; 0 means there is none.
    fn new_view(&self, snapshot: u64) -> Result<OpenView, OpenError> {
        self.mark_view(ViewPhase::Building)?;
        self.views.discard().map_err(OpenError::DiscardView)?;
        let view = self.views.open()?;
        let position = match snapshot {
            0 => Position::EMPTY,
            index => snapshot::restore(&*self.disk, index, &*view)?,
        };
        self.mark_view(ViewPhase::Open)?;
        Ok((view, position))
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
    let (_, commands) = decode_entry(&entry.data).map_err(|reason| OpenError::Entry { index: entry.index, reason })?;
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
        ..raft::eraftpb::Entry::default()
    };
    entries.into_iter().map(convert).collect()
}

/// The same the other way.
pub(crate) fn from_raft(entry: &raft::eraftpb::Entry) -> LogEntry {
    LogEntry { index: entry.index, term: entry.term, kind: entry.entry_type, data: entry.data.clone() }
}
