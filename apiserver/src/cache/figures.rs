//! What the cache of one resource counts, for `/metrics`.

use crate::http::Counter;

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct CacheFigures {
    /// How often everything was read anew.
    pub(crate) initializations: Counter,
    /// Changes that came from the store.
    pub(crate) received: Counter,
    /// Those of them that were handed on to the watchers.
    pub(crate) dispatched: Counter,
    /// Lists that were answered from here, and the objects in them.
    pub(crate) lists: Counter,
    pub(crate) returned: Counter,
}
