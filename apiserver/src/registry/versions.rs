//! The other versions of a kind, as the book of field managers asks for them.
//!
//! Managers may have written in any version; what a write changes is compared in each of theirs. Versions between which
//! only a webhook goes are not looked at: their entries end with the next write in another version.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use reeve_kinds::Kind;
use reeve_kinds::managed::{MergeSchema, Versions};
use serde_json::Value;

use super::resource::{Convert, prefix_of};

/// Built-in kinds that share their storage with others, by what the keys of their objects begin with.
static SHARED: LazyLock<HashMap<Bytes, Vec<Arc<dyn Kind>>>> = LazyLock::new(|| {
    let mut all: HashMap<Bytes, Vec<Arc<dyn Kind>>> = HashMap::new();
    for kind in reeve_kinds::builtin() {
        all.entry(prefix_of(&*kind)).or_default().push(kind);
    }
    all.retain(|_, kinds| kinds.len() > 1);
    all
});

/// The versions of one kind but the one of the request.
pub(super) struct OtherVersions {
    /// All of them with how they are called in objects; the request's own included.
    kinds: Vec<(String, Arc<dyn Kind>)>,
    by: Option<Arc<dyn Convert>>,
}

impl OtherVersions {
    /// Of a built-in kind.
    pub(super) fn builtin(kind: &dyn Kind) -> Self {
        let kinds = SHARED.get(&prefix_of(kind)).map(Vec::as_slice).unwrap_or_default();
        Self { kinds: named(kinds), by: None }
    }

    /// Of a custom resource.
    pub(super) fn custom(by: &Arc<dyn Convert>) -> Self {
        Self { kinds: named(&by.kinds_at_once()), by: Some(Arc::clone(by)) }
    }

    fn kind(&self, api_version: &str) -> Option<&dyn Kind> {
        self.kinds.iter().find(|(own, _)| own == api_version).map(|(_, kind)| &**kind)
    }
}

fn named(kinds: &[Arc<dyn Kind>]) -> Vec<(String, Arc<dyn Kind>)> {
    kinds.iter().map(|kind| (kind.names().api_version(), Arc::clone(kind))).collect()
}

impl Versions for OtherVersions {
    fn schema(&self, api_version: &str) -> Option<&dyn MergeSchema> {
        self.kind(api_version).map(|kind| kind.merge_schema())
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let wanted = self.kind(api_version)?;
        let own = self.kind(object["apiVersion"].as_str()?)?;
        let mut object = object.clone();
        if let Some(by) = &self.by {
            return by.convert_at_once(object, wanted.names().version);
        }
        if own.stored_as().is_some() {
            own.to_stored(&mut object);
        }
        if wanted.stored_as().is_some() {
            wanted.from_stored(&mut object);
        }
        Some(object)
    }
}
