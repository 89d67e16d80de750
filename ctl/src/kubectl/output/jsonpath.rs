//! kubectl's JSONPath templates: text with `{…}` in it.
//!
//! Fields, indexes, slices, wildcards, recursive descent, unions, filters with comparisons, `range`/`end`. Source:
//! Kubernetes' "JSONPath Support" reference page.

use std::cmp::Ordering;

use serde_json::Value;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Descend,
    Slice { start: Option<i64>, end: Option<i64>, step: usize },
    Index(i64),
    Union(Vec<Step>),
    Filter(Box<Condition>),
}

#[derive(Debug, Clone, PartialEq)]
struct Condition {
    left: Vec<Step>,
    comparison: Option<(Comparison, Operand)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Constant(Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// How deep ranges may stand in each other.
const NESTING_MAX: usize = 32;

impl Template {
    /// Reads a template. A text without braces is one path, as kubectl takes it for `--sort-by` and columns.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let parts = parse_parts(&mut rest, 0)?;
        if rest.is_empty() { Ok(Self(parts)) } else { Err("unexpected {end}".to_owned()) }
    }

    /// The text for one object.
    pub(crate) fn print(&self, value: &Value) -> Result<String, String> {
        let mut text = String::new();
        print_parts(&self.0, value, value, &mut text)?;
        Ok(text)
    }

    /// What the first path finds.
    pub(crate) fn values(&self, value: &Value) -> Result<Vec<Value>, String> {
        let path = self.0.iter().find_map(|part| match part {
            Part::Path(steps) => Some(steps),
            _ => None,
        });
        let steps = path.ok_or("there is no path in the template")?;
        Ok(walk(steps, value, value).into_iter().cloned().collect())
    }
}

/// A value as a template prints it: texts as they are, the rest as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => super::escaped(&other.to_string()),
    }
}

fn parse_parts(rest: &mut &str, depth: usize) -> Result<Vec<Part>, String> {
    if depth > NESTING_MAX {
        return Err("ranges are nested too deeply".to_owned());
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            parts.push(Part::Text(std::mem::take(rest).to_owned()));
            break;
        };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        let inner_start = &rest[open + 1..];
        let close = closing(inner_start).ok_or("unclosed action")?;
        let inner = inner_start[..close].trim();
        let behind = &inner_start[close + 1..];
        if inner == "end" {
            if depth == 0 {
                return Ok(parts);
            }
            *rest = behind;
            return Ok(parts);
        }
        *rest = behind;
        if let Some(path) = inner.strip_prefix("range ") {
            let steps = parse_path(path.trim())?;
            parts.push(Part::Range(steps, parse_parts(rest, depth + 1)?));
        } else {
            parse_action(inner, &mut parts)?;
        }
    }
    if depth > 0 { Err("unexpected end of template: {end} is missing".to_owned()) } else { Ok(parts) }
}

/// The position of the brace that closes an action: not inside quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(index),
            _ => {}
        }
    }
    None
}

/// One action: quoted texts and paths, side by side.
fn parse_action(inner: &str, parts: &mut Vec<Part>) -> Result<(), String> {
    let mut rest = inner.trim();
    while !rest.is_empty() {
        if let Some(quote) = rest.chars().next().filter(|c| *c == '"' || *c == '\'') {
            let (text, behind) = quoted(rest, quote)?;
            parts.push(Part::Text(text));
            rest = behind.trim_start();
        } else {
            let end = path_end(rest);
            parts.push(Part::Path(parse_path(&rest[..end])?));
            rest = rest[end..].trim_start();
        }
    }
    Ok(())
}

