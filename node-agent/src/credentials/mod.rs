//! The kubelet's credential providers: programs that are asked who one is at an image's registry.
//!
//! Source: kubernetes.io/docs/tasks/administer-cluster/kubelet-credential-provider, and the kubelet's
//! `credentialprovider/plugin`. What they say counts beside what a pod's `imagePullSecrets` say, after it.

mod config;
mod metrics;
mod plugin;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use reeve_client::Component;
use reeve_engine::images::{DockerConfig, Reference};

use self::config::{Provider, TokenAttributes};
use self::metrics::Runs;
use self::plugin::{CacheKeyType, Request, Response};
use crate::pod::state::spec;
use crate::volume::token::bound_to;

/// Answers that are kept of one plugin; more are asked for again.
const CACHED_MAX: usize = 4096;
/// Stands for every image.
const GLOBAL: &str = "<global>";

/// All plugins of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CredentialProviders {
    plugins: Arc<Vec<Plugin>>,
    /// Of the configuration.
    hash: String,
}

#[derive(Debug)]
struct Plugin {
    provider: Provider,
    state: Arc<Mutex<State>>,
    runs: Arc<Runs>,
}

/// What was answered, and what is being asked.
#[derive(Default)]
struct State {
    /// By what the answer is about and for whom; until when it holds, in the clock's monotonic time.
    known: HashMap<(String, Account), (Arc<DockerConfig>, Duration)>,
    asked: HashMap<(String, Account), Asked>,
}

type Asked = Shared<BoxFuture<'static, Result<Arc<Response>, String>>>;

/// For whom a plugin is asked; empty where it does not want to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Account {
    namespace: String,
    name: String,
    uid: String,
    annotations: BTreeMap<String, String>,
    /// Digest of the token, where answers hold for one only.
    token: String,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl CredentialProviders {
    /// Reads the configuration, a file or a folder of files, and finds the programs in `bin_dir`.
    ///
    /// # Errors
    /// What is wrong, in the kubelet's words.
    pub fn open(config: &Path, bin_dir: &Path) -> Result<Self, String> {
        let plugin = |provider| Plugin { provider, state: Arc::default(), runs: Arc::default() };
        let plugins = config::read(config, bin_dir)?.into_iter().map(plugin).collect();
        Ok(Self { plugins: Arc::new(plugins), hash: config::hash(config)? })
    }

    /// What the plugins say about an image that a pod needs, in the order of the configuration. One that fails is told
    /// of in the log and says nothing.
    pub(crate) async fn provide(&self, component: &Component, pod: &Pod, image: &Reference) -> Vec<Arc<DockerConfig>> {
        let mut found = Vec::new();
        for plugin in self.plugins.iter().filter(|plugin| plugin.is_for(image)) {
            match plugin.provide(component, pod, image).await {
                Ok(config) => found.extend(config),
                Err(error) => {
                    let provider = &plugin.provider.name;
                    tracing::error!(error, provider, %image, "Failed to provide credentials for image");
                }
            }
        }
        found
    }
}

impl CredentialProviders {
    /// How often plugins ran and failed, for the kubelet's `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let runs = self.plugins.iter().map(|plugin| (plugin.provider.name.as_str(), plugin.runs.as_ref()));
        metrics::text(&self.hash, runs)
    }
}

impl Plugin {
    fn is_for(&self, image: &Reference) -> bool {
        self.provider.images.iter().any(|pattern| pattern.matches(image))
    }

    async fn provide(
        &self,
        component: &Component,
        pod: &Pod,
        image: &Reference,
    ) -> Result<Option<Arc<DockerConfig>>, String> {
        let (account, token) = match &self.provider.token {
            None => (Account::default(), None),
            Some(wanted) => match account_of(component, pod, wanted).await? {
                None => return Ok(None),
                Some(known) => known,
            },
        };
        let per_token = self.provider.token.as_ref().is_some_and(|wanted| wanted.per_token);
        let digest = token.as_ref().map(|token| reeve_engine::images::Digest::of(token.as_bytes()).to_string());
        let key = Account { token: digest.clone().filter(|_| per_token).unwrap_or_default(), ..account.clone() };
        let now = component.clock.monotonic();
        if let Some(known) = self.known(image, &key, now) {
            return Ok(Some(known));
        }
        // Whoever asks the same at the same time shares the answer, if it is asked with the same token.
        let flight = (image.repository(), Account { token: digest.unwrap_or_default(), ..account.clone() });
        let request = Request {
            image: image.repository(),
            token: token.clone().unwrap_or_default(),
            annotations: account.annotations,
        };
        let response = self.ask(flight, request).await?;
        let echoed = |token: &String| response.auth.values().any(|auth| auth.password == *token);
        if !per_token && token.as_ref().is_some_and(|token| !token.is_empty() && echoed(token)) {
            return Err("credential provider plugin returned the service account token as the password which is not \
                        allowed when service account cache type is not set to 'Token'"
                .to_owned());
        }
        Ok(Some(self.keep(image, key, &response, now)))
    }

