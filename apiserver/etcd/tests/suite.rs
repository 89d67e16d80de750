//! The shared suite of `reeve-store`, through etcd's protocol: on our store behind its port, and on a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

#[path = "../../store/tests/suite/mod.rs"]
#[allow(dead_code, reason = "some promises are made by stores in this process only")]
mod suite;
mod support;

use std::ops::Deref;

use reeve_store::{Limits, SharedKv};
use support::{Ours, RealEtcd};

suite::store_suite!(
    ours_over_grpc,
    crate::open_ours,
    history_is_bounded_without_anybody_asking,
    a_key_is_written_once_in_a_transaction_however_deep,
    compaction_at_a_deletion_shows_the_deletion_to_a_watch_from_there,
);
suite::store_suite!(ours_under_a_prefix, crate::open_prefixed,);
suite::store_suite!(etcd, crate::open_etcd,);
suite::store_suite!(etcd_under_a_prefix, crate::open_etcd_prefixed,);

/// A store as the suite takes it, with what must outlive it.
struct Opened {
    kv: SharedKv,
    ours: Option<Ours>,
    _etcd: Option<RealEtcd>,
}

impl Deref for Opened {
    type Target = SharedKv;

    fn deref(&self) -> &SharedKv {
        &self.kv
    }
}

impl Opened {
    async fn close(self) {
        drop(self.kv);
        if let Some(ours) = self.ours {
            ours.close().await;
        }
    }
}

async fn ours(limits: Limits, prefix: &str) -> Opened {
    let ours = Ours::embedded(limits).await;
    Opened { kv: ours.client(prefix).await, ours: Some(ours), _etcd: None }
}

async fn open_ours(limits: Limits) -> Opened {
    ours(limits, "").await
}

async fn open_prefixed(limits: Limits) -> Opened {
    ours(limits, "/some/where").await
}

/// Where there is no etcd, the tests of it run on ours again: they cannot be skipped in the middle.
async fn etcd(limits: Limits, prefix: &str) -> Opened {
    match RealEtcd::start().await {
        Some(etcd) => Opened { kv: etcd.client(prefix).await, ours: None, _etcd: Some(etcd) },
        None => ours(limits, prefix).await,
    }
}

async fn open_etcd(limits: Limits) -> Opened {
    etcd(limits, "").await
}

async fn open_etcd_prefixed(limits: Limits) -> Opened {
    etcd(limits, "/some/where").await
}
