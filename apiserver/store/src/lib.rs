//! The replicated key-value store: etcd's semantics on Raft and sled.
//!
//! [`Kv`] is the seam the API server stands on. Everything behind it (log, view, transport) is private.
//! What is not here: Kubernetes. The store knows keys and bytes.

pub mod kv;
pub mod view;

mod encoding;
mod evaluate;
mod hub;
mod limits;
mod memory;
mod mvcc;
mod read;

pub use kv::{
    Compare, Event, EventKind, KeyRange, KeyValue, Kv, KvError, Op, OpResponse, RangeRequest, RangeResponse, Revision,
    SharedKv, Txn, TxnResponse, WatchBatch, WatchRequest, WatchStream,
};
pub use limits::{KEY_LEN_MAX, Limits, TXN_BYTES_MAX, TXN_OPS_MAX};
pub use memory::MemoryKv;
