//! YAML as kubectl prints it: keys sorted, lists not indented, its choice of quotes, folded at 80 columns.
//!
//! The rules are those of the YAML 1.1 emitter that kubectl's printers use: a text is plain where it can only be
//! read as that text, literal (`|`) where it has line breaks, else quoted.

use serde_json::Value;

/// Lines are folded at the first space behind this column.
const WIDTH: usize = 80;

/// The document, with a final newline.
pub(crate) fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn mapping(out: &mut String, map: &serde_json::Map<String, Value>, depth: usize) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by(|a, b| natural_order(a, b));
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 {
            indent(out, depth);
        }
        entry(out, key, &map[key], depth);
    }
}

fn entry(out: &mut String, key: &str, value: &Value, depth: usize) {
    out.push_str(&key_text(key));
    out.push(':');
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            indent(out, depth + 2);
            mapping(out, map, depth + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            indent(out, depth);
            sequence(out, items, depth);
        }
        other => {
            out.push(' ');
            scalar(out, other, depth);
            out.push('\n');
        }
    }
}

/// Called with the cursor at the first dash's column.
fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, depth + 2),
            Value::Array(items) if !items.is_empty() => sequence(out, items, depth + 2),
            other => {
                scalar(out, other, depth);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(text) => string(out, text, depth),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        other => out.push_str(&other.to_string()),
    }
}

fn key_text(key: &str) -> String {
    match style(key) {
        Style::Plain => key.to_owned(),
        Style::Single => single_quoted(key),
        Style::Double | Style::Literal => double_quoted(key),
    }
}

fn string(out: &mut String, text: &str, depth: usize) {
    match style(text) {
        Style::Plain => fold(out, text, depth, 0),
        Style::Single => {
            let quoted = single_quoted(text);
            fold(out, &quoted, depth, 1);
        }
        Style::Double => fold_double(out, text, depth),
        Style::Literal => literal(out, text, depth),
    }
}

#[derive(Debug, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn style(text: &str) -> Style {
    let special = text.chars().any(|c| !is_printable(c) && c != '\n');
    let breaks = text.contains('\n');
    if special {
        return Style::Double;
    }
    if breaks {
        let trailing_space = text.contains(" \n") || text.ends_with(' ');
        return if trailing_space { Style::Double } else { Style::Literal };
    }
    if resolves_to_other(text) {
        return Style::Double;
    }
    if plain_allowed(text) { Style::Plain } else { Style::Single }
}

fn is_printable(c: char) -> bool {
    matches!(c, '\u{20}'..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && c != '\u{feff}'
        && c != '\u{2028}'
        && c != '\u{2029}'
        && c != '\u{85}'
}

/// Whether a reader would take the plain text for something other than a text (YAML 1.1 resolution).
fn resolves_to_other(text: &str) -> bool {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"];
    let cased = [text.to_lowercase(), text.to_uppercase(), capitalized(text)].iter().any(|own| own == text);
    if text.is_empty() || (cased && WORDS.contains(&text.to_lowercase().as_str())) {
        return true;
    }
    looks_like_number(text) || looks_like_time(text)
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect())
}

fn looks_like_number(text: &str) -> bool {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    if matches!(bare, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let digits = bare.replace('_', "");
    let radix = |prefix: &str, radix: u32| {
        digits.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    if radix("0x", 16) || radix("0b", 2) || radix("0o", 8) {
        return true;
    }
    let base60 = digits.split(':').count() > 1
        && digits.split(':').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.'));
    base60 || is_float(&digits)
}

fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let whole = mantissa.chars().all(|c| c.is_ascii_digit() || c == '.')
        && mantissa.matches('.').count() <= 1
        && mantissa.chars().any(|c| c.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|own| {
        let bare = own.strip_prefix(['+', '-']).unwrap_or(own);
        !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit())
    });
    whole && exponent_fits
}

fn looks_like_time(text: &str) -> bool {
    let date: Vec<&str> = text.split(['T', 't', ' ']).next().unwrap_or_default().split('-').collect();
    match date.as_slice() {
        [year, month, day] => {
            let digits = |part: &str, len: std::ops::RangeInclusive<usize>| {
                len.contains(&part.len()) && part.chars().all(|c| c.is_ascii_digit())
            };
            digits(year, 4..=4) && digits(month, 1..=2) && digits(day, 1..=2)
        }
        _ => false,
    }
}

/// Whether the text may stand without quotes, as far as YAML's indicators go.
fn plain_allowed(text: &str) -> bool {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return false };
    let second = chars.next();
    let space_behind = second.is_none_or(|c| c == ' ');
    if "#,[]{}&*!|>'\"%@`".contains(first) {
        return false;
    }
    if "-?:".contains(first) && space_behind {
        return false;
    }
    if first == ' ' || text.ends_with(' ') || text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    !text.contains(": ") && !text.ends_with(':') && !text.contains(" #")
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    text.chars().for_each(|c| escape(&mut quoted, c));
    quoted.push('"');
    quoted
}

fn escape(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\0' => out.push_str("\\0"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\t' => out.push_str("\\t"),
        '\n' => out.push_str("\\n"),
        '\x0b' => out.push_str("\\v"),
        '\x0c' => out.push_str("\\f"),
        '\r' => out.push_str("\\r"),
        '\x1b' => out.push_str("\\e"),
        '\u{85}' => out.push_str("\\N"),
        '\u{2028}' => out.push_str("\\L"),
        '\u{2029}' => out.push_str("\\P"),
        c if is_printable(c) => out.push(c),
        c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
        c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
    }
}

