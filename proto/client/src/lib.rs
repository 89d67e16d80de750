//! Informers, work queues, event recording and leases on top of kube.
//!
//! Everything a component needs to watch the API and to act on it: an [`Informer`] keeps a copy of one kind
//! and calls handlers on every change, a [`WorkQueue`] remembers what has to be looked at, [`work`] looks at
//! it, an [`EventRecorder`] tells the user. What is not here: any decision of a component.

mod backoff;
mod component;
mod election;
pub mod events;
mod index;
mod informer;
mod key;
pub mod lease;
mod queue;
mod restart;
mod store;
pub mod watch;
mod worker;

pub use backoff::Backoff;
pub use component::{Component, TaskPanicked};
pub use election::while_leading;
pub use events::{EventRecorder, EventType};
pub use index::Index;
pub use informer::{Informer, InformerOptions, NeverSynced, wait_for_sync};
pub use key::ObjectKey;
pub use queue::WorkQueue;
pub use restart::restarting;
pub use store::{Change, Store};
pub use worker::{Next, work};
