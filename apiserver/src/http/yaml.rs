//! Answers in YAML, letter by letter as Kubernetes writes them: blocks for objects and lists, keys in natural order,
//! texts as [`scalar`] says.

mod scalar;

use std::cmp::Ordering;

use serde_json::{Map, Value};

use scalar::Place;

/// The text that is written, and how far its last line reaches.
#[derive(Default)]
struct Out {
    text: String,
    column: usize,
}

impl Out {
    fn push(&mut self, letter: char) {
        self.text.push(letter);
        self.column = if letter == '\n' { 0 } else { self.column + 1 };
    }

    fn put(&mut self, text: &str) {
        text.chars().for_each(|letter| self.push(letter));
    }

    /// Begins a line behind so many spaces.
    fn line(&mut self, indent: usize) {
        self.push('\n');
        (0..indent).for_each(|_| self.push(' '));
    }
}

/// The value as one YAML document. Values nest no deeper than what was decoded (see `decode`).
pub(super) fn write(value: &Value) -> String {
    let mut out = Out::default();
    match value {
        Value::Object(fields) if !fields.is_empty() => object(fields, 0, &mut out),
        Value::Array(items) if !items.is_empty() => array(items, 0, &mut out),
        other => scalar(other, 0, &mut out),
    }
    out.push('\n');
    out.text
}

/// Writes the fields, the first where the caller has written to; without a line break at the end.
fn object(fields: &Map<String, Value>, indent: usize, out: &mut Out) {
    let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| natural(a, b));
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.line(indent);
        }
        scalar::write(name, Place::Key, out);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.line(indent + 2);
                object(inner, indent + 2, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.line(indent);
                array(items, indent, out);
            }
            other => {
                out.push(' ');
                scalar(other, indent, out);
            }
        }
    }
}

fn array(items: &[Value], indent: usize, out: &mut Out) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.line(indent);
        }
        out.put("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => object(fields, indent + 2, out),
            Value::Array(items) if !items.is_empty() => array(items, indent + 2, out),
            other => scalar(other, indent, out),
        }
    }
}

fn scalar(value: &Value, indent: usize, out: &mut Out) {
    match value {
        Value::String(value) => scalar::write(value, Place::Value(indent + 2), out),
        other => out.put(&other.to_string()),
    }
}

/// Numbers in names by their value, letters behind everything else, unless behind a number.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) else { return a.len().cmp(&b.len()) };
    let (left, right) = (a[at], b[at]);
    match (left.is_alphabetic(), right.is_alphabetic()) {
        (true, true) => return left.cmp(&right),
        (false, false) => {}
        (left_is_letter, _) => {
            let behind_number = at > 0 && a[at - 1].is_numeric();
            return if left_is_letter == behind_number { Ordering::Less } else { Ordering::Greater };
        }
    }
    // Zeros inside a number count, those before it do not.
    let mut before = a[..at].iter().rev().take_while(|letter| letter.is_numeric());
    let inside = (left == '0' || right == '0') && before.any(|digit| *digit != '0');
    let number = |text: &[char]| {
        let digits: String = text[at..].iter().take_while(|letter| letter.is_ascii_digit()).collect();
        let value = digits.chars().fold(u64::from(inside), |value, digit| {
            value.saturating_mul(10).saturating_add(u64::from(digit.to_digit(10).unwrap_or_default()))
        });
        (value, digits.len())
    };
    number(&a).cmp(&number(&b)).then(left.cmp(&right))
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

    #[track_caller]
    fn check(text: &str, written: &str) {
        assert_eq!(write(&json!({ "k": { "t": text } })), format!("k:\n  t: {written}\n"));
    }

    #[test]
    fn texts_are_written_as_kubernetes_writes_them() {
        for (text, written) in [
            ("64e", "64e"),
            ("e78efdde-10ef-4bd9-91de-384442bc6d58", "e78efdde-10ef-4bd9-91de-384442bc6d58"),
            ("&x", "'&x'"),
            ("*", "'*'"),
            ("-1:20", "\"-1:20\""),
            ("x\n y \nz", "\"x\\n y \\nz\""),
            ("a: b", "'a: b'"),
            ("a\r\nb", "\"a\\r\\nb\""),
            ("a\u{1}b", "\"a\\x01b\""),
            ("2020-01-01", "\"2020-01-01\""),
            ("2020-01-01T00:00:00Z", "\"2020-01-01T00:00:00Z\""),
            ("-", "'-'"),
            ("- x", "'- x'"),
            ("...", "'...'"),
            ("\"x", "'\"x'"),
            ("", "\"\""),
            ("😀", "\"\\U0001F600\""),
            ("=", "="),
            ("1e3", "\"1e3\""),
            ("a #b", "'a #b'"),
            ("0x1f", "\"0x1f\""),
            (".inf", "\".inf\""),
            ("<<", "<<"),
            ("x\ny\n", "|\n    x\n    y"),
            (" x\ny", "|2-\n     x\n    y"),
            ("x\n\n", "|+\n    x\n"),
            ("\n", "|2+\n"),
            ("12", "\"12\""),
            ("0o7", "\"0o7\""),
            ("+1", "\"+1\""),
            ("it's", "it's"),
            ("x ", "'x '"),
            ("12:30", "\"12:30\""),
            ("a\tb", "\"a\\tb\""),
            ("~", "\"~\""),
            ("é", "é"),
            ("1_000", "\"1_000\""),
            ("no", "\"no\""),
            ("X509SHA256=cf6f", "X509SHA256=cf6f"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("1.2.3.4", "1.2.3.4"),
        ] {
            check(text, written);
        }
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let words = "word ".repeat(40) + "end";
        let line = ["word"; 15].join(" ");
        let more = ["word"; 16].join(" ");
        let last = ["word"; 9].join(" ");
        assert_eq!(
            write(&json!({ "data": { "long": words } })),
            format!("data:\n  long: {line}\n    {more}\n    {last} end\n")
        );
        let mixed = "y ".repeat(60) + "\nz";
        let (first, rest) = (["y"; 36].join(" "), "y ".repeat(24));
        assert_eq!(
            write(&json!({ "data": { "longm": mixed } })),
            format!("data:\n  longm: \"{first}\n    {rest}\\nz\"\n")
        );
    }

    #[test]
    fn keys_stand_in_natural_order_and_without_needless_quotes() {
        let value = json!({"a10": 1, "a2": 1, "A1": 1, "no": 1, ".": {}, "k:{\"name\":\"c\"}": {}, "v:\"a\"": {}});
        let text = ".: {}\nA1: 1\na2: 1\na10: 1\nk:{\"name\":\"c\"}: {}\n\"no\": 1\nv:\"a\": {}\n";
        assert_eq!(write(&value), text);
    }

    #[test]
    fn whatever_is_written_is_read_back_the_same() {
        let texts = ["no", "1e3", "0x1f", "~", "", " a", "a: b", "- x", "a#b", "#", "é\n\t\"\\", "2026-01-01", "-.inf"];
        let value = json!({"list": texts, "no": {"1": "x"}, "nested": [[["a"], {"k": [{"l": "m\nn"}]}]], "n": -1.5});
        let back: Value = serde_yaml::from_str(&write(&value)).unwrap();
        assert_eq!(back, value);
    }
}
