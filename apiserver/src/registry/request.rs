//! What a request asks of the registry, after routing, authentication and authorization.
//!
//! Plain data: the HTTP side fills it in from path, query string and body. Nothing here reads HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reeve_kinds::Part;
use serde_json::Value;

use super::resource::Resource;
use crate::status::ApiError;

/// Who asks. As in `authentication.k8s.io/v1` `UserInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// `system:node:worker-1`, `kubernetes-admin`, …
    pub name: String,
    /// Empty when the authenticator knows none.
    pub uid: String,
    /// `system:masters`, `system:authenticated`, …
    pub groups: Vec<String>,
    /// Further facts, such as the pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Whether it is a component of this process: nothing that comes from the network can say so.
    pub(crate) is_component: bool,
}

impl UserInfo {
    /// A user of that name in these groups.
    #[must_use]
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..Self::default() }
    }

    /// Whether the user is in the group.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// The part of an object that the path names behind the object's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Subresource {
    /// The object itself.
    #[default]
    None,
    /// A part of the object with a path of its own: `…/status`, `…/approval`.
    Part(Part),
    /// `…/scale`: read and written as `autoscaling/v1` `Scale`.
    Scale,
    /// `pods/NAME/binding`: create only.
    Binding,
    /// `pods/NAME/eviction`: create only.
    Eviction,
    /// `namespaces/NAME/finalize`: update only.
    Finalize,
}

impl Subresource {
    /// How it is called in URLs; empty for the object itself.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Part(part) => part.name(),
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Finalize => "finalize",
        }
    }
}

/// What to do with fields that the kind does not have and fields that stand twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn. What is done when the request does not say.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// How a list's `resourceVersion` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// At that version or any later one.
    NotOlderThan,
    /// At exactly that version.
    Exact,
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner and stay.
    Orphan,
    /// They are deleted after the object.
    Background,
    /// They are deleted before the object.
    Foreground,
}

/// Conditions on the object that a deletion names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// `metadata.uid` must be this.
    pub uid: Option<String>,
    /// `metadata.resourceVersion` must be this.
    pub resource_version: Option<String>,
}

/// The options of all verbs, as parsed from the query string; for deletions also from a `DeleteOptions` body
/// (see [`Options::set_delete_body`]). A verb ignores what does not concern it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `dryRun=All`
    pub dry_run: bool,
    /// `fieldValidation`
    pub field_validation: FieldValidation,
    /// Whether `field_validation` was said, rather than assumed.
    pub field_validation_stated: bool,
    /// `fieldManager`
    pub field_manager: String,
    /// Whose fields they are when there is no `fieldManager`: the program's name in `User-Agent`.
    pub client: String,
    /// `force`: an apply takes fields from their managers.
    pub force: Option<bool>,
    /// What an apply answers instead of creating the object: the user may not create one.
    pub create_refusal: Option<Box<ApiError>>,
    /// `labelSelector`, unparsed.
    pub label_selector: String,
    /// `fieldSelector`, unparsed.
    pub field_selector: String,
    /// `limit`; 0 means no limit.
    pub limit: u64,
    /// `continue`; empty for the first page.
    pub continue_token: String,
    /// `resourceVersion`, unparsed; empty when unset.
    pub resource_version: String,
    /// `resourceVersionMatch`
    pub version_match: Option<VersionMatch>,
    /// `sendInitialEvents`
    pub send_initial_events: Option<bool>,
    /// `allowWatchBookmarks`
    pub allow_watch_bookmarks: bool,
    /// `timeoutSeconds` of a watch; without it the server chooses between 30 and 60 minutes.
    pub timeout: Option<Duration>,
    /// `gracePeriodSeconds`
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy` of a deletion.
    pub propagation: Option<Propagation>,
    /// `orphanDependents` of a deletion, which says nearly the same in old words; never both.
    pub orphan_dependents: Option<bool>,
    /// `preconditions` of a deletion.
    pub preconditions: Preconditions,
}

impl Propagation {
    /// `Orphan`, `Background` or `Foreground`.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        match text {
            "Orphan" => Some(Self::Orphan),
            "Background" => Some(Self::Background),
            "Foreground" => Some(Self::Foreground),
            _ => None,
        }
    }
}

/// One request. `resource` comes from [`super::Registry::resource`].
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub user: UserInfo,
    /// What kind of object is asked for.
    pub resource: Arc<Resource>,
    /// The namespace of the path; empty for cluster-wide kinds and for lists over all namespaces.
    pub namespace: String,
    /// The name of the path; empty for collections.
    pub name: String,
    /// The part of the object that is meant.
    pub subresource: Subresource,
    /// The options.
    pub options: Options,
    /// What the client is warned of, whether the request succeeds or not.
    pub warnings: Warnings,
}

/// Texts for the `Warning` header that come up while a request is served. Clones collect in one place.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text; one that is empty or there already is not added.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.is_empty() && !all.contains(&text) {
            all.push(text);
        }
    }

    /// Adds these texts, as [`Warnings::add`] does.
    pub fn add_all(&self, texts: &[String]) {
        texts.iter().for_each(|text| self.add(text.as_str()));
    }

    /// Takes what has been collected, in order.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A decoded body: see [`crate::decode`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Body {
    /// The object. A field that stood twice has its last value.
    pub value: Value,
    /// Complaints of the decoder that are only fatal under [`FieldValidation::Strict`], in Kubernetes' words:
    /// `duplicate field "spec.replicas"`; of YAML `line 4: key "replicas" already set in map`.
    pub complaints: Vec<String>,
    /// The text of JSON in which fields stand twice: what else is wrong is told in its order.
    pub text: Option<Bytes>,
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self { value, ..Self::default() }
    }
}

/// A patch, by the content type it came with.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// `application/json-patch+json` (RFC 6902)
    Json(Value),
    /// `application/merge-patch+json` (RFC 7386)
    Merge(Body),
    /// `application/strategic-merge-patch+json`
    Strategic(Body),
    /// `application/apply-patch+yaml`
    Apply(Body),
}
