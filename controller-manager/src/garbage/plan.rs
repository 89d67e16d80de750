//! Decides about one object from what is true of it and its owners right now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::graph::{FOREGROUND, ORPHAN};

/// What became of an owner, looked up live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there. Also: it is of a kind that the server does not know, so nothing can be said against it.
    Solid,
    /// There is no object of that kind, name and uid.
    Absent,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

/// How dependents of a deleted object are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Background,
    Foreground,
    Orphan,
}

/// What to do with an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has an owner, or none at all.
    Keep,
    /// It has an owner, and references to others that are gone: these references go.
    DropOwners(Vec<String>),
    /// None of its owners is left.
    Delete {
        policy: Policy,
        /// Dependents that wait themselves must not block it: owner and dependent would wait for each other.
        unblock: bool,
    },
}

/// Decides about an object that is not being deleted. `owners` are its owner references with what became of them.
pub(super) fn plan(meta: &ObjectMeta, owners: &[(OwnerReference, Owner)], has_dependents: bool) -> Verdict {
    let count = |state: Owner| owners.iter().filter(|(_, other)| *other == state).count();
    if owners.is_empty() {
        return Verdict::Keep;
    }
    if count(Owner::Solid) > 0 {
        let gone = owners.iter().filter(|(_, state)| *state != Owner::Solid);
        let gone: Vec<String> = gone.map(|(owner, _)| owner.uid.clone()).collect();
        return if gone.is_empty() { Verdict::Keep } else { Verdict::DropOwners(gone) };
    }
    if count(Owner::Waiting) > 0 && has_dependents {
        return Verdict::Delete { policy: Policy::Foreground, unblock: true };
    }
    let has_finalizer = |name: &str| meta.finalizers.iter().flatten().any(|own| own == name);
    let policy = if has_finalizer(ORPHAN) {
        Policy::Orphan
    } else if has_finalizer(FOREGROUND) {
        Policy::Foreground
    } else {
        Policy::Background
    };
    Verdict::Delete { policy, unblock: false }
}
