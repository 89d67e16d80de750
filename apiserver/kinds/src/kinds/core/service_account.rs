//! ServiceAccount: an identity for pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, items_mut, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::{age, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short: &["sa"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[table::NAME, table::AGE];

/// The kind.
pub(super) struct ServiceAccounts;

impl Kind for ServiceAccounts {
    wiring!(ServiceAccount, NAMES, COLUMNS);

    fn default(&self, _object: &mut Value) {}

    /// Of a secret only the name counts.
    fn prepare_create(&self, object: &mut Value) {
        for secret in items_mut(object, "secrets") {
            let name = text(secret, "name");
            *secret = if name.is_empty() { json!({}) } else { json!({"name": name}) };
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, _old: &Value) {
        self.prepare_create(object);
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        META.create(object, &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        const NOTE: &str = "kubernetes.io/enforce-mountable-secrets";
        let has_note = |object| !at(object, &["metadata", "annotations", NOTE]).is_null();
        if !has_note(object) || old.is_some_and(has_note) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{NOTE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to \
             mounted secrets"
        )]
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), age::of(object, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn an_account_is_created_as_it_is_written() {
        let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: n}, automountServiceAccountToken: false}";
        check_created(account, account);
        check_valid(account);
        assert_eq!(row(account), "a | <unknown>");
    }
}
