//! Collects what is wrong with an object while it is validated.

use serde_json::Value;

use crate::field::{FieldError, FieldErrorKind};
use crate::path::Path;

/// Most complaints about one object; what comes after is not looked at by anybody.
const MAX_ERRORS: usize = 500;

/// The complaints so far, in the order they were found.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    /// All complaints.
    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// A complaint that is complete.
    pub(crate) fn push(&mut self, error: FieldError) {
        if self.0.len() < MAX_ERRORS {
            self.0.push(error);
        }
    }

    /// A complaint of any kind.
    pub(crate) fn add(&mut self, kind: FieldErrorKind, path: &Path<'_>, value: Value, detail: impl Into<String>) {
        if self.0.len() < MAX_ERRORS {
            self.0.push(FieldError::new(kind, path.to_string(), value, detail));
        }
    }

    /// A complaint of any kind about a value whose JSON is given as text, because the order of its fields counts.
    pub(crate) fn add_text(
        &mut self,
        kind: FieldErrorKind,
        path: &Path<'_>,
        value: impl Into<String>,
        detail: impl Into<String>,
    ) {
        if self.0.len() < MAX_ERRORS {
            let error = FieldError { kind, field: path.to_string(), value: value.into(), detail: detail.into() };
            self.0.push(error);
        }
    }

    /// The object breaks a rule; its JSON as text, see [`Errors::add_text`].
    pub(crate) fn invalid_object(&mut self, path: &Path<'_>, value: String, detail: impl Into<String>) {
        self.add_text(FieldErrorKind::Invalid, path, value, detail);
    }

    /// Something must be there.
    pub(crate) fn required(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(FieldErrorKind::Required, path, Value::Null, detail);
    }

    /// The value breaks a rule.
    pub(crate) fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(FieldErrorKind::Invalid, path, value.into(), detail);
    }

    /// One complaint for each rule the text breaks.
    pub(crate) fn invalid_each(&mut self, path: &Path<'_>, value: &str, details: Vec<String>) {
        for detail in details {
            self.invalid(path, value, detail);
        }
    }

    /// The text is none of those that are supported.
    pub(crate) fn unsupported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        self.unsupported_value(path, value, supported);
    }

    /// As [`Errors::unsupported`], of a value that is no text.
    pub(crate) fn unsupported_value(&mut self, path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        let quoted: Vec<_> = supported.iter().map(|one| format!("\"{one}\"")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.add(FieldErrorKind::NotSupported, path, value.into(), detail);
    }

    /// Something is wrong, and no value is shown.
    pub(crate) fn invalid_without_value(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add_text(FieldErrorKind::Invalid, path, "", detail);
    }

    /// The field may not be there.
    pub(crate) fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(FieldErrorKind::Forbidden, path, Value::Null, detail);
    }

    /// The value stands twice.
    pub(crate) fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(FieldErrorKind::Duplicate, path, value.into(), "");
    }

    /// What is named does not exist.
    pub(crate) fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.add(FieldErrorKind::NotFound, path, value.into(), "");
    }

    /// The value has more bytes than it may have.
    pub(crate) fn too_long(&mut self, path: &Path<'_>, limit: usize) {
        self.add(FieldErrorKind::TooLong, path, Value::Null, format!("may not be more than {limit} bytes"));
    }

    /// The list has more items than it may have.
    pub(crate) fn too_many(&mut self, path: &Path<'_>, count: usize, limit: usize) {
        self.add(FieldErrorKind::TooMany, path, count.into(), format!("must have at most {limit} items"));
    }

    /// A text that must be there and must be one of a few.
    pub(crate) fn one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else if !supported.contains(&value) {
            self.unsupported(path, value, supported);
        }
    }

    /// A number that may not be below zero.
    pub(crate) fn not_negative(&mut self, path: &Path<'_>, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value < 0) {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// A field that may not change.
    pub(crate) fn immutable(&mut self, path: &Path<'_>, new: &Value, old: &Value) {
        if new != old {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }
}
