//! Webhook configurations, made ready to be used: parsed once per change, in the order in which they are asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::admission::matching::{Criteria, texts};
use crate::admission::policy::Conditions;
use crate::cache::Snapshot;
use crate::outbound::{Caller, Place, Services, Trust};
use crate::registry::{Resource, meta};

/// Kubernetes' default, for configurations that were stored without.
const TIMEOUT_SECONDS: u64 = 10;
const PORT: u16 = 443;

/// Which of the two plugins a webhook belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    /// It may change the object.
    Mutating,
    /// It says yes or no.
    Validating,
}

impl Flavor {
    /// As it stands in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validating",
        }
    }
}

/// Where a webhook listens and whom it must prove to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) place: Place,
    pub(super) path: String,
    ca_bundle: Vec<u8>,
}

/// One webhook, ready to be asked.
pub(super) struct Hook {
    pub(super) flavor: Flavor,
    /// Name of its configuration, its own name and its place there: tells it from all others.
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) about: Criteria,
    pub(super) conditions: Conditions,
    /// Requests are let through when it cannot be asked.
    pub(super) is_ignorable: bool,
    /// Empty: nobody has said.
    pub(super) side_effects: String,
    pub(super) timeout: Duration,
    /// The version of the review that both sides speak; `None` when there is none.
    pub(super) review_version: Option<&'static str>,
    pub(super) is_reinvoked: bool,
    pub(super) client: Result<Client, String>,
    /// Its connections; `Err` says why it cannot be called.
    pub(super) caller: Result<Caller, String>,
}

struct Ready {
    of: Arc<Snapshot>,
    hooks: Arc<[Hook]>,
}

/// The webhooks of all configurations of one kind.
pub(super) struct Configured {
    resource: Arc<Resource>,
    flavor: Flavor,
    services: Arc<Services>,
    ready: ArcSwapOption<Ready>,
    /// Held while configurations are made ready: once per change, without waiting for anything.
    making: Mutex<()>,
}

impl Configured {
    pub(super) fn new(resource: Arc<Resource>, flavor: Flavor, services: Arc<Services>) -> Self {
        Self { resource, flavor, services, ready: ArcSwapOption::empty(), making: Mutex::default() }
    }

    /// The webhooks as configured now, in order; `None` when there are none.
    pub(super) fn hooks(&self) -> Option<Arc<[Hook]>> {
        let snapshot = self.resource.storage.snapshot();
        if snapshot.objects.is_empty() {
            return None;
        }
        if let Some(hooks) = self.made_of(&snapshot) {
            return Some(hooks);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hooks) = self.made_of(&snapshot) {
            return Some(hooks);
        }
        let before = self.ready.load_full();
        let before = before.as_ref().map(|ready| &*ready.hooks).unwrap_or_default();
        let configurations = snapshot.objects.values().map(|object| object.value());
        let hooks: Vec<Hook> = configurations.flat_map(|one| self.hooks_of(&one, before)).collect();
        let hooks: Arc<[Hook]> = hooks.into();
        self.ready.store(Some(Arc::new(Ready { of: snapshot, hooks: Arc::clone(&hooks) })));
        Some(hooks)
    }

    fn made_of(&self, snapshot: &Arc<Snapshot>) -> Option<Arc<[Hook]>> {
        let ready = self.ready.load();
        let ready = ready.as_ref().filter(|ready| Arc::ptr_eq(&ready.of, snapshot))?;
        Some(Arc::clone(&ready.hooks))
    }

    fn hooks_of(&self, configuration: &Value, before: &[Hook]) -> Vec<Hook> {
        let name = meta::text(configuration, "name");
        let hooks = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
        hooks.map(|(index, hook)| self.hook(hook, format!("{name}/{}/{index}", text(hook, "name")), before)).collect()
    }

    fn hook(&self, hook: &Value, uid: String, before: &[Hook]) -> Hook {
        let client = client(&hook["clientConfig"]);
        let caller = client.clone().and_then(|client| self.caller(&client, before));
        let versions = texts(hook, "admissionReviewVersions");
        let known = versions.iter().find_map(|version| ["v1", "v1beta1"].into_iter().find(|known| known == version));
        Hook {
            flavor: self.flavor,
            uid,
            name: text(hook, "name").to_owned(),
            about: Criteria::of_webhook(hook),
            conditions: Conditions::of_webhook(hook),
            is_ignorable: text(hook, "failurePolicy") == "Ignore",
            side_effects: text(hook, "sideEffects").to_owned(),
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS)),
            review_version: known,
            is_reinvoked: text(hook, "reinvocationPolicy") == "IfNeeded",
            client,
            caller,
        }
    }

    /// The connections there were before, when nothing about them has changed.
    fn caller(&self, client: &Client, before: &[Hook]) -> Result<Caller, String> {
        let same = before.iter().find(|hook| {
            hook.client.as_ref().is_ok_and(|own| own.place == client.place && own.ca_bundle == client.ca_bundle)
        });
        if let Some(Ok(caller)) = same.map(|hook| &hook.caller) {
            return Ok(caller.clone());
        }
        let trust = Trust::in_bundle(client.ca_bundle.clone());
        Caller::new(client.place.clone(), &trust, &self.services).map_err(|error| error.to_string())
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn client(config: &Value) -> Result<Client, String> {
    let ca_bundle = STANDARD.decode(text(config, "caBundle")).map_err(|error| format!("caBundle: {error}"))?;
    let service = &config["service"];
    if service.is_object() {
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
        let (namespace, name) = (text(service, "namespace").to_owned(), text(service, "name").to_owned());
        let path = with_slash(text(service, "path"));
        return Ok(Client { place: Place::Service { namespace, name, port }, path, ca_bundle });
    }
    let url = config["url"].as_str().ok_or("webhook configuration must have either service or URL")?;
    let parsed: http::Uri = url.parse().map_err(|error| format!("Unparsable URL: {error}"))?;
    let host = parsed.host().ok_or_else(|| format!("Unparsable URL: no host in {url:?}"))?;
    let place = Place::Host(host.to_owned(), parsed.port_u16().unwrap_or(PORT));
    Ok(Client { place, path: with_slash(parsed.path()), ca_bundle })
}

fn with_slash(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}
