//! Kinds of which nothing is stored: reviews, and the bodies of subresources that are created and never seen again.
//!
//! They are decoded, defaulted and judged like all kinds; what is answered is the API server's. They are none of
//! [`builtin`](super::builtin), for they have no collection to list or watch.

mod access;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use schemars::JsonSchema;
use serde_json::Value;

use crate::field::FieldError;
use crate::kind::{Column, Kind, Names, Part};
use crate::openapi::{self, Schemas};
use crate::shape::{self, Shape};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// What a new object breaks.
type Rules = fn(&Value) -> Vec<FieldError>;

/// One such kind.
struct Transient {
    names: Names,
    shape: &'static Shape,
    schemas: fn() -> Schemas,
    rules: Rules,
}

/// The six reviews, in the order of discovery.
#[must_use]
pub fn reviews() -> &'static [Arc<dyn Kind>] {
    static ALL: OnceLock<Vec<Arc<dyn Kind>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let nothing: Rules = |_| Vec::new();
        vec![
            made::<SelfSubjectReview>(AUTHENTICATION, ("SelfSubjectReview", "selfsubjectreviews"), nothing),
            made::<TokenReview>(AUTHENTICATION, ("TokenReview", "tokenreviews"), nothing),
            made::<LocalSubjectAccessReview>(
                AUTHORIZATION,
                ("LocalSubjectAccessReview", "localsubjectaccessreviews"),
                access::local,
            ),
            made::<SelfSubjectAccessReview>(
                AUTHORIZATION,
                ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
                access::of_oneself,
            ),
            made::<SelfSubjectRulesReview>(
                AUTHORIZATION,
                ("SelfSubjectRulesReview", "selfsubjectrulesreviews"),
                nothing,
            ),
            made::<SubjectAccessReview>(
                AUTHORIZATION,
                ("SubjectAccessReview", "subjectaccessreviews"),
                access::of_anyone,
            ),
        ]
    })
}

/// The bodies of `pods/NAME/binding`, `pods/NAME/eviction` and `serviceaccounts/NAME/token`.
#[must_use]
pub fn bodies() -> &'static [Arc<dyn Kind>] {
    static ALL: OnceLock<Vec<Arc<dyn Kind>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let nothing: Rules = |_| Vec::new();
        vec![
            made::<Binding>("", ("Binding", "bindings"), nothing),
            made::<Eviction>("policy", ("Eviction", "evictions"), nothing),
            made::<TokenRequest>(AUTHENTICATION, ("TokenRequest", "tokenrequests"), nothing),
        ]
    })
}

/// The body of that kind; one of [`bodies`].
#[must_use]
pub fn body(kind: &str) -> Option<&'static Arc<dyn Kind>> {
    bodies().iter().find(|body| body.names().kind == kind)
}

fn made<T: JsonSchema>(
    group: &'static str,
    (kind, plural): (&'static str, &'static str),
    rules: Rules,
) -> Arc<dyn Kind> {
    let singular = crate::intern(&kind.to_ascii_lowercase());
    let namespaced = matches!(kind, "LocalSubjectAccessReview" | "Binding" | "Eviction" | "TokenRequest");
    let (version, short, categories): (_, &[&str], &[&str]) = ("v1", &[], &[]);
    let names = Names { group, version, kind, plural, singular, short, categories, namespaced };
    Arc::new(Transient { names, shape: shape::of::<T>(), schemas: openapi::of::<T>, rules })
}

impl Kind for Transient {
    fn names(&self) -> &Names {
        &self.names
    }

    fn shape(&self) -> &'static Shape {
        self.shape
    }

    fn schemas(&self) -> Schemas {
        (self.schemas)()
    }

    fn default(&self, _object: &mut Value) {}

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        (self.rules)(object)
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, _object: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn columns(&self) -> &[Column] {
        &[]
    }

    fn row(&self, _object: &Value, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
