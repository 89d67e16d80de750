//! Named formats: `format.dns1123Label().validate(text)` answers with what is wrong, or with nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reeve_api::names;

use super::url::Url;
use crate::error::EvalError;
use crate::meter::Meter;
use crate::opaque::{Inner, Opaque};
use crate::time::Timestamp;
use crate::value::Value;

type Called<'v> = Result<Value<'v>, EvalError>;

/// A format: how it is called in expressions and by itself, what checks it, and how long a pattern that did the same
/// would be (for the price).
#[derive(Debug)]
pub(crate) struct NamedFormat {
    /// `format.KEY()`
    pub(crate) key: &'static str,
    pub(crate) name: &'static str,
    pub(crate) pattern_size: u64,
    complaints: fn(&str) -> Vec<String>,
}

/// A name that ends in `-` is a good prefix: what follows makes it whole.
fn as_prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(start) if text.len() > 1 => format!("{start}a"),
        _ => text.to_owned(),
    }
}

fn only(good: bool, complaint: &str) -> Vec<String> {
    if good { Vec::new() } else { vec![complaint.to_owned()] }
}

/// Groups of hexadecimal digits, each dash between them may be left out.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (index, width) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.split_at_checked(width) {
            Some((group, after)) if group.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

static FORMATS: [NamedFormat; 13] = [
    NamedFormat { key: "dns1123Label", name: "DNS1123Label", pattern_size: 30, complaints: names::dns1123_label },
    NamedFormat {
        key: "dns1123Subdomain",
        name: "DNS1123Subdomain",
        pattern_size: 60,
        complaints: names::dns1123_subdomain,
    },
    NamedFormat { key: "dns1035Label", name: "DNS1035Label", pattern_size: 30, complaints: names::dns1035_label },
    NamedFormat { key: "qualifiedName", name: "QualifiedName", pattern_size: 60, complaints: names::qualified_name },
    NamedFormat {
        key: "dns1123LabelPrefix",
        name: "DNS1123LabelPrefix",
        pattern_size: 30,
        complaints: |text| names::dns1123_label(&as_prefix(text)),
    },
    NamedFormat {
        key: "dns1123SubdomainPrefix",
        name: "DNS1123SubdomainPrefix",
        pattern_size: 60,
        complaints: |text| names::dns1123_subdomain(&as_prefix(text)),
    },
    NamedFormat {
        key: "dns1035LabelPrefix",
        name: "DNS1035LabelPrefix",
        pattern_size: 30,
        complaints: |text| names::dns1035_label(&as_prefix(text)),
    },
    NamedFormat { key: "labelValue", name: "LabelValue", pattern_size: 40, complaints: names::label_value },
    NamedFormat {
        key: "uri",
        name: "URI",
        pattern_size: 1103,
        complaints: |text| Url::parse(text).err().into_iter().collect(),
    },
    NamedFormat {
        key: "uuid",
        name: "uuid",
        pattern_size: 70,
        complaints: |text| only(is_uuid(text), "does not match the UUID format"),
    },
    NamedFormat {
        key: "byte",
        name: "byte",
        pattern_size: 84,
        complaints: |text| only(STANDARD.decode(text).is_ok(), "invalid base64"),
    },
    NamedFormat {
        key: "date",
        name: "date",
        pattern_size: 71,
        complaints: |text| only(Timestamp::parse_date(text).is_some(), "invalid date"),
    },
    NamedFormat {
        key: "datetime",
        name: "datetime",
        pattern_size: 71,
        complaints: |text| only(Timestamp::parse_lenient(text).is_some(), "invalid datetime"),
    },
];

/// How formats are called in expressions.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|format| format.key)
}

fn find(key: &str) -> Option<Value<'static>> {
    let format = FORMATS.iter().find(|format| format.key == key)?;
    Some(Value::Opaque(Opaque(Inner::Format(format))))
}

/// `format.named(key)`
pub(crate) fn named<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(key)] = args else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Optional(find(key).map(Arc::new)))
}

/// `format.KEY()`
pub(crate) fn constant<'v>(key: &str) -> Called<'v> {
    find(key).ok_or_else(EvalError::no_such_overload)
}

/// `format.validate(text)`
pub(crate) fn validate<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::Opaque(Opaque(Inner::Format(format))), Value::String(text)] = args else {
        return Err(EvalError::no_such_overload());
    };
    meter.work(text.len() as u64)?;
    let complaints = (format.complaints)(text);
    if complaints.is_empty() {
        return Ok(Value::Optional(None));
    }
    let told = complaints.iter().map(|complaint| Value::text(complaint)).collect();
    Ok(Value::Optional(Some(Arc::new(Value::list(told)))))
}
