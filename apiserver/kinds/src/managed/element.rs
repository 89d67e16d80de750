//! One step of a path to a field: a field's name, the keys of a list's item, an item of a set, a place in a list.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

/// A step from an object or list to what is in it.
#[derive(Debug, Clone)]
pub enum PathElement {
    /// A field of an object, or a key of a map.
    Field(String),
    /// The item of a list whose keys have these values; sorted by name.
    Key(Vec<(String, Value)>),
    /// The item of a set that has this value.
    Value(Value),
    /// The item at this place.
    Index(i64),
}

/// A text that is no path element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// Shorter than a kind and a colon.
    #[error("key must be 2 characters long:")]
    TooShort,
    /// No colon behind the kind.
    #[error("missing colon: {0}")]
    NoColon(String),
    /// What stands behind the colon is not of that kind.
    #[error("{0}")]
    Content(String),
}

impl PathElement {
    /// Reads `f:NAME`, `k:{"KEY":…}`, `v:…` or `i:N`. `None`: of a kind that is not known, to be passed over.
    pub fn parse(text: &str) -> Result<Option<Self>, ElementError> {
        let bytes = text.as_bytes();
        if bytes.len() < 2 {
            return Err(ElementError::TooShort);
        }
        if bytes[1] != b':' {
            return Err(ElementError::NoColon(text.to_owned()));
        }
        let content = &text[2..];
        let bad = |error: &dyn fmt::Display| ElementError::Content(error.to_string());
        match bytes[0] {
            b'f' => Ok(Some(Self::Field(content.to_owned()))),
            b'v' => serde_json::from_str(content).map(|value| Some(Self::Value(value))).map_err(|error| bad(&error)),
            b'k' => {
                let keys: serde_json::Map<String, Value> =
                    serde_json::from_str(content).map_err(|error| bad(&error))?;
                Ok(Some(Self::key(keys.into_iter().collect())))
            }
            b'i' => content.parse().map(|index| Some(Self::Index(index))).map_err(|error| bad(&error)),
            _ => Ok(None),
        }
    }

    /// An item by its keys, in any order.
    #[must_use]
    pub fn key(mut keys: Vec<(String, Value)>) -> Self {
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Key(keys)
    }

    /// As it stands in `fieldsV1`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Field(name) => {
                let mut out = String::with_capacity(name.len() + 2);
                out.push_str("f:");
                out.push_str(name);
                out
            }
            Self::Key(keys) => {
                let mut out = "k:{".to_owned();
                for (at, (name, value)) in keys.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(&Value::from(name.as_str()).to_string());
                    out.push(':');
                    write_value(value, &mut out);
                }
                out.push('}');
                out
            }
            Self::Value(value) => {
                let mut out = "v:".to_owned();
                write_value(value, &mut out);
                out
            }
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// As Go writes JSON: whole numbers without a fraction, and what HTML would read escaped.
fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => out.push_str(&number_text(number)),
        other => {
            for letter in other.to_string().chars() {
                match letter {
                    '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", letter as u32)),
                    letter => out.push(letter),
                }
            }
        }
    }
}

pub(super) fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

/// As it stands in messages: `.spec`, `[name="a"]`, `[="a"]`, `[3]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (at, (name, value)) in keys.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", shown(value))?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", shown(value)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Number(number) => number_text(number),
        other => other.to_string(),
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement {}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order in which `fieldsV1` is written: fields, keys, values, indices.
impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => compare_keys(a, b),
            (Self::Value(a), Self::Value(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PathElement {
    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

fn compare_keys(a: &[(String, Value)], b: &[(String, Value)]) -> Ordering {
    for ((a_name, a_value), (b_name, b_value)) in a.iter().zip(b) {
        let order = a_name.cmp(b_name).then_with(|| compare_values(a_value, b_value));
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// A total order of values: numbers, texts, truth values, lists, objects, null.
fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| compare_values(a, b));
            first_difference(pairs).then(a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| a.0.cmp(b.0).then_with(|| compare_values(a.1, b.1)));
            first_difference(pairs).then(a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
    }
}

/// Whether two values are the same: 1 and 1.0 are.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_written_as_they_are_read() {
        for text in ["f:a.b/c", r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"v:"x""#, "v:1", "i:3"] {
            assert_eq!(PathElement::parse(text).unwrap().unwrap().text(), text);
        }
        assert_eq!(PathElement::parse("x:1").unwrap(), None);
        assert_eq!(PathElement::parse("").unwrap_err().to_string(), "key must be 2 characters long:");
        assert_eq!(PathElement::parse("field").unwrap_err().to_string(), "missing colon: field");
        assert_eq!(PathElement::Value(json!("a<b")).text(), r#"v:"a\u003cb""#);
        assert_eq!(PathElement::Value(json!(80.0)).text(), "v:80");
    }

    #[test]
    fn elements_are_ordered_by_kind_then_by_value_and_shown_in_messages() {
        let texts =
            ["f:a", "f:b", r#"k:{"name":"a"}"#, r#"k:{"port":80}"#, r#"k:{"port":443}"#, "v:1", r#"v:"a""#, "i:0"];
        let elements: Vec<_> = texts.iter().map(|text| PathElement::parse(text).unwrap().unwrap()).collect();
        assert!(elements.windows(2).all(|pair| pair[0] < pair[1]));
        let shown: Vec<_> = elements.iter().map(ToString::to_string).collect();
        let wanted = [".a", ".b", r#"[name="a"]"#, "[port=80]", "[port=443]", "[=1]", r#"[="a"]"#, "[0]"];
        assert_eq!(shown, wanted);
    }
}
