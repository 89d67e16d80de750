//! The paths of printer columns, scale and selectable fields (`.status.conditions[?(@.type=="Ready")].status`).
//!
//! The part of `k8s.io/client-go/util/jsonpath` that such paths use: fields, quoted fields, indices, slices,
//! wildcards, recursive descent, and filters that compare with a constant or ask whether a field is there.

use serde_json::Value;

/// Most values one path may find; the rest are left out.
const RESULTS_MAX: usize = 10_000;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    /// Start, end and step, as in Go's parser.
    Slice(Option<i64>, Option<i64>, Option<i64>),
    Index(i64),
    Filter(JsonPath, Option<(Comparison, Operand)>),
    Union(Vec<Step>),
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

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Constant(Value),
    Path(JsonPath),
}

impl JsonPath {
    /// Parses a path; none when it is not understood.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (path, rest) = parse_steps(text.trim(), false)?;
        rest.is_empty().then_some(path)
    }

    /// The values at the path, in order. What is not there is left out.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.apply(value, &mut next);
                if next.len() > RESULTS_MAX {
                    next.truncate(RESULTS_MAX);
                    break;
                }
            }
            found = next;
        }
        found
    }
}

/// The steps at the beginning of a text; in a filter they end at an operator.
fn parse_steps(text: &str, in_filter: bool) -> Option<(JsonPath, &str)> {
    let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    let mut steps = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Recursive);
            // What follows is a field without a dot of its own.
            if after.starts_with('[') {
                rest = after;
                continue;
            }
            let (step, after) = parse_field(after)?;
            steps.push(step);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() {
                return Some((JsonPath(steps), after));
            }
            if after.starts_with('[') {
                rest = after;
                continue;
            }
            let (step, after) = parse_field(after)?;
            steps.push(step);
            rest = after;
        } else if rest.starts_with('[') {
            let end = closing_bracket(rest)?;
            steps.push(parse_bracket(&rest[1..end])?);
            rest = &rest[end + 1..];
        } else if rest.is_empty() || in_filter {
            return Some((JsonPath(steps), rest));
        } else if steps.is_empty() {
            let (step, after) = parse_field(rest)?;
            steps.push(step);
            rest = after;
        } else {
            return None;
        }
    }
}

fn parse_field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' | ']' | ' ' | '=' | '!' | '<' | '>' | ')' | '(' | ',' | '"' | '\'' | '|' | '&' | '}' | '{' => {
                end = at;
                break;
            }
            _ => name.push(c),
        }
    }
    match name.as_str() {
        "" => None,
        "*" => Some((Step::Wildcard, &text[end..])),
        _ => Some((Step::Field(name), &text[end..])),
    }
}

/// Where the bracket at the beginning ends; brackets in quotes and nested ones do not count.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn parse_bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if let Some(filter) = inner.strip_prefix("?(") {
        return parse_filter(filter.strip_suffix(')')?.trim());
    }
    if inner == "*" {
        return Some(Step::Wildcard);
    }
    if let Some(name) = quoted(inner) {
        return Some(Step::Field(name));
    }
    if inner.contains(',') {
        return inner.split(',').map(parse_bracket).collect::<Option<Vec<_>>>().map(Step::Union);
    }
    if inner.contains(':') {
        let mut bounds = inner.split(':').map(|part| match part.trim() {
            "" => Some(None),
            number => number.parse().ok().map(Some),
        });
        let (start, end, step) = (bounds.next()??, bounds.next()??, bounds.next().unwrap_or(Some(None))?);
        return bounds.next().is_none().then_some(Step::Slice(start, end, step));
    }
    inner.parse().ok().map(Step::Index)
}

/// A text in quotes.
fn quoted(text: &str) -> Option<String> {
    let open = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(open)?.strip_suffix(open)?;
    let (mut out, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?),
            c if c == open => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

fn parse_filter(text: &str) -> Option<Step> {
    let (path, rest) = parse_steps(text, true)?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Some(Step::Filter(path, None));
    }
    let operators = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let (comparison, right) =
        operators.into_iter().find_map(|(sign, comparison)| Some((comparison, rest.strip_prefix(sign)?.trim())))?;
    let operand = match quoted(right) {
        Some(text) => Operand::Constant(Value::from(text)),
        None if right.starts_with(['@', '$']) => Operand::Path(JsonPath::parse(right)?),
        None => Operand::Constant(serde_json::from_str(right).ok()?),
    };
    Some(Step::Filter(path, Some((comparison, operand))))
}