/// Where a path ends: at a space outside brackets.
fn path_end(text: &str) -> usize {
    let mut depth = 0_i32;
    for (index, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            c if c.is_whitespace() && depth <= 0 => return index,
            _ => {}
        }
    }
    text.len()
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut own = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => own.push('\n'),
                Some((_, 't')) => own.push('\t'),
                Some((_, 'r')) => own.push('\r'),
                Some((_, other)) => own.push(other),
                None => break,
            },
            c if c == quote => return Ok((own, &text[index + c.len_utf8()..])),
            other => own.push(other),
        }
    }
    Err(format!("unterminated quoted string {text}"))
}

fn parse_path(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix("..") {
            steps.push(Step::Descend);
            rest = behind;
            if !rest.starts_with('[') && !rest.is_empty() {
                rest = field(rest, &mut steps);
            }
        } else if let Some(behind) = rest.strip_prefix('[') {
            let close = bracket_end(behind).ok_or_else(|| format!("unterminated array in {text:?}"))?;
            steps.push(parse_bracket(behind[..close].trim())?);
            rest = &behind[close + 1..];
        } else {
            rest = field(rest.strip_prefix('.').unwrap_or(rest), &mut steps);
        }
    }
    Ok(steps)
}

/// Reads a field name; `\.` is a dot in it.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> &'t str {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = index;
                break;
            }
            other => name.push(other),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => steps.push(Step::Wildcard),
        _ => steps.push(Step::Field(name)),
    }
    &text[end..]
}

fn bracket_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(index),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn parse_bracket(inner: &str) -> Result<Step, String> {
    if inner == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return parse_condition(condition).map(|condition| Step::Filter(Box::new(condition)));
    }
    let items: Vec<&str> = split_outside_quotes(inner, ',');
    if items.len() > 1 {
        return items.into_iter().map(|item| parse_bracket(item.trim())).collect::<Result<_, _>>().map(Step::Union);
    }
    if let Some(quote) = inner.chars().next().filter(|c| *c == '"' || *c == '\'') {
        return quoted(inner, quote).map(|(name, _)| Step::Field(name));
    }
    let number = |text: &str| -> Result<Option<i64>, String> {
        if text.is_empty() {
            Ok(None)
        } else {
            text.parse().map(Some).map_err(|_| format!("invalid array index {inner}"))
        }
    };
    match inner.split(':').collect::<Vec<_>>().as_slice() {
        [one] => number(one)?.map(Step::Index).ok_or_else(|| format!("invalid array index {inner:?}")),
        [start, end] => Ok(Step::Slice { start: number(start)?, end: number(end)?, step: 1 }),
        [start, end, step] => {
            let step = number(step)?.unwrap_or(1);
            let step = usize::try_from(step).ok().filter(|step| *step > 0).ok_or("step must be > 0")?;
            Ok(Step::Slice { start: number(start)?, end: number(end)?, step })
        }
        _ => Err(format!("invalid array index {inner}")),
    }
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quote) = (Vec::new(), 0, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c == separator => {
                parts.push(&text[start..index]);
                start = index + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_condition(text: &str) -> Result<Condition, String> {
    let operators = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    for (sign, comparison) in operators {
        if let Some((left, right)) = text.split_once(sign) {
            let right = parse_operand(right.trim())?;
            return Ok(Condition { left: parse_path(left.trim())?, comparison: Some((comparison, right)) });
        }
    }
    Ok(Condition { left: parse_path(text.trim())?, comparison: None })
}

fn parse_operand(text: &str) -> Result<Operand, String> {
    if let Some(quote) = text.chars().next().filter(|c| *c == '"' || *c == '\'') {
        return quoted(text, quote).map(|(text, _)| Operand::Constant(Value::String(text)));
    }
    if text.starts_with('@') || text.starts_with('$') || text.starts_with('.') {
        return parse_path(text).map(Operand::Path);
    }
    serde_json::from_str(text).map(Operand::Constant).map_err(|_| format!("unrecognized operand {text:?}"))
}

fn print_parts(parts: &[Part], value: &Value, root: &Value, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let texts: Vec<String> = walk(steps, value, root).into_iter().map(text_of).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range(steps, body) => {
                for item in walk(steps, value, root) {
                    print_parts(body, item, root, out)?;
                }
            }
        }
    }
    Ok(())
}

