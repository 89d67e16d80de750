//! The newest state of every key, in memory: what almost every read and every transaction is about. What was before
//! lies in the [`View`]; both are written by the one who applies ([`crate::mvcc`]).
//!
//! Values are the very bytes that the writer handed in and that watchers get: whoever keeps them shares them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::kv::{KeyValue, RangeRequest, RangeResponse, Revision};
use crate::lease::{LeaseChanges, LeaseId, Leases};
use crate::mvcc::position_of;
use crate::read::{self, Overlay, Page};
use crate::view::{View, ViewError};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Head {
    keys: BTreeMap<Bytes, Newest>,
    leases: Leases,
    /// Of all keys and values.
    bytes: u64,
}

/// What has changed.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// The newest state of every key that has.
    pub(crate) keys: Overlay,
    /// The same of leases.
    pub(crate) leases: LeaseChanges,
}

/// The newest state of a key that exists.
#[derive(Debug)]
struct Newest {
    value: Bytes,
    create_revision: Revision,
    mod_revision: Revision,
    version: u64,
    lease: LeaseId,
}

fn size(key: &Bytes, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64
}

impl Newest {
    fn of(kv: KeyValue) -> Self {
        let KeyValue { value, create_revision, mod_revision, version, lease, .. } = kv;
        Self { value, create_revision, mod_revision, version, lease }
    }

    fn key_value(&self, key: &Bytes, keys_only: bool) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: if keys_only { Bytes::new() } else { self.value.clone() },
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

impl Head {
    /// Reads the newest states, as of revision `at`, out of a view.
    pub(crate) fn load(view: &dyn View, at: Revision) -> Result<Self, ViewError> {
        let mut leases = Leases::load(view, position_of(view)?.index)?;
        let (mut keys, mut bytes) = (BTreeMap::new(), 0);
        read::every_key(view, at, &mut |kv| {
            bytes += size(&kv.key, &kv.value);
            leases.attach(&kv.key, LeaseId::NONE, kv.lease);
            keys.insert(kv.key.clone(), Newest::of(kv));
        })?;
        Ok(Self { keys, leases, bytes })
    }

    /// The leases there are.
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many bytes all keys and values have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The state of a key; `None` when it does not exist.
    pub(crate) fn get(&self, key: &Bytes) -> Option<KeyValue> {
        self.keys.get(key).map(|newest| newest.key_value(key, false))
    }

    /// Takes over what has changed.
    pub(crate) fn take(&mut self, changed: Changed) {
        for (id, lease) in &changed.leases {
            if lease.is_some() {
                self.leases.change(*id, *lease); // before keys are attached to it
            }
        }
        for (key, state) in changed.keys {
            let lease = state.as_ref().map_or(LeaseId::NONE, |kv| kv.lease);
            let before = match state {
                Some(kv) => {
                    let newest = Newest::of(kv);
                    self.bytes += size(&key, &newest.value);
                    // A key that is there keeps its bytes: the writer's may be a piece of something larger.
                    match self.keys.get_mut(&key) {
                        Some(place) => Some(std::mem::replace(place, newest)),
                        None => self.keys.insert(key.clone(), newest),
                    }
                }
                None => self.keys.remove(&key),
            };
            self.bytes -= before.as_ref().map_or(0, |before| size(&key, &before.value));
            self.leases.attach(&key, before.map_or(LeaseId::NONE, |before| before.lease), lease);
        }
        for (id, lease) in &changed.leases {
            if lease.is_none() {
                self.leases.change(*id, None);
            }
        }
    }

    /// What a range looks like now, with changes on top that are not in here yet. The caller sets the revision.
    pub(crate) fn range(&self, request: &RangeRequest, overlay: &Overlay) -> RangeResponse {
        let mut page = Page::new(request);
        let bounds = request.range.bounds();
        let mut over = overlay.range::<Bytes, _>(bounds.clone()).peekable();
        let mut under = self.keys.range::<Bytes, _>(bounds).peekable();
        while page.goes_on() {
            let above = match (over.peek(), under.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((over, _)), Some((under, _))) => over <= under,
            };
            if above {
                let Some((key, state)) = over.next() else { break };
                under.next_if(|(under, _)| *under == key);
                if let Some(kv) = state {
                    page.add(|keys_only| Newest::of(kv.clone()).key_value(key, keys_only));
                }
            } else {
                let Some((key, newest)) = under.next() else { break };
                page.add(|keys_only| newest.key_value(key, keys_only));
            }
        }
        page.into_response(Revision(0))
    }
}