impl Step {
    fn apply<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(fields)) => out.extend(fields.get(name)),
            (Self::Wildcard, Value::Object(fields)) => out.extend(fields.values()),
            (Self::Wildcard, Value::Array(items)) => out.extend(items),
            (Self::Recursive, value) => descend(value, out),
            (Self::Index(index), Value::Array(items)) => out.extend(at(items, *index)),
            (Self::Slice(start, end, step), Value::Array(items)) => slice(items, *start, *end, *step, out),
            (Self::Filter(path, condition), Value::Array(items)) => {
                out.extend(items.iter().filter(|item| holds(path, condition.as_ref(), item)));
            }
            (Self::Union(steps), value) => steps.iter().for_each(|step| step.apply(value, out)),
            _ => {}
        }
    }
}

fn descend<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    if out.len() > RESULTS_MAX {
        return;
    }
    out.push(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| descend(value, out)),
        Value::Array(items) => items.iter().for_each(|value| descend(value, out)),
        _ => {}
    }
}

fn at(items: &[Value], index: i64) -> Option<&Value> {
    let length = i64::try_from(items.len()).ok()?;
    let index = if index < 0 { index + length } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn slice<'v>(items: &'v [Value], start: Option<i64>, end: Option<i64>, step: Option<i64>, out: &mut Vec<&'v Value>) {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let place = |bound: Option<i64>, unset: i64| {
        let bound = bound.unwrap_or(unset);
        usize::try_from((if bound < 0 { bound + length } else { bound }).clamp(0, length)).unwrap_or_default()
    };
    let (start, end) = (place(start, 0), place(end, length));
    let step = usize::try_from(step.unwrap_or(1)).unwrap_or_default().max(1);
    if start < end {
        out.extend(items[start..end].iter().step_by(step));
    }
}

fn holds(path: &JsonPath, condition: Option<&(Comparison, Operand)>, item: &Value) -> bool {
    let left = path.find(item);
    let Some((comparison, operand)) = condition else { return !left.is_empty() };
    let right = match operand {
        Operand::Constant(value) => Some(value),
        Operand::Path(path) => path.find(item).into_iter().next(),
    };
    let (Some(left), Some(right)) = (left.first(), right) else { return false };
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => left.partial_cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.partial_cmp(right),
        _ => None,
    };
    match (comparison, order) {
        (Comparison::NotEqual, order) => order.is_none_or(std::cmp::Ordering::is_ne),
        (_, None) => false,
        (Comparison::Equal, Some(order)) => order.is_eq(),
        (Comparison::Less, Some(order)) => order.is_lt(),
        (Comparison::LessOrEqual, Some(order)) => order.is_le(),
        (Comparison::Greater, Some(order)) => order.is_gt(),
        (Comparison::GreaterOrEqual, Some(order)) => order.is_ge(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_well_known_columns_find_their_values() {
        let object = json!({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}, "spec": {"n": 3, "l": ["a", "b", "c"]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Other", "status": "False", "n": 2}]}});
        for (path, expected) in [
            (".spec.n", json!([3])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type == 'Other')].status", json!(["False"])),
            (".status.conditions[?(@.n>1)].type", json!(["Other"])),
            (".status.conditions[?(@.absent)].type", json!([])),
            (".status.conditions[*].type", json!(["Ready", "Other"])),
            (".metadata.labels.app\\.kubernetes\\.io/name", json!(["x"])),
            (".metadata.labels['app.kubernetes.io/name']", json!(["x"])),
            (".spec.l[0]", json!(["a"])),
            (".spec.l[-1]", json!(["c"])),
            (".spec.l[1:]", json!(["b", "c"])),
            (".spec.l[0,2]", json!(["a", "c"])),
            ("..status", json!([object["status"], "True", "False"])),
            (".nothing.at.all", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(json!(found.find(&object)), expected, "{path}");
        }
        for bad in [".spec[", ".spec[?(@.a==)]", "a b", ".status.conditions[?(@.type=='x')"] {
            assert!(JsonPath::parse(bad).is_none(), "{bad}");
        }
    }
}
