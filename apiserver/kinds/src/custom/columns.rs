//! The table of a custom resource (`pkg/registry/customresource/tableconvertor`).

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use super::jsonpath::JsonPath;
use super::number::GoNumber;
use super::validate::shown;
use crate::age;
use crate::json::{int, text};
use crate::kind::Column;
use crate::table;

/// The columns and the path of each but the first, the name's. A definition without columns shows the age.
pub(crate) fn of(written: &[Value]) -> (Vec<Column>, Vec<JsonPath>) {
    let (mut columns, mut paths) = (vec![table::NAME], Vec::new());
    for column in written {
        // Kubernetes falls back to the columns before the first that it does not understand.
        let Some(path) = JsonPath::parse(text(column, "jsonPath")) else { break };
        let description = match text(column, "description") {
            "" => format!("Custom resource definition column (in JSONPath format): {}", text(column, "jsonPath")),
            own => own.to_owned(),
        };
        columns.push(Column {
            name: Cow::Owned(text(column, "name").to_owned()),
            kind: Cow::Owned(text(column, "type").to_owned()),
            format: Cow::Owned(text(column, "format").to_owned()),
            description: Cow::Owned(description),
            priority: int(column, "priority").and_then(|priority| i32::try_from(priority).ok()).unwrap_or_default(),
        });
        paths.push(path);
    }
    if written.is_empty() {
        columns.push(table::any("Age", "date", "", table::AGE_TEXT, 0));
        paths.extend(JsonPath::parse(".metadata.creationTimestamp"));
    }
    (columns, paths)
}

/// One cell: the first value at the path, as the column's type.
pub(crate) fn cell(path: &JsonPath, kind: &str, object: &Value, now: Timestamp) -> Value {
    let found = path.find(object);
    let Some(value) = found.first() else { return Value::Null };
    match (kind, value) {
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", Value::Null) => "<no value>".into(),
        ("string", other) => shown(other).into(),
        ("integer", Value::Number(number)) => match GoNumber::of(number) {
            GoNumber::Int(int) => int.into(),
            #[expect(clippy::cast_possible_truncation, reason = "as Go converts it")]
            GoNumber::Float(float) => (float as i64).into(),
        },
        ("number", Value::Number(number)) => GoNumber::of(number).float().into(),
        ("boolean", Value::Bool(flag)) => (*flag).into(),
        ("date", Value::String(text)) if text.is_empty() || text == "null" => age::UNKNOWN.into(),
        ("date", Value::String(text)) if text.parse::<Timestamp>().is_ok() => age::since(text, now).into(),
        ("date", Value::String(_)) => "<invalid>".into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_have_the_type_of_their_column() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let object = json!({"s": "x", "n": 3, "f": 1.5, "b": true, "o": {"a": 1}, "z": null,
            "d": "2026-01-01T00:00:00Z", "bad": "then"});
        let shown = |kind: &str, path: &str| cell(&JsonPath::parse(path).unwrap(), kind, &object, now);
        for (kind, path, expected) in [
            ("string", ".s", json!("x")),
            ("string", ".n", json!("3")),
            ("string", ".o", json!("{\"a\":1}")),
            ("string", ".none", json!(null)),
            ("string", ".z", json!("<no value>")),
            ("integer", ".f", json!(1)),
            ("integer", ".s", json!(null)),
            ("number", ".n", json!(3.0)),
            ("boolean", ".b", json!(true)),
            ("date", ".d", json!("60m")),
            ("date", ".bad", json!("<invalid>")),
        ] {
            assert_eq!(shown(kind, path), expected, "{kind} {path}");
        }
    }
}
