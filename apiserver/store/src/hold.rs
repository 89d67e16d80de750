//! Revisions that somebody is still reading: whatever is compacted meanwhile, they stay readable. A backup takes as
//! long as its reader likes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kv::Revision;

/// Keeps one revision readable as long as it lives. Of a store that cannot promise that, it only names the revision.
#[derive(Debug)]
pub struct Hold {
    revision: Revision,
    holds: Option<Arc<Holds>>,
}

impl Hold {
    /// Of a store that keeps nothing for us: reading may end with [`crate::KvError::Compacted`].
    #[must_use]
    pub fn without_promise(revision: Revision) -> Self {
        Self { revision, holds: None }
    }

    /// What may be read.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(holds) = &self.holds else { return };
        let mut held = holds.lock();
        if let Some(count) = held.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.revision);
            }
        }
    }
}

/// All revisions that are held, with how many hold each.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<BTreeMap<Revision, usize>>);

impl Holds {
    /// Holds a revision. The caller sees to it that nothing of it is removed before this returns.
    pub(crate) fn hold(self: &Arc<Self>, revision: Revision) -> Hold {
        *self.lock().entry(revision).or_default() += 1;
        Hold { revision, holds: Some(Arc::clone(self)) }
    }

    /// Whether that very revision is held.
    pub(crate) fn has(&self, revision: Revision) -> bool {
        self.lock().contains_key(&revision)
    }

    /// Up to where the past may be removed when it is compacted up to `compacted`.
    pub(crate) fn removable(&self, compacted: Revision) -> Revision {
        self.lock().first_key_value().map_or(compacted, |(lowest, _)| compacted.min(*lowest))
    }

    /// What was held may be gone: who reads it is told so.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Revision, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_may_be_removed_up_to_the_oldest_revision_that_is_held() {
        let holds = Arc::new(Holds::default());
        assert_eq!(holds.removable(Revision(9)), Revision(9));
        let (five, again, seven) = (holds.hold(Revision(5)), holds.hold(Revision(5)), holds.hold(Revision(7)));
        assert_eq!((holds.removable(Revision(9)), holds.removable(Revision(3))), (Revision(5), Revision(3)));
        drop(five);
        assert_eq!(holds.removable(Revision(9)), Revision(5));
        drop(again);
        assert_eq!((holds.removable(Revision(9)), holds.has(Revision(5))), (Revision(7), false));
        holds.forget();
        assert_eq!((holds.removable(Revision(9)), holds.has(Revision(7))), (Revision(9), false));
        drop(seven);
    }
}
