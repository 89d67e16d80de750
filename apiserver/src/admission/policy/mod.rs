//! Admission by expressions: ValidatingAdmissionPolicy, MutatingAdmissionPolicy, and the match conditions of webhooks.
//!
//! | file | holds |
//! |---|---|
//! | `compiled.rs` | policies and bindings, compiled |
//! | `book.rs` | the compiled policies of the cluster, renewed when their objects change |
//! | `params.rs` | the parameters of a binding |
//! | `invocations.rs` | which policies are asked about a request, with which parameters |
//! | `input.rs` | what an expression sees, and running it within its budget |
//! | `conditions.rs` | match conditions, of policies and webhooks |
//! | `validating.rs`, `judge.rs` | policies that say yes or no: what becomes of the request; what one of them says |
//! | `mutating.rs`, `patch.rs` | policies that change objects; how |
//! | `status.rs` | checks validating policies against the types of the kinds they are about |
//!
//! Which requests somebody is about is decided by [`super::matching`], as for webhooks. There is no audit log: audit
//! annotations are computed, because their mistakes count, and go to the log. Source of rules and words:
//! `k8s.io/apiserver/pkg/admission/plugin/{policy,cel}`.

mod book;
mod compiled;
mod conditions;
mod input;
mod invocations;
mod judge;
mod mutating;
mod params;
mod patch;
mod status;
#[cfg(test)]
mod tests;
mod validating;

pub(crate) use book::PolicyBook;
pub(super) use conditions::{Conditions, Matched};
pub(super) use mutating::mutate;
pub(crate) use status::spawn;
pub(super) use validating::validate;
