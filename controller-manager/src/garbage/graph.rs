//! Who depends on whom, among all objects of the cluster. Pure: changes in, objects to look at out.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The finalizer of an object that waits for its dependents to be deleted first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to be let go before it is deleted.
pub(super) const ORPHAN: &str = "orphan";

/// `metadata.uid`.
pub(super) type Uid = String;

/// An object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// Index of the kind in the collector's table.
    pub(super) kind: usize,
    /// Empty for kinds without namespaces.
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Uid,
}

impl Identity {
    /// Whether a reference with this object's uid, from an object of `namespace`, can mean it.
    fn may_own(&self, namespace: &str, reference: &OwnerReference) -> bool {
        self.name == reference.name && (self.namespace.is_empty() || self.namespace == namespace)
    }
}

/// What has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Work {
    /// Whether the object has to go, or one of its finalizers.
    Examine(Uid),
    /// The object's dependents have to be let go.
    Orphan(Uid),
}

/// All objects with their owners and dependents. Its size follows from the number of objects in the cluster.
#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: HashMap<Uid, Object>,
    /// By owner, whether or not the owner is known.
    dependents: HashMap<Uid, BTreeSet<Uid>>,
}

#[derive(Debug)]
struct Object {
    identity: Identity,
    owners: Vec<OwnerReference>,
    deleting: bool,
    /// Waits for its dependents to be deleted.
    foreground: bool,
}

/// What a decision about one object starts from.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) identity: Identity,
    pub(super) deleting: bool,
    pub(super) foreground: bool,
}

impl Graph {
    /// Takes over an object as the watch shows it.
    pub(super) fn put(&mut self, identity: Identity, meta: &ObjectMeta) -> Vec<Work> {
        let uid = identity.uid.clone();
        let has_finalizer = |name: &str| meta.finalizers.iter().flatten().any(|own| own == name);
        let deleting = meta.deletion_timestamp.is_some();
        let object = Object {
            identity,
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has_finalizer(FOREGROUND),
        };
        let mut work = Vec::new();
        let old = self.objects.remove(&uid);
        let old_owners = old.as_ref().map(|old| old.owners.clone()).unwrap_or_default();
        self.rewire(&uid, &old_owners, &object.owners, &mut work);
        // An owner that was never seen may never have been there, and one of another name or namespace is none:
        // nothing but this look would find out.
        let owners_changed = old_owners != object.owners;
        let namespace = &object.identity.namespace;
        let is_doubtful = |owner: &OwnerReference| {
            self.objects.get(&owner.uid).is_none_or(|known| !known.identity.may_own(namespace, owner))
        };
        if owners_changed && object.owners.iter().any(is_doubtful) {
            work.push(Work::Examine(uid.clone()));
        }
        if object.foreground && !old.as_ref().is_some_and(|old| old.foreground) {
            work.extend(self.dependents_of(&uid).into_iter().map(Work::Examine));
            work.push(Work::Examine(uid.clone()));
            // What this one blocks by waiting may be part of a circle.
            work.extend(object.owners.iter().map(|owner| Work::Examine(owner.uid.clone())));
        }
        if deleting && has_finalizer(ORPHAN) {
            work.push(Work::Orphan(uid.clone()));
        }
        self.objects.insert(uid, object);
        work
    }

    /// Forgets an object that is gone: its dependents lose an owner, its owners a dependent.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(object) = self.objects.remove(uid) else { return Vec::new() };
        let mut work: Vec<Work> = self.dependents_of(uid).into_iter().map(Work::Examine).collect();
        self.rewire(uid, &object.owners, &[], &mut work);
        work
    }

    /// The uids of all objects of a kind, to compare with a complete list.
    pub(super) fn of_kind(&self, kind: usize) -> Vec<Uid> {
        let own = self.objects.values().filter(|object| object.identity.kind == kind);
        own.map(|object| object.identity.uid.clone()).collect()
    }

    /// What is known of an object.
    pub(super) fn view(&self, uid: &str) -> Option<View> {
        let object = self.objects.get(uid)?;
        Some(View { identity: object.identity.clone(), deleting: object.deleting, foreground: object.foreground })
    }

    /// The objects that name this one as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<View> {
        self.dependents_of(uid).iter().filter_map(|dependent| self.view(dependent)).collect()
    }

    /// Those of them that the owner's foreground deletion waits for. A reference that has the owner's uid but cannot
    /// mean it (another name, another namespace, or not of the owner's kind, which `is_kind` knows) holds nothing up.
    pub(super) fn blocking_dependents(&self, uid: &str, is_kind: impl Fn(&OwnerReference) -> bool) -> Vec<View> {
        let Some(known) = self.objects.get(uid) else { return Vec::new() };
        let blocks = |dependent: &Uid| {
            self.objects.get(dependent).is_some_and(|object| {
                object.owners.iter().any(|owner| {
                    owner.uid == uid
                        && owner.block_owner_deletion == Some(true)
                        && known.identity.may_own(&object.identity.namespace, owner)
                        && is_kind(owner)
                })
            })
        };
        self.dependents_of(uid)
            .iter()
            .filter(|dependent| blocks(dependent))
            .filter_map(|dependent| self.view(dependent))
            .collect()
    }

    /// The objects that have an owner of a kind which `is_kind` knows: what was said of that owner before the kind was
    /// known has to be thought over.
    pub(super) fn owned_by(&self, is_kind: impl Fn(&OwnerReference) -> bool) -> Vec<Work> {
        let owned = self.objects.iter().filter(|(_, object)| object.owners.iter().any(&is_kind));
        owned.map(|(uid, _)| Work::Examine(uid.clone())).collect()
    }

    /// Whether the reference has the uid of an object in another namespace than the dependent: it owns nothing there.
    pub(super) fn is_elsewhere(&self, owner: &OwnerReference, dependent: &Identity) -> bool {
        let known = self.objects.get(&owner.uid).map_or("", |known| known.identity.namespace.as_str());
        !known.is_empty() && known != dependent.namespace
    }

    fn dependents_of(&self, uid: &str) -> Vec<Uid> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Follows changed owner references. An owner that waits for its dependents has to look when one is gone or
    /// no longer blocks it.
    fn rewire(&mut self, uid: &str, old: &[OwnerReference], new: &[OwnerReference], work: &mut Vec<Work>) {
        for owner in old {
            let now = new.iter().find(|other| other.uid == owner.uid);
            if now.is_none()
                && let Some(dependents) = self.dependents.get_mut(&owner.uid)
            {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
            let no_longer_blocks = now.is_none_or(|now| now.block_owner_deletion != Some(true));
            if no_longer_blocks && self.objects.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                work.push(Work::Examine(owner.uid.clone()));
            }
        }
        for owner in new {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
    }
}
