//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: servers elsewhere that change requests or refuse them.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | the configurations, made ready once per change |
//! | `asked.rs` | which webhooks are asked about a request, and in which version |
//! | `review.rs` | the question as an `AdmissionReview`, and what an answer means: pure |
//! | `call.rs` | one question over HTTPS |
//! | `mutating.rs` | one after the other, each on what the one before made; and again when something changed |
//! | `validating.rs` | all at once |
//!
//! Without a configuration a request pays for two looks into the cache. Configurations of webhooks and policies are
//! never subject to webhooks themselves: a broken one can always be taken away. Source of rules and words:
//! `k8s.io/apiserver/pkg/admission/plugin/webhook`. There is no audit log, so audit annotations go to the log.

mod asked;
mod call;
mod config;
mod mutating;
pub(super) mod review;
mod validating;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Attributes;
use super::reinvocation::Rounds;
use crate::outbound::Services;
use crate::registry::{Registry, Resource, Resources};
use crate::status::ApiError;
use config::{Configured, Flavor, Hook};

/// Where webhooks and policies are configured.
const GROUP: &str = "admissionregistration.k8s.io";

/// The kinds that no webhook is asked about.
const EXEMPT: [&str; 6] = [
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// Whether a write of this resource changes what admission does.
pub(crate) fn is_configuration(resource: &Resource) -> bool {
    resource.names().group == GROUP
}

/// The webhooks of this server.
pub(crate) struct Webhooks {
    mutating: Option<Configured>,
    validating: Option<Configured>,
    /// Until the server's own objects are there nobody is asked: who would answer may need them.
    is_open: AtomicBool,
}

impl Webhooks {
    /// Webhooks that are configured by objects of these resources. Without the kinds there are none.
    pub(crate) fn new(resources: &Resources) -> Self {
        let find = |group: &str, plural: &str| resources.get(group, "v1", plural).cloned();
        let services = find("", "services").zip(find("discovery.k8s.io", "endpointslices"));
        let services = services.map(|(services, slices)| Arc::new(Services::new(services, slices)));
        let configured = |plural, flavor| {
            let resource = find(GROUP, plural)?;
            Some(Configured::new(resource, flavor, Arc::clone(services.as_ref()?)))
        };
        Self {
            mutating: configured("mutatingwebhookconfigurations", Flavor::Mutating),
            validating: configured("validatingwebhookconfigurations", Flavor::Validating),
            is_open: AtomicBool::new(false),
        }
    }

    /// From now on webhooks are asked.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    fn hooks(&self, configured: Option<&Configured>, attributes: &Attributes<'_>) -> Option<Arc<[Hook]>> {
        let hooks = configured?.hooks()?;
        let is_exempt = attributes.kind.group == GROUP && EXEMPT.contains(&attributes.kind.kind);
        (!is_exempt && self.is_open.load(Ordering::Relaxed)).then_some(hooks)
    }

    /// Asks the mutating webhooks; `attributes.object` is what they make of it.
    pub(in crate::admission) async fn mutate(
        &self,
        registry: &Registry,
        attributes: &mut Attributes<'_>,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        match self.hooks(self.mutating.as_ref(), attributes) {
            Some(hooks) => mutating::ask(registry, &hooks, attributes, rounds).await,
            None => Ok(()),
        }
    }

    /// Asks the validating webhooks.
    pub(crate) async fn validate(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        match self.hooks(self.validating.as_ref(), attributes) {
            Some(hooks) => validating::ask(registry, &hooks, attributes).await,
            None => Ok(()),
        }
    }
}
