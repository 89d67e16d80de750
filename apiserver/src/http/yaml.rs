//! Answers in YAML: blocks for objects and lists, and every text quoted that any YAML reader could take for
//! something else (`no`, `1e3`, `~`): clients' parsers follow YAML 1.1 or 1.2.

use serde_json::{Map, Value};

/// Texts that some version of YAML reads as a truth value, nothing or a number.
const RESERVED: &[&str] = &["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"];

/// The value as one YAML document. Values nest no deeper than what was decoded (see `decode`).
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => object(fields, 0, &mut out),
        Value::Array(items) if !items.is_empty() => array(items, 0, &mut out),
        scalar => {
            self::scalar(scalar, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn object(fields: &Map<String, Value>, depth: usize, out: &mut String) {
    for (index, (name, value)) in fields.iter().enumerate() {
        // The first field stands where the caller has written to: behind `- ` or at the line's start.
        if index > 0 {
            indent(depth, out);
        }
        text(name, out);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(depth + 1, out);
                object(inner, depth + 1, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(depth, out);
                array(items, depth, out);
            }
            other => {
                out.push(' ');
                scalar(other, out);
                out.push('\n');
            }
        }
    }
}

fn array(items: &[Value], depth: usize, out: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            indent(depth, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => object(fields, depth + 1, out),
            Value::Array(items) if !items.is_empty() => array(items, depth + 1, out),
            other => {
                scalar(other, out);
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(value) => text(value, out),
        other => out.push_str(&other.to_string()),
    }
}

/// Plain when it is a simple word (colons inside it are), else in double quotes with JSON's escapes, which YAML shares.
fn text(value: &str, out: &mut String) {
    let begins_well = value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_' || first == '/');
    let simple =
        value.chars().all(|letter| letter.is_ascii_alphanumeric() || "_./-:".contains(letter)) && !value.ends_with(':');
    if begins_well && simple && !RESERVED.iter().any(|word| value.eq_ignore_ascii_case(word)) {
        out.push_str(value);
    } else {
        out.push_str(&Value::from(value).to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_and_lists_are_blocks() {
        let value = json!({"a": {"b": [1, {"c": "x", "d": []}, [true]]}, "e": {}, "f": null});
        let text = "a:\n  b:\n  - 1\n  - c: x\n    d: []\n  - - true\ne: {}\nf: null\n";
        assert_eq!(write(&value), text);
    }

    #[test]
    fn whatever_is_written_is_read_back_the_same() {
        let texts = [
            "no",
            "Yes",
            "1",
            "1e3",
            "0x1f",
            "~",
            "",
            " a",
            "a: b",
            "- x",
            "a#b",
            "#",
            "é\n\t\"\\",
            "2026-01-01",
            "1:30",
            "=",
            "-.inf",
        ];
        let value = json!({"list": texts, "no": {"1": "x"}, "nested": [[["a"], {"k": [{"l": "m\nn"}]}]], "n": -1.5});
        let back: Value = serde_yaml::from_str(&write(&value)).unwrap();
        assert_eq!(back, value);
        assert!(write(&json!({"a": "no"})).contains("\"no\""));
    }
}