fn walk<'v>(steps: &[Step], value: &'v Value, root: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| take(step, value, root)).collect();
    }
    found
}

fn take<'v>(step: &Step, value: &'v Value, root: &'v Value) -> Vec<&'v Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Wildcard, Value::Object(map)) => map.values().collect(),
        (Step::Wildcard, Value::Array(items)) => items.iter().collect(),
        (Step::Descend, value) => descend(value),
        (Step::Index(index), Value::Array(items)) => at(items, *index).into_iter().collect(),
        (Step::Slice { start, end, step }, Value::Array(items)) => {
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let bound = |own: Option<i64>, default: i64| {
                let own = own.unwrap_or(default);
                usize::try_from(if own < 0 { own + length } else { own }.clamp(0, length)).unwrap_or(0)
            };
            let (start, end) = (bound(*start, 0), bound(*end, length));
            items.get(start..end).unwrap_or_default().iter().step_by(*step).collect()
        }
        (Step::Union(steps), value) => steps.iter().flat_map(|step| take(step, value, root)).collect(),
        (Step::Filter(condition), Value::Array(items)) => {
            items.iter().filter(|item| holds(condition, item, root)).collect()
        }
        _ => Vec::new(),
    }
}

fn at(items: &[Value], index: i64) -> Option<&Value> {
    let index = if index < 0 { index + i64::try_from(items.len()).ok()? } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn descend(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    let mut next = 0;
    while let Some(own) = found.get(next).copied() {
        next += 1;
        match own {
            Value::Object(map) => found.extend(map.values()),
            Value::Array(items) => found.extend(items),
            _ => {}
        }
    }
    found
}

fn holds(condition: &Condition, item: &Value, root: &Value) -> bool {
    let left = walk(&condition.left, item, root);
    let Some((comparison, operand)) = &condition.comparison else { return !left.is_empty() };
    let right = match operand {
        Operand::Constant(value) => Some(value),
        Operand::Path(steps) => walk(steps, item, root).into_iter().next(),
    };
    let (Some(left), Some(right)) = (left.first(), right) else { return false };
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) if *left == right => Some(Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "b"}, "n": 20, "list": [1, 2, 3]}]})
    }

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let printed = Template::parse(template).and_then(|own| own.print(&object()));
        assert_eq!(printed.as_deref(), Ok(expected), "{template}");
    }

    #[test]
    fn fields_indexes_slices_and_wildcards() {
        check("{.kind}", "List");
        check("{.items[0].metadata.name}", "a");
        check("{.items[*].metadata.name}", "a b");
        check("{.items[-1:].metadata.name}", "b");
        check("{.items[1].list[0:2]}", "1 2");
        check("{.items[0].metadata.labels.x\\.y/z}", "1");
        check("{.items[0].metadata.labels['x.y/z']}", "1");
        check("{.items[*]['metadata.name','n']}", "1 20");
        check("{..name}", "a b");
        check("{$.kind}{.missing}", "List");
        check("{.items[1].metadata}", r#"{"name":"b"}"#);
    }

    #[test]
    fn ranges_texts_and_filters() {
        check("{range .items[*]}{.metadata.name}={.n}{\"\\n\"}{end}", "a=1\nb=20\n");
        check("{.items[?(@.n>5)].metadata.name}", "b");
        check("{.items[?(@.metadata.name==\"a\")].status.conditions[?(@.type==\"Ready\")].status}", "True");
        check("{.items[?(@.list)].metadata.name}", "b");
        check("kind: {.kind}!", "kind: List!");
    }

    #[test]
    fn templates_that_make_no_sense_are_refused() {
        for bad in ["{.a", "{range .items[*]}{.a}", "{.a[}", "{.a[x]}", "{end}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
