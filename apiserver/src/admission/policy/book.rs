//! The compiled policies of the cluster: those that are bound somewhere, renewed when their objects change.
//!
//! Each policy is compiled once per change of its object: by whoever writes it (see [`PolicyBook::refresh`]), or after
//! a start by the first request. A request on a server without policies pays for a look at two empty snapshots.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use reeve_store::Revision;
use serde_json::Value;

use super::compiled::{Binding, Mutating, Validating};
use crate::auth::Authorizer;
use crate::cache::Snapshot;
use crate::registry::{Resource, Resources};

const GROUP: &str = "admissionregistration.k8s.io";

/// The kinds that no policy is asked about: a broken one can always be taken away.
const EXEMPT: [&str; 4] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];

/// Whether a resource is one of those that no policy is asked about: policies themselves, and reviews, without which a
/// cluster would not work.
pub(super) fn is_exempt(resource: &Resource) -> bool {
    let names = resource.names();
    (names.group == GROUP && EXEMPT.contains(&names.plural))
        || reeve_kinds::reviews().iter().any(|own| own.names() == names)
}

/// A policy with the bindings that make it hold somewhere.
#[derive(Debug)]
pub(super) struct Bound<P> {
    pub(super) policy: Arc<P>,
    pub(super) bindings: Vec<Arc<Binding>>,
}

/// All policies of one kind that have bindings, as of two snapshots.
struct Page<P> {
    policies: Arc<Snapshot>,
    bindings: Arc<Snapshot>,
    /// By name, with the revision they were compiled at.
    compiled: BTreeMap<String, (Revision, Arc<P>)>,
    bound: Arc<[Bound<P>]>,
}

/// A kind of policy.
pub(super) trait Policy: Sized {
    fn compile(object: &Value) -> Self;
}

impl Policy for Validating {
    fn compile(object: &Value) -> Self {
        Self::compile(object)
    }
}

impl Policy for Mutating {
    fn compile(object: &Value) -> Self {
        Self::compile(object)
    }
}

/// The policies of one kind.
struct Kept<P> {
    policies: Arc<Resource>,
    bindings: Arc<Resource>,
    page: ArcSwapOption<Page<P>>,
    /// Held while policies are compiled.
    making: Mutex<()>,
}

impl<P: Policy> Kept<P> {
    fn new(resources: &Resources, policies: &str, bindings: &str) -> Option<Self> {
        let find = |plural| resources.get(GROUP, "v1", plural).cloned();
        let (policies, bindings) = (find(policies)?, find(bindings)?);
        Some(Self { policies, bindings, page: ArcSwapOption::empty(), making: Mutex::default() })
    }

    /// Those that are bound; none when there are none.
    fn current(&self) -> Option<Arc<[Bound<P>]>> {
        let policies = self.policies.storage.snapshot();
        if policies.objects.is_empty() {
            return None;
        }
        let bindings = self.bindings.storage.snapshot();
        if bindings.objects.is_empty() {
            return None;
        }
        let bound = self.made_of(&policies, &bindings).unwrap_or_else(|| self.make(policies, bindings));
        (!bound.is_empty()).then_some(bound)
    }

    fn made_of(&self, policies: &Arc<Snapshot>, bindings: &Arc<Snapshot>) -> Option<Arc<[Bound<P>]>> {
        let page = self.page.load();
        let is_it =
            |page: &&Arc<Page<P>>| Arc::ptr_eq(&page.policies, policies) && Arc::ptr_eq(&page.bindings, bindings);
        page.as_ref().filter(is_it).map(|page| Arc::clone(&page.bound))
    }

    fn make(&self, policies: Arc<Snapshot>, bindings: Arc<Snapshot>) -> Arc<[Bound<P>]> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = self.made_of(&policies, &bindings) {
            return bound;
        }
        let before = self.page.load_full();
        let known = |name: &str, revision| {
            let (at, policy) = before.as_ref()?.compiled.get(name)?;
            (*at == revision).then(|| Arc::clone(policy))
        };
        let all: Vec<Arc<Binding>> =
            bindings.objects.values().map(|object| Arc::new(Binding::read(&object.value()))).collect();
        let mut compiled = BTreeMap::new();
        let mut bound = Vec::new();
        for (key, object) in &policies.objects {
            let name = String::from_utf8_lossy(key).into_owned();
            let own: Vec<_> = all.iter().filter(|binding| binding.policy == name).cloned().collect();
            if own.is_empty() {
                continue;
            }
            let policy = known(&name, object.revision).unwrap_or_else(|| Arc::new(P::compile(&object.value())));
            bound.push(Bound { policy: Arc::clone(&policy), bindings: own });
            compiled.insert(name, (object.revision, policy));
        }
        let bound: Arc<[Bound<P>]> = bound.into();
        self.page.store(Some(Arc::new(Page { policies, bindings, compiled, bound: Arc::clone(&bound) })));
        bound
    }
}

/// The policies of a cluster. One per registry.
pub(crate) struct PolicyBook {
    validating: Option<Kept<Validating>>,
    mutating: Option<Kept<Mutating>>,
    authorizer: OnceLock<Arc<dyn Authorizer>>,
    /// Until the server's own objects are there nobody is asked.
    is_open: AtomicBool,
}

impl PolicyBook {
    /// Policies that are objects of these resources. Without the kinds there are none.
    pub(crate) fn new(resources: &Resources) -> Self {
        Self {
            validating: Kept::new(resources, "validatingadmissionpolicies", "validatingadmissionpolicybindings"),
            mutating: Kept::new(resources, "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
            authorizer: OnceLock::new(),
            is_open: AtomicBool::new(false),
        }
    }

    /// From now on policies are asked.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Compiles what has changed, so that no request has to.
    pub(crate) fn refresh(&self) {
        self.validating();
        self.mutating();
    }

    /// Says who answers expressions that ask what somebody may do. Once, when the server starts; the first one stays.
    pub(crate) fn set_authorizer(&self, authorizer: Arc<dyn Authorizer>) {
        let _ = self.authorizer.set(authorizer);
    }

    /// Who answers expressions that ask what somebody may do; none in a registry without a server.
    pub(crate) fn authorizer(&self) -> Option<&dyn Authorizer> {
        self.authorizer.get().map(|authorizer| &**authorizer)
    }

    /// The policies that say yes or no; none when none is bound.
    pub(super) fn validating(&self) -> Option<Arc<[Bound<Validating>]>> {
        self.validating.as_ref()?.current().filter(|_| self.is_open.load(Ordering::Relaxed))
    }

    /// The policies that change objects; none when none is bound.
    pub(super) fn mutating(&self) -> Option<Arc<[Bound<Mutating>]>> {
        self.mutating.as_ref()?.current().filter(|_| self.is_open.load(Ordering::Relaxed))
    }
}
