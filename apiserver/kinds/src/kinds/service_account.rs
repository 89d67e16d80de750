//! ServiceAccount: an identity for pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use reeve_api::names;
use serde_json::Value;

use super::shape_of;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::list;
use crate::kind::{Column, Kind, Names, Part};
use crate::meta::MetaRules;
use crate::openapi::{self, Schemas};
use crate::shape::Shape;
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

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Secrets",
        "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use. Pods are only limited to this list if this service account has a \"kubernetes.io/enforce-mountable-secrets\" annotation set to \"true\". The \"kubernetes.io/enforce-mountable-secrets\" annotation is deprecated since v1.32. Prefer separate namespaces to isolate access to mounted secrets. This field should not be used to find auto-generated service account token secrets for use outside of pods. Instead, tokens can be requested directly using the TokenRequest API, or service account token secrets can be manually created. More info: https://kubernetes.io/docs/concepts/configuration/secret",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct ServiceAccounts;

impl Kind for ServiceAccounts {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn shape(&self) -> &'static Shape {
        shape_of!(ServiceAccount)
    }

    fn schemas(&self) -> Schemas {
        openapi::of::<ServiceAccount>()
    }

    fn default(&self, _object: &mut Value) {}

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        errors.into_vec()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), list(object, "secrets").len().into(), age::of(object, now).into()]
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
        assert_eq!(row(account), "a | 0 | <unknown>");
    }
}
