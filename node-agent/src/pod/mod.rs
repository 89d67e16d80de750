//! The life of pods on this node: one actor per pod.
//!
//! Decisions are pure ([`plan`], [`status`]); effects run beside the actor and come back to it as inputs.

pub(crate) mod actor;
pub(crate) mod admission;
pub(crate) mod adopt;
pub(crate) mod allocation;
pub(crate) mod app_armor;
pub(crate) mod backoff;
pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod effects;
pub(crate) mod env;
pub(crate) mod eviction;
pub(crate) mod expand;
pub(crate) mod field;
pub(crate) mod files;
pub(crate) mod hooks;
pub(crate) mod huge_pages;
pub(crate) mod image;
pub(crate) mod image_volumes;
pub(crate) mod ledger;
pub(crate) mod plan;
pub(crate) mod resize;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod shown;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod told;
pub(crate) mod user_ids;
pub(crate) mod view;
pub(crate) mod writer;

#[cfg(test)]
mod actor_tests;
#[cfg(test)]
mod plan_tests;