fn column(out: &str) -> usize {
    out.rsplit('\n').next().unwrap_or_default().chars().count()
}

/// Writes a plain or single-quoted text, broken at single spaces once the line is long. `margin` is the quotes'.
fn fold(out: &mut String, text: &str, depth: usize, margin: usize) {
    let chars: Vec<char> = text.chars().collect();
    let mut at = column(out);
    let mut spaces = false;
    for (index, c) in chars.iter().enumerate() {
        let inner = index > margin && index + 1 + margin < chars.len();
        let next_is_space = chars.get(index + 1) == Some(&' ');
        if *c == ' ' && !spaces && inner && at > WIDTH && !next_is_space {
            out.push('\n');
            indent(out, depth + 2);
            at = depth + 2;
        } else {
            out.push(*c);
            at += 1;
        }
        spaces = *c == ' ';
    }
}

fn fold_double(out: &mut String, text: &str, depth: usize) {
    let chars: Vec<char> = text.chars().collect();
    let mut at = column(out) + 1;
    let mut spaces = false;
    out.push('"');
    for (index, c) in chars.iter().enumerate() {
        if *c == ' ' && !spaces && index > 0 && index + 1 < chars.len() && at > WIDTH {
            out.push('\n');
            indent(out, depth + 2);
            at = depth + 2;
            if chars.get(index + 1) == Some(&' ') {
                out.push('\\');
                at += 1;
            }
            spaces = true;
            continue;
        }
        let before = out.len();
        escape(out, *c);
        at += out[before..].chars().count();
        spaces = *c == ' ';
    }
    out.push('"');
}

/// `|`, with an indentation hint when the text begins with a space, and `-` or `+` for its final line breaks.
fn literal(out: &mut String, text: &str, depth: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text.ends_with("\n\n") || text == "\n" {
        out.push('+');
    }
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth + 2);
            out.push_str(line);
        }
    }
}

/// Keys are sorted with numbers in them by value: `a2` before `a10`.
fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut digits = false;
    for (index, (left, right)) in a.iter().zip(&b).enumerate() {
        if left == right {
            digits = left.is_ascii_digit();
            continue;
        }
        let (left_letter, right_letter) = (left.is_alphabetic(), right.is_alphabetic());
        if left_letter && right_letter {
            return left.cmp(right);
        }
        if left_letter || right_letter {
            return if digits { left_letter.cmp(&right_letter) } else { right_letter.cmp(&left_letter) };
        }
        let number = |chars: &[char]| -> (u64, usize) {
            let run: String = chars[index..].iter().take_while(|c| c.is_ascii_digit()).collect();
            (run.parse().unwrap_or(0), run.len())
        };
        let zeros = (*left == '0' || *right == '0')
            && a[..index].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
        let ((left_number, left_len), (right_number, right_len)) = (number(&a), number(&b));
        if zeros && left_len != right_len {
            return left_len.cmp(&right_len);
        }
        return match left_number.cmp(&right_number) {
            Ordering::Equal if left_len != right_len => left_len.cmp(&right_len),
            Ordering::Equal => left.cmp(right),
            other => other,
        };
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(to_string(&json!({"k": text})), format!("k: {expected}\n"));
    }

    #[test]
    fn texts_are_plain_where_they_can_only_be_texts() {
        for plain in ["web", "a b", "a:b", "http://x", "1.2.3", "v1", "a#b", "-x", "0x", "1Gi", "100m", "it's"] {
            check(plain, plain);
        }
    }

    #[test]
    fn texts_that_would_be_read_as_something_else_are_in_double_quotes() {
        for other in [
            "",
            "yes",
            "No",
            "TRUE",
            "null",
            "~",
            "1",
            "-1.5",
            "1e3",
            "0x1f",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "12:30",
            "y",
        ] {
            check(other, &format!("\"{other}\""));
        }
    }

    #[test]
    fn texts_with_indicators_are_in_single_quotes() {
        for quoted in ["*", "a: b", "- a", "#x", "a #b", "{a}", "[a]", "@x", "%x", "a:", " a", "a "] {
            check(quoted, &format!("'{quoted}'"));
        }
        check("'a'", "'''a'''");
    }

    #[test]
    fn texts_with_line_breaks_are_literal() {
        check("a\nb\n", "|\n  a\n  b");
        check("a\nb", "|-\n  a\n  b");
        check("a\n\n", "|+\n  a\n");
        check("a\tb", "\"a\\tb\"");
    }

    #[test]
    fn maps_are_sorted_and_lists_are_not_indented() {
        let value = json!({"b": [{"y": 1, "x": [1, [2]]}, "s"], "a": {"e": {}, "l": [], "n": null}});
        let expected = "a:\n  e: {}\n  l: []\n  \"n\": null\nb:\n- x:\n  - 1\n  - - 2\n  \"y\": 1\n- s\n";
        assert_eq!(to_string(&value), expected);
    }

    #[test]
    fn long_texts_are_folded_behind_the_eightieth_column() {
        let text = "word ".repeat(30);
        let printed = to_string(&json!({"k": text.trim_end()}));
        assert!(printed.lines().count() > 1 && printed.lines().all(|line| line.len() < 90), "{printed}");
        assert_eq!(serde_yaml::from_str::<Value>(&printed).expect("YAML")["k"], text.trim_end());
    }
}
