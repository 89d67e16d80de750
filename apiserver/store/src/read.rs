//! Reads of a [`View`]: keys of a range as of a revision, and the changes of a span of revisions.
//! Pure but for the view; knows nothing of who writes and when.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::encoding::{self, State};
use crate::kv::{Event, EventKind, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision};
use crate::lease::LeaseId;
use crate::txn::{RevisionFilter, Sort};
use crate::view::{View, ViewError, Visit};

/// How many versions of a key a scan steps over before it looks up the next key instead: a lookup
/// costs about as much as this many steps, each of which may read a value from a file.
const STEPS_BEFORE_SEEK: usize = 3;

/// Bytes of values after which a piece of history ends with the revision it is at.
const HISTORY_BYTES: usize = 1024 * 1024;

/// Changes that are not applied yet: a key's newest state, `None` when it is deleted.
pub(crate) type Overlay = BTreeMap<Bytes, Option<KeyValue>>;

/// The newest state of `key` at `at` or older; `None` when it did not exist then.
pub(crate) fn key_at(view: &dyn View, key: &Bytes, at: Revision) -> Result<Option<KeyValue>, ViewError> {
    let (from, to) = encoding::versions_up_to(key, at);
    let mut found = Ok(None);
    view.visit(&from, &to, &mut |view_key, record| {
        let parts = encoding::split_version_key(view_key).zip(State::decode(record));
        found = match parts {
            Some(((_, revision), state)) => Ok(state.into_key_value(key.clone(), revision, false)),
            None => Err(ViewError::malformed("cannot read a key", view_key)),
        };
        Visit::Stop
    })?;
    found
}

/// What a range looked like at `at`; the caller has checked that this revision exists and is not compacted.
pub(crate) fn range_at(view: &dyn View, request: &RangeRequest, at: Revision) -> Result<RangeResponse, ViewError> {
    let is_plain = !request.keys_only && !request.count_only && request.filter.is_open();
    if let (KeyRange::Key(key), true) = (&request.range, is_plain) {
        let kvs: Vec<_> = key_at(view, key, at)?.into_iter().collect();
        return Ok(RangeResponse { revision: at, count: kvs.len(), kvs, more: false });
    }
    let mut page = Page::new(request);
    scan(view, &request.range, at, &mut |shared, revision, state| {
        page.count += 1;
        if page.wants_more() {
            let key = encoding::unescape(shared).ok_or_else(|| ViewError::malformed("cannot read a range", shared))?;
            let kv = state.into_key_value(key, revision, page.leaves_out_values());
            kv.into_iter().for_each(|kv| page.take(kv));
        }
        Ok(if page.goes_on() { Visit::Next } else { Visit::Stop })
    })?;
    Ok(page.into_response(at))
}

/// Shows every key that exists at `at`, in order.
pub(crate) fn every_key(view: &dyn View, at: Revision, show: &mut dyn FnMut(KeyValue)) -> Result<(), ViewError> {
    scan(view, &KeyRange::Prefix(Bytes::new()), at, &mut |shared, revision, state| {
        let key = encoding::unescape(shared).ok_or_else(|| ViewError::malformed("cannot read a key", shared))?;
        state.into_key_value(key, revision, false).into_iter().for_each(&mut *show);
        Ok(Visit::Next)
    })
}

/// Changes from `first` to `last` (both included) that concern a range, in order, and the revision up to which
/// they are complete: before `last` when they would be too much to hold at once.
pub(crate) fn history(
    view: &dyn View,
    range: &KeyRange,
    (first, last): (Revision, Revision),
    previous: bool,
) -> Result<(Vec<Event>, Revision), ViewError> {
    let (mut events, mut bytes) = (Vec::<Event>::new(), 0);
    for (revision, key) in changes(view, range, (first, last))? {
        if let Some(before) = events.last().filter(|event| event.kv.mod_revision < revision && bytes > HISTORY_BYTES) {
            let complete = before.kv.mod_revision;
            return Ok((events, complete));
        }
        // The state is gone when a compaction overtakes this read; the caller looks at the compaction point after it.
        let Some(record) = view.get(&encoding::version_key(&key, revision))? else { continue };
        bytes += record.len();
        events.push(event(view, key, (revision, &record), previous)?);
    }
    Ok((events, last))
}

/// Which keys of a range changed, and when.
fn changes(
    view: &dyn View,
    range: &KeyRange,
    (first, last): (Revision, Revision),
) -> Result<Vec<(Revision, Bytes)>, ViewError> {
    let (from, to) = (encoding::history_key(first), encoding::all_history().1);
    let mut changes = Vec::new();
    let mut malformed = None;
    view.visit(&from, &to, &mut |view_key, record| {
        let mut rest = record;
        while !rest.is_empty() {
            let Some((revision, key, behind)) = encoding::split_change(rest) else {
                malformed = Some(ViewError::malformed("cannot read history at", view_key));
                return Visit::Stop;
            };
            if (first..=last).contains(&revision) && range.contains(key) {
                changes.push((revision, Bytes::copy_from_slice(key)));
            }
            rest = behind;
        }
        let is_last = encoding::history_revision(view_key).is_none_or(|revision| revision >= last);
        if is_last { Visit::Stop } else { Visit::Next }
    })?;
    malformed.map_or(Ok(changes), Err)
}

