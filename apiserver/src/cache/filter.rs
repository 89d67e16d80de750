//! Which objects of a resource a list or watch wants: namespace, label selector, field selector.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use reeve_api::selector::{FieldSelector, LabelSelector};
use serde::Deserialize;
use serde_json::Value;

use crate::registry::{Object, Request, Resource};
use crate::status::ApiError;

/// An object that is parsed when somebody needs a field of it, and then once. Labels alone are read without
/// building the rest: they are what most lists select by.
pub(crate) struct Lazy<'o> {
    object: &'o Object,
    value: OnceCell<Value>,
    labels: OnceCell<Labels<'o>>,
}

type Labels<'o> = BTreeMap<Cow<'o, str>, Cow<'o, str>>;

/// The part of an object that label selectors look at.
#[derive(Deserialize)]
struct Labelled<'o> {
    #[serde(borrow)]
    metadata: LabelledMeta<'o>,
}

#[derive(Deserialize)]
struct LabelledMeta<'o> {
    #[serde(borrow, default)]
    labels: Option<Labels<'o>>,
}

impl<'o> Lazy<'o> {
    /// Not parsed yet.
    pub(crate) fn new(object: &'o Object) -> Self {
        Self { object, value: OnceCell::new(), labels: OnceCell::new() }
    }

    fn label(&self, key: &str) -> Option<&str> {
        let read = || {
            serde_json::from_slice::<Labelled<'o>>(self.object.text()).ok().and_then(|object| object.metadata.labels)
        };
        self.labels.get_or_init(|| read().unwrap_or_default()).get(key).map(|value| &**value)
    }

    /// As the resource shows it; what filters of all versions share is the stored form.
    fn value(&self, resource: &Resource) -> Cow<'_, Value> {
        if resource.converts() {
            return Cow::Owned(resource.shown_value(self.object));
        }
        Cow::Borrowed(self.value.get_or_init(|| self.object.value()))
    }
}

/// The wish of one list or watch. All parts must hold.
pub(crate) struct Filter {
    resource: Arc<Resource>,
    /// What the keys begin with, behind the resource's prefix: `NAMESPACE/` or nothing.
    scope: String,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Fields that stored objects do not show: only once they are converted it is known whether they match.
    hidden: FieldSelector,
}

impl Filter {
    /// Reads the selectors of a request. A field that cannot be selected by is refused.
    pub(crate) fn new(request: &Request) -> Result<Self, ApiError> {
        let options = &request.options;
        let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
        let labels = LabelSelector::parse(&options.label_selector).map_err(|error| bad(&error))?;
        let fields = FieldSelector::parse(&options.field_selector).map_err(|error| bad(&error))?;
        check_fields(&request.resource, &fields)?;
        let scope = if request.resource.names().namespaced && !request.namespace.is_empty() {
            format!("{}/", request.namespace)
        } else {
            String::new()
        };
        let hides = request.resource.hides_fields();
        let (fields, hidden) = fields.split(|field| !hides || is_meta_field(field));
        Ok(Self { resource: Arc::clone(&request.resource), scope, labels, fields, hidden })
    }

    /// What the wanted keys begin with, behind the resource's prefix.
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// The one key that can match, when the request names namespace (where there is one) and name.
    pub(crate) fn only_key(&self) -> Option<String> {
        let name = self.fields.exact("metadata.name")?;
        let namespace = match self.fields.exact("metadata.namespace") {
            Some(namespace) if self.scope.is_empty() => format!("{namespace}/"),
            _ => self.scope.clone(),
        };
        let complete = !self.resource.names().namespaced || !namespace.is_empty();
        complete.then(|| format!("{namespace}{name}"))
    }

    /// Whether no selector narrows the collection.
    pub(crate) fn is_everything(&self) -> bool {
        self.matches_all_stored() && !self.looks_at_shown()
    }

    fn matches_all_stored(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether objects that match must also match as they are shown: [`Filter::matches_shown`].
    pub(crate) fn looks_at_shown(&self) -> bool {
        !self.hidden.is_everything()
    }

    /// Whether an object that matches as it is stored is wanted, now that it is in the version of the resource.
    pub(crate) fn matches_shown(&self, shown: &Object) -> bool {
        let value = shown.value();
        self.hidden.matches_with(|field| self.resource.kind.selectable_field(&value, field))
    }

    /// Whether the object at `key` (behind the resource's prefix) is wanted, as far as its stored form tells.
    pub(crate) fn matches(&self, key: &[u8], object: &Lazy<'_>) -> bool {
        key.starts_with(self.scope.as_bytes()) && (self.matches_all_stored() || self.matches_value(key, object))
    }

    fn matches_value(&self, key: &[u8], object: &Lazy<'_>) -> bool {
        let fields = self.fields.matches_with(|field| self.field(key, object, field));
        fields && (self.labels.is_everything() || self.labels.matches_with(|key| object.label(key)))
    }

    fn field(&self, key: &[u8], object: &Lazy<'_>, field: &str) -> Option<String> {
        let key = String::from_utf8_lossy(key);
        let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
        match field {
            "metadata.name" => Some(name.to_owned()),
            "metadata.namespace" => Some(namespace.to_owned()),
            _ => self.resource.kind.selectable_field(&object.value(&self.resource), field),
        }
    }
}

/// Fields by which every kind can be selected; no conversion changes them.
fn is_meta_field(field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
}

fn check_fields(resource: &Resource, fields: &FieldSelector) -> Result<(), ApiError> {
    let nothing = Value::Object(serde_json::Map::new());
    for term in fields.terms().iter().map(|term| term.field.as_str()) {
        let own_words = resource.kind.not_selectable(term);
        // Kinds with words of their own know that nothing of theirs has a namespace.
        let is_meta =
            is_meta_field(term) && (term == "metadata.name" || resource.names().namespaced || own_words.is_none());
        if is_meta || resource.kind.selectable_field(&nothing, term).is_some() {
            continue;
        }
        return Err(ApiError::bad_request(own_words.unwrap_or_else(|| {
            format!("\"{term}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        })));
    }
    Ok(())
}
