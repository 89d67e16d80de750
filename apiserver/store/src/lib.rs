//! The replicated key-value store: etcd's semantics on Raft.
//!
//! [`Kv`] is the seam the API server stands on. Everything behind it (log, view, transport) is private.
//! What is not here: Kubernetes. The store knows keys and bytes.

pub mod backup;
pub mod disk;
pub mod kv;
pub mod lease;
pub mod txn;
pub mod verify;
pub mod view;

mod buffer;
mod convert;
mod encoding;
mod evaluate;
mod file_view;
mod frame;
mod hash;
mod head;
mod hold;
mod hub;
mod index;
mod jobs;
mod lessor;
mod limits;
mod log;
mod member;
mod members;
mod memory;
mod mvcc;
mod offline;
mod quota;
mod read;
mod recover;
mod sim_disk;
mod snapshot;
mod space;
mod status;
mod store;
mod tail;
mod transport;
mod values;
mod wire;

pub use file_view::FileViews;
pub use frame::Damage;
pub use hash::HashKv;
pub use hold::Hold;
pub use jobs::Jobs;
pub use kv::{
    Compare, Event, EventKind, KeyRange, KeyValue, Kv, KvError, Op, OpResponse, RangeRequest, RangeResponse, Revision,
    SharedKv, Txn, TxnResponse, WatchBatch, WatchRequest, WatchStream,
};
pub use lease::{LEASE_TTL_MAX, LEASE_TTL_MIN, LeaseGrant, LeaseId, LeaseStatus};
pub use limits::{KEY_LEN_MAX, Limits, TXN_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX};
pub use memory::MemoryKv;
pub use recover::OpenError;
pub use sim_disk::SimDisk;
pub use status::{Leadership, MemberError, MemberInfo, MemberProgress, MemberStatus, Role};
pub use store::{Store, StoreConfig};
pub use transport::{Inbox, MemberConfig, Parcel, Peer, PeerFigures, ReceiveError, Transport};
pub use txn::{Check, Put, Relation, RevisionFilter, Sort, SortOrder, SortTarget, Target};
