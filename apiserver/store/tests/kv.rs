//! The shared suite, run on every implementation of `Kv`.

mod suite;

use std::ops::Deref;
use std::sync::Arc;

use reeve_store::{Limits, MemoryKv, SharedKv};

suite::store_suite!(memory, crate::open_memory);

/// A store as the suite takes it.
struct Opened {
    kv: SharedKv,
}

impl Deref for Opened {
    type Target = SharedKv;

    fn deref(&self) -> &SharedKv {
        &self.kv
    }
}

impl Opened {
    async fn close(self) {}
}

async fn open_memory(limits: Limits) -> Opened {
    Opened { kv: Arc::new(MemoryKv::with_limits(limits)) }
}
