//! The kinds whose objects are collected. They come and go with CustomResourceDefinitions and APIServices.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio_util::sync::CancellationToken;

use crate::discovery::{self, Kind};

/// All kinds that were ever watched, by a number that is never given twice. Their count follows from how often
/// kinds appear.
#[derive(Default)]
pub(super) struct Kinds(RwLock<Vec<Slot>>);

struct Slot {
    kind: Arc<Kind>,
    /// Ends the watch of the kind.
    end: CancellationToken,
}

/// What is new since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Numbers of kinds to watch.
    pub(super) added: Vec<usize>,
    /// Numbers of kinds that the server does not have any more; their watches have been told to end.
    pub(super) gone: Vec<usize>,
}

impl Slot {
    fn is_there(&self) -> bool {
        !self.end.is_cancelled()
    }
}

impl Kinds {
    fn read(&self) -> RwLockReadGuard<'_, Vec<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Slot>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kind of that number, there or gone.
    pub(super) fn get(&self, index: usize) -> Option<Arc<Kind>> {
        self.read().get(index).map(|slot| Arc::clone(&slot.kind))
    }

    /// What ends the watch of the kind.
    pub(super) fn end(&self, index: usize) -> Option<CancellationToken> {
        self.read().get(index).map(|slot| slot.end.clone())
    }

    /// The kind that an owner reference means, if the server has it.
    pub(super) fn meant_by(&self, owner: &OwnerReference) -> Option<(usize, Arc<Kind>)> {
        let slots = self.read();
        let found = slots.iter().enumerate().find(|(_, slot)| slot.is_there() && slot.kind.is_meant_by(owner));
        found.map(|(index, slot)| (index, Arc::clone(&slot.kind)))
    }

    /// Takes over what was discovered. Groups that did not answer keep their kinds.
    pub(super) fn update(&self, found: discovery::Kinds) -> Change {
        let mut slots = self.write();
        let mut change = Change::default();
        let is_silent = |group: &str| found.failures.iter().any(|failure| failure.group == group);
        let wanted: Vec<Kind> = found.all.into_iter().filter(is_collectable).collect();
        for (index, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.is_there()) {
            if !wanted.contains(&slot.kind) && !is_silent(&slot.kind.resource.group) {
                slot.end.cancel();
                change.gone.push(index);
            }
        }
        for kind in wanted {
            if !slots.iter().any(|slot| slot.is_there() && *slot.kind == kind) {
                change.added.push(slots.len());
                slots.push(Slot { kind: Arc::new(kind), end: CancellationToken::new() });
            }
        }
        change
    }
}

/// Whether objects of the kind can be watched and deleted. Events are nobody's dependents and far too many.
fn is_collectable(kind: &Kind) -> bool {
    ["delete", "list", "watch"].iter().all(|verb| kind.has_verb(verb)) && kind.resource.kind != "Event"
}

/// Whether objects of this kind make kinds appear and vanish.
pub(super) fn makes_kinds(kind: &Kind) -> bool {
    matches!(
        (kind.resource.group.as_str(), kind.resource.plural.as_str()),
        ("apiextensions.k8s.io", "customresourcedefinitions") | ("apiregistration.k8s.io", "apiservices")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Failure;

    fn found(names: &[(&str, &str)]) -> discovery::Kinds {
        let all = names.iter().map(|(group, kind)| Kind::for_tests(group, kind)).collect();
        discovery::Kinds { all, failures: Vec::new() }
    }

    #[test]
    fn kinds_appear_and_vanish_and_get_a_new_number_when_they_return() {
        let kinds = Kinds::default();
        let change = kinds.update(found(&[("", "Pod"), ("example.com", "Thing"), ("", "Event")]));
        assert_eq!((change.added, change.gone), (vec![0, 1], vec![]));
        assert_eq!(kinds.update(found(&[("", "Pod"), ("example.com", "Thing")])), Change::default());
        let thing = OwnerReference {
            api_version: "example.com/v7".to_owned(),
            kind: "Thing".to_owned(),
            ..OwnerReference::default()
        };
        assert_eq!(kinds.meant_by(&thing).map(|(index, _)| index), Some(1));
        let end = kinds.end(1).unwrap();
        assert_eq!(kinds.update(found(&[("", "Pod")])).gone, [1]);
        assert!(end.is_cancelled() && kinds.meant_by(&thing).is_none() && kinds.get(1).is_some());
        assert_eq!(kinds.update(found(&[("", "Pod"), ("example.com", "Thing")])).added, [2]);
    }

    #[test]
    fn a_group_that_does_not_answer_keeps_its_kinds() {
        let kinds = Kinds::default();
        kinds.update(found(&[("", "Pod"), ("example.com", "Thing")]));
        let failures = vec![Failure { group: "example.com".to_owned(), text: "down".to_owned() }];
        let change = kinds.update(discovery::Kinds { failures, ..found(&[("", "Pod")]) });
        assert_eq!(change, Change::default());
    }
}
