//! What is wrong with a field, in Kubernetes' words.
//!
//! The texts and reasons are those of `k8s.io/apimachinery/pkg/util/validation/field`: each error becomes one
//! cause of a 422 `Status`, and the status message lists them all.

use serde_json::Value;

/// The kind of a complaint; its name in a cause's `reason` is [`FieldErrorKind::reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A required field is empty.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of those supported.
    NotSupported,
    /// The value may not be there under these conditions.
    Forbidden,
    /// The value stands twice in a list that must be unique.
    Duplicate,
    /// The text is longer than the limit.
    TooLong,
    /// The list is longer than the limit.
    TooMany,
    /// What the value names does not exist.
    NotFound,
    /// The value has the wrong type.
    TypeInvalid,
    /// The server is at fault, not the value.
    Internal,
}

impl FieldErrorKind {
    /// The `reason` of the cause.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What kind of complaint it is.
    pub kind: FieldErrorKind,
    /// Path of the field, `spec.containers[0].name`.
    pub field: String,
    /// The offending value as JSON, fields in the order of Kubernetes' types; not shown for the kinds whose texts
    /// leave it out, and when it is empty.
    pub value: String,
    /// The rule, without the value; may be empty.
    pub detail: String,
}

impl FieldError {
    /// An error of any kind.
    pub fn new(
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), value: value.into().to_string(), detail: detail.into() }
    }

    /// The cause's `message`: `Invalid value: "X": must be lower case`.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = self.kind.heading().to_owned();
        if self.kind.shows_value() && !self.value.is_empty() {
            text.push_str(": ");
            text.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// `spec.name: Required value`: as it stands in the status message.
impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}