    fn known(&self, image: &Reference, account: &Account, now: Duration) -> Option<Arc<DockerConfig>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = [image.repository(), image.domain().to_owned(), GLOBAL.to_owned()];
        let holds = |about| state.known.get(&(about, account.clone())).filter(|(_, until)| now <= *until);
        keys.into_iter().find_map(holds).map(|(config, _)| Arc::clone(config))
    }

    fn ask(&self, flight: (String, Account), request: Request) -> Asked {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (provider, own, key) = (self.provider.clone(), Arc::clone(&self.state), flight.clone());
        let runs = Arc::clone(&self.runs);
        let begin = || {
            let asked = async move {
                let response = plugin::execute(&provider, &request, &runs).await.map(Arc::new);
                own.lock().unwrap_or_else(PoisonError::into_inner).asked.remove(&key);
                response
            };
            // It goes on when whoever asked goes away: others may be waiting for it.
            let task = tokio::spawn(asked);
            async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared()
        };
        state.asked.entry(flight).or_insert_with(begin).clone()
    }

    /// The answer as a configuration, kept as long as it holds.
    fn keep(&self, image: &Reference, account: Account, response: &Response, now: Duration) -> Arc<DockerConfig> {
        let entries = response.auth.iter();
        let entries = entries.map(|(key, auth)| (key.clone(), auth.username.clone(), auth.password.clone()));
        let config = Arc::new(DockerConfig::of_entries(entries));
        let holds = response.cache_duration.unwrap_or(self.provider.cache_duration);
        if holds.is_zero() {
            return config;
        }
        let about = match response.cache_key_type {
            CacheKeyType::Image => image.repository(),
            CacheKeyType::Registry => image.domain().to_owned(),
            CacheKeyType::Global => GLOBAL.to_owned(),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.known.len() >= CACHED_MAX {
            state.known.retain(|_, (_, until)| now <= *until);
        }
        if state.known.len() < CACHED_MAX {
            state.known.insert((about, account), (Arc::clone(&config), now.saturating_add(holds)));
        }
        config
    }
}

/// The pod's service account and a token of it; `None`: the plugin is not to be asked for this pod.
async fn account_of(
    component: &Component,
    pod: &Pod,
    wanted: &TokenAttributes,
) -> Result<Option<(Account, Option<String>)>, String> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(name) = spec(pod).service_account_name.clone().filter(|name| !name.is_empty()) else {
        return Ok((!wanted.required).then(|| (Account::default(), None)));
    };
    let api: Api<ServiceAccount> = Api::namespaced(component.client.clone(), &namespace);
    let object = api.get(&name).await.map_err(|error| format!("failed to get service account: {error}"))?;
    let held = object.metadata.annotations.unwrap_or_default();
    let Some(annotations) = annotations(&held, wanted) else { return Ok(None) };
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let mut request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![wanted.audience.clone()]),
            bound_object_ref: Some(bound_to(pod)),
            expiration_seconds: None,
        }),
        ..TokenRequest::default()
    };
    request.metadata.uid = object.metadata.uid;
    let answer = api.create_token_request(&name, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("failed to get service account token: {error}"))?;
    let token = answer.status.and_then(|status| status.token).unwrap_or_default();
    let account = Account { namespace, name, uid, annotations, token: String::new() };
    Ok(Some((account, Some(token))))
}

/// What a plugin is told of an account's annotations; `None` when one is missing that it needs.
fn annotations(held: &BTreeMap<String, String>, wanted: &TokenAttributes) -> Option<BTreeMap<String, String>> {
    let pair = |key: &String| held.get(key).map(|value| (key.clone(), value.clone()));
    let required: Option<BTreeMap<String, String>> = wanted.required_annotations.iter().map(pair).collect();
    let mut told = required?;
    told.extend(wanted.optional_annotations.iter().filter_map(pair));
    Some(told)
}

#[cfg(test)]
mod tests;