fn event(
    view: &dyn View,
    key: Bytes,
    (revision, record): (Revision, &[u8]),
    previous: bool,
) -> Result<Event, ViewError> {
    let state = State::decode(record).ok_or_else(|| ViewError::malformed("cannot read the state of", &key))?;
    let previous = if previous { key_at(view, &key, Revision(revision.0 - 1))? } else { None };
    Ok(match state.into_key_value(key.clone(), revision, false) {
        Some(kv) => Event { kind: EventKind::Put, kv, previous },
        None => Event { kind: EventKind::Delete, kv: deleted(key, revision), previous },
    })
}

/// What a deletion's event carries as the key's state.
pub(crate) fn deleted(key: Bytes, revision: Revision) -> KeyValue {
    KeyValue {
        key,
        value: Bytes::new(),
        create_revision: Revision(0),
        mod_revision: revision,
        version: 0,
        lease: LeaseId::NONE,
    }
}

/// What a scan does with a key that exists: the part its versions share, its revision, its state. Says whether to go
/// on.
type OnKey<'a> = dyn FnMut(&[u8], Revision, State<'_>) -> Result<Visit, ViewError> + 'a;

/// Shows every key of the range that exists at `at`, once, in order.
fn scan(view: &dyn View, range: &KeyRange, at: Revision, on_key: &mut OnKey<'_>) -> Result<(), ViewError> {
    let (from, to) = encoding::versions_of_range(range);
    let mut cursor = Cursor { shared: Vec::new(), done: false, steps: 0 };
    let mut outcome = Ok(());
    view.visit(&from, &to, &mut |view_key, record| {
        let Some(((shared, revision), state)) = encoding::split_version_key(view_key).zip(State::decode(record)) else {
            outcome = Err(ViewError::malformed("cannot scan past", view_key));
            return Visit::Stop;
        };
        if cursor.is_new(shared) {
            cursor.begin(shared);
        }
        if cursor.done || revision > at {
            return cursor.step_over(at);
        }
        cursor.done = true;
        if state == State::Deleted {
            return Visit::Next;
        }
        match on_key(shared, revision, state) {
            Ok(next) => next,
            Err(error) => {
                outcome = Err(error);
                Visit::Stop
            }
        }
    })?;
    outcome
}

/// Where a scan is among the versions of one key.
struct Cursor {
    shared: Vec<u8>,
    /// The version that counts has been seen.
    done: bool,
    /// Versions stepped over since then or since the key began.
    steps: usize,
}

impl Cursor {
    fn is_new(&self, shared: &[u8]) -> bool {
        self.shared != shared
    }

    fn begin(&mut self, shared: &[u8]) {
        self.shared.clear();
        self.shared.extend_from_slice(shared);
        self.done = false;
        self.steps = 0;
    }

    fn step_over(&mut self, at: Revision) -> Visit {
        self.steps += 1;
        if self.steps < STEPS_BEFORE_SEEK {
            return Visit::Next;
        }
        self.steps = 0;
        Visit::Seek(if self.done {
            encoding::behind_key(&self.shared)
        } else {
            encoding::seek_version(&self.shared, at)
        })
    }
}

/// An answer in the making.
pub(crate) struct Page {
    kvs: Vec<KeyValue>,
    count: usize,
    /// What the caller wants at most.
    limit: usize,
    /// What is taken at most: more than the limit where the order is another one than that of keys.
    taken_max: usize,
    uncounted: bool,
    keys_only: bool,
    sort: Sort,
    filter: RevisionFilter,
}

impl Page {
    pub(crate) fn new(request: &RangeRequest) -> Self {
        let limit = match (request.count_only, request.limit) {
            (true, _) => 0,
            (false, 0) => usize::MAX,
            (false, limit) => limit,
        };
        let is_whole = request.sort.is_whole() || !request.filter.is_open();
        let taken_max = match (request.count_only, is_whole, request.sort.reorders()) {
            (true, ..) => 0,
            (false, true, _) => usize::MAX,
            (false, false, true) => limit.saturating_add(1),
            (false, false, false) => limit,
        };
        Self {
            kvs: Vec::new(),
            count: 0,
            limit,
            taken_max,
            uncounted: request.uncounted && !request.count_only && taken_max == limit,
            keys_only: request.keys_only,
            sort: request.sort,
            filter: request.filter,
        }
    }

    /// Counts a key, and takes it if there is room; `kv` is told whether to leave out the value.
    pub(crate) fn add(&mut self, kv: impl FnOnce(bool) -> KeyValue) {
        self.count += 1;
        if self.wants_more() {
            let kv = kv(self.leaves_out_values());
            self.take(kv);
        }
    }

    fn take(&mut self, kv: KeyValue) {
        if self.filter.admits(&kv) {
            self.kvs.push(kv);
        }
    }

    fn wants_more(&self) -> bool {
        self.kvs.len() < self.taken_max
    }

    /// Values that are to be sorted by are left out in the end.
    fn leaves_out_values(&self) -> bool {
        self.keys_only && !self.sort.reorders()
    }

    /// Whether a scan goes on: an uncounted page ends with the first key behind it.
    pub(crate) fn goes_on(&self) -> bool {
        !(self.uncounted && self.count > self.limit)
    }

    pub(crate) fn into_response(mut self, revision: Revision) -> RangeResponse {
        self.sort.arrange(&mut self.kvs);
        let arranged = self.sort.reorders() || !self.filter.is_open();
        let left_out = if arranged { self.kvs.len() > self.limit } else { self.count > self.kvs.len() };
        self.kvs.truncate(self.limit);
        if self.keys_only {
            self.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { revision, more: self.limit > 0 && left_out, count: self.count, kvs: self.kvs }
    }
}
