//! Judges a value by its schema, in the words of kube-openapi.
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/validate` and `apiextensions-apiserver/pkg/apiserver/validation`. The
//! order of complaints is that of Kubernetes, with the fields of an object by name. Of several alternatives that all
//! fail the one is told whose checks matched most often, as there.

use serde_json::Value;

use super::correlate::{OldItems, Pair};
use super::number::{self, GoNumber};
use super::schema::{Additional, Checks, Schema, Type};
use crate::field::{FieldError, FieldErrorKind};
use crate::path::Path;

/// Most complaints about one value.
const COMPLAINTS_MAX: usize = 300;

/// Everything that is wrong with a value. `prefix` is the path of the value, empty for a whole object.
pub(crate) fn check(schema: &Schema, value: &Value, prefix: &str) -> Vec<FieldError> {
    errors(Walk { root: true }.value(schema, value, &Path::ROOT, None), prefix)
}

/// As [`check`] for a changed value: what it did not change is not judged again.
pub(crate) fn check_update(schema: &Schema, pair: Pair<'_>, prefix: &str) -> Vec<FieldError> {
    errors(Walk { root: prefix.is_empty() }.value(schema, pair.new, &Path::ROOT, Some(pair)), prefix)
}

fn errors(outcome: Outcome, prefix: &str) -> Vec<FieldError> {
    let place = |name: Option<String>| {
        let name = name.as_deref().map(|name| name.trim_start_matches('.')).unwrap_or_default();
        match (prefix.is_empty(), name.is_empty()) {
            (true, true) => "<nil>".to_owned(),
            (true, false) => name.to_owned(),
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}.{name}"),
        }
    };
    let error =
        |one: Complaint| FieldError { kind: one.kind, field: place(one.name), value: one.value, detail: one.detail };
    outcome.complaints.into_iter().map(error).collect()
}

/// One broken rule.
#[derive(Debug)]
struct Complaint {
    kind: FieldErrorKind,
    /// Path of the value; none for complaints that Kubernetes does not place.
    name: Option<String>,
    value: String,
    detail: String,
    /// kube-openapi's own text: what has it twice is told once.
    message: String,
}

/// What came out of judging one value.
#[derive(Debug, Default)]
struct Outcome {
    complaints: Vec<Complaint>,
    /// How many checks were made: the measure by which the best of several alternatives is chosen.
    matches: usize,
}

impl Outcome {
    fn valid(&self) -> bool {
        self.complaints.is_empty()
    }

    fn merge(&mut self, other: Self) {
        self.matches += other.matches;
        for complaint in other.complaints {
            self.push(complaint);
        }
    }

    fn push(&mut self, complaint: Complaint) {
        let known = self.complaints.iter().any(|own| own.message == complaint.message);
        if !known && self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }

    /// A rule that a value breaks, told after its path.
    fn invalid(&mut self, path: &Path<'_>, value: String, rule: &str) {
        let message = format!("{path} in body {rule}");
        let detail = message.clone();
        self.push(Complaint { kind: FieldErrorKind::Invalid, name: Some(path.to_string()), value, detail, message });
    }

    fn wrong_type(&mut self, path: &Path<'_>, wanted: &str, found: &str) {
        let message = format!("{path} in body must be of type {wanted}: {}", quoted(found));
        self.push(Complaint {
            kind: FieldErrorKind::TypeInvalid,
            name: Some(path.to_string()),
            value: quoted(found),
            detail: message.clone(),
            message,
        });
    }

    /// A rule whose complaint has a form of its own.
    fn special(&mut self, path: &Path<'_>, kind: FieldErrorKind, value: String, detail: String, rule: &str) {
        let message = format!("{path} in body {rule}");
        self.push(Complaint { kind, name: Some(path.to_string()), value, detail, message });
    }

    /// A complaint without a place.
    fn bare(&mut self, message: String) {
        let detail = message.clone();
        self.push(Complaint { kind: FieldErrorKind::Invalid, name: None, value: quoted(""), detail, message });
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A value as Go shows it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.as_i64().is_none() => number::verb_v(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// `1 item`, `2 items`
fn at_most(limit: i64, one: &str) -> String {
    let plural = if limit == 1 { "" } else { "s" };
    format!("{limit} {one}{plural}")
}

struct Walk {
    /// Whether the whole object is judged: its type is never left unjudged.
    root: bool,
}

impl Walk {
    fn value(&self, schema: &Schema, value: &Value, path: &Path<'_>, pair: Option<Pair<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        self.judge(schema, value, path, pair, &mut outcome);
        if !outcome.valid() && pair.is_some_and(|pair| pair.equal()) {
            outcome.complaints.clear();
        }
        outcome
    }

    fn judge(&self, schema: &Schema, value: &Value, path: &Path<'_>, pair: Option<Pair<'_>>, out: &mut Outcome) {
        let checks = schema.checks.as_deref();
        if value.is_null() {
            match schema.kind.filter(|_| !schema.nullable) {
                Some(kind) => out.wrong_type(path, kind.name(), "null"),
                None => out.matches += 1,
            }
            if let Some(checks) = checks {
                allowed_values(checks, value, path, out);
            }
            return;
        }
        if schema.kind.is_some() || checks.is_some_and(|checks| checks.format.is_some()) {
            let before = out.complaints.len();
            type_fits(schema, value, path, out);
            out.matches += if out.complaints.len() == before { 2 } else { 1 };
        }
        out.matches += 2;
        if let Some(checks) = checks {
            self.alternatives(checks, value, path, pair, out);
        }
        match value {
            Value::String(text) => {
                out.matches += 1;
                if let Some(checks) = checks {
                    text_rules(checks, text, path, out);
                    format_rule(checks, text, path, out);
                }
            }
            Value::Number(number) => {
                out.matches += 2;
                if let Some(checks) = checks {
                    number_rules(schema.kind, checks, GoNumber::of(number), path, out);
                } else {
                    number_range(schema.kind, None, GoNumber::of(number), "Checked", path, out);
                }
            }
            Value::Array(items) => {
                out.matches += 2;
                self.items(schema, items, path, pair, out);
            }
            _ => {}
        }
        out.matches += 1;
        if let Some(checks) = checks {
            allowed_values(checks, value, path, out);
        }
        if let Value::Object(fields) = value {
            out.matches += 1;
            self.fields(schema, fields, path, pair, out);
        }
        out.matches += 1;
    }

    fn items(&self, schema: &Schema, items: &[Value], path: &Path<'_>, pair: Option<Pair<'_>>, out: &mut Outcome) {
        if let Some(item_schema) = &schema.items {
            let old = pair.map_or_else(OldItems::default, |pair| pair.items());
            for (index, item) in items.iter().enumerate() {
                let item_pair = pair.and_then(|pair| pair.item(index, &old));
                out.merge(self.value(item_schema, item, &path.index(index), item_pair));
            }
        }
        let Some(checks) = schema.checks.as_deref() else { return };
        let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(least) = checks.min_items.filter(|least| size < *least) {
            out.invalid(path, size.to_string(), &format!("should have at least {least} items"));
        }
        if let Some(most) = checks.max_items.filter(|most| size > *most) {
            let detail = format!("must have at most {}", at_most(most, "item"));
            let rule = format!("should have at most {most} items");
            out.special(path, FieldErrorKind::TooMany, size.to_string(), detail, &rule);
        }
    }

    fn fields(
        &self,
        schema: &Schema,
        fields: &serde_json::Map<String, Value>,
        path: &Path<'_>,
        pair: Option<Pair<'_>>,
        out: &mut Outcome,
    ) {
        let pair_of = |name: &str| {
            let root = self.root && matches!(name, "kind" | "apiVersion") && path.is_root();
            pair.filter(|_| !root).and_then(|pair| pair.key(name))
        };
        if let Some(checks) = schema.checks.as_deref() {
            field_counts(checks, fields.len(), path, out);
        }
        for (name, value) in fields.iter().filter(|(name, _)| schema.property(name).is_none()) {
            match &schema.additional {
                Additional::Allowed(false) => {
                    let message = format!("{path}.{name} in body is a forbidden property");
                    let detail = message.clone();
                    let (kind, place) = (FieldErrorKind::Invalid, Some(path.to_string()));
                    out.push(Complaint { kind, name: place, value: quoted(name), detail, message });
                }
                Additional::Schema(additional) => {
                    out.merge(self.value(additional, value, &path.child(name), pair_of(name)));
                }
                _ => {}
            }
        }
        for (name, property) in &schema.properties {
            if let Some(value) = fields.get(name) {
                out.merge(self.value(property, value, &path.child(name), pair_of(name)));
            }
        }
        for name in schema.checks.iter().flat_map(|checks| &checks.required) {
            if !fields.contains_key(name) {
                let path = path.child(name);
                out.special(&path, FieldErrorKind::Required, "null".to_owned(), String::new(), "is required");
            }
        }
    }

    fn alternatives(&self, checks: &Checks, value: &Value, path: &Path<'_>, pair: Option<Pair<'_>>, out: &mut Outcome) {
        let judge = |schema: &Schema| {
            let mut outcome = Outcome::default();
            self.judge(schema, value, path, pair, &mut outcome);
            outcome
        };
        let quoted_path = quoted(&path.to_string());
        any_of(&checks.any_of, judge, &quoted_path, out);
        one_of(&checks.one_of, judge, &quoted_path, out);
        if !checks.all_of.is_empty() {
            let mut valid = 0;
            for schema in &checks.all_of {
                let outcome = judge(schema);
                valid += usize::from(outcome.valid());
                out.merge(outcome);
            }
            if valid != checks.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                out.bare(format!("{quoted_path} must validate all the schemas (allOf){none}"));
            }
        }
        if checks.not.as_ref().is_some_and(|not| judge(not).valid()) {
            out.bare(format!("{quoted_path} must not validate the schema (not)"));
        }
    }
}

fn any_of(schemas: &[Schema], judge: impl Fn(&Schema) -> Outcome, path: &str, out: &mut Outcome) {
    let mut best: Option<Outcome> = None;
    for schema in schemas {
        let outcome = judge(schema);
        if outcome.valid() {
            out.merge(outcome);
            return;
        }
        if best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            best = Some(outcome);
        }
    }
    if let Some(best) = best {
        out.bare(format!("{path} must validate at least one schema (anyOf)"));
        out.merge(best);
    }
}

fn one_of(schemas: &[Schema], judge: impl Fn(&Schema) -> Outcome, path: &str, out: &mut Outcome) {
    if schemas.is_empty() {
        return;
    }
    let (mut best, mut success): (Option<Outcome>, Option<Outcome>) = (None, None);
    let mut valid = 0;
    for schema in schemas {
        let outcome = judge(schema);
        if outcome.valid() {
            valid += 1;
            best = None;
            success.get_or_insert(outcome);
        } else if valid == 0 && best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            best = Some(outcome);
        }
    }
    if valid == 1 {
        out.merge(success.unwrap_or_default());
        return;
    }
    let found = match valid {
        0 => "Found none valid".to_owned(),
        count => format!("Found {count} valid alternatives"),
    };
    out.bare(format!("{path} must validate one and only one schema (oneOf). {found}"));
    out.merge(best.unwrap_or_default());
}

fn field_counts(checks: &Checks, count: usize, path: &Path<'_>, out: &mut Outcome) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if let Some(least) = checks.min_properties.filter(|least| count < *least) {
        out.invalid(path, count.to_string(), &format!("should have at least {least} properties"));
    }
    if let Some(most) = checks.max_properties.filter(|most| count > *most) {
        let detail = format!("must have at most {}", at_most(most, "item"));
        let rule = format!("should have at most {most} properties");
        out.special(path, FieldErrorKind::TooMany, count.to_string(), detail, &rule);
    }
}

/// The type and the numeric format Go has for a value.
fn go_type(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) => match GoNumber::of(number) {
            GoNumber::Int(_) => ("integer", "int64"),
            GoNumber::Float(_) => ("number", "float64"),
        },
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

fn type_fits(schema: &Schema, value: &Value, path: &Path<'_>, out: &mut Outcome) {
    let format = schema.checks.as_ref().and_then(|checks| checks.format.as_ref()).map(|format| format.name.as_str());
    let (name, number_format) = go_type(value);
    let wants = |one: &str| match schema.kind {
        Some(Type::IntOrString) => one == "integer" || one == "string",
        Some(kind) => kind.name() == one,
        None => false,
    };
    let whole_float =
        name == "number" && wants("integer") && matches!(value, Value::Number(n) if GoNumber::of(n).is_whole());
    let fits = wants(name) || whole_float || (name == "integer" && wants("number"));
    let is_list_or_text = matches!(value, Value::String(_) | Value::Array(_));
    match format {
        Some(format) if !is_list_or_text && !fits && format != number_format => {
            out.wrong_type(path, format, number_format);
        }
        Some(_) if is_list_or_text && !wants("number") && !wants("integer") => {}
        _ if !fits => out.wrong_type(path, schema.kind.map_or("", Type::name), name),
        _ => {}
    }
}

fn allowed_values(checks: &Checks, value: &Value, path: &Path<'_>, out: &mut Outcome) {
    let values = &checks.one_of_values;
    if values.is_empty() || values.iter().any(|one| !value.is_null() && same(one, value)) {
        return;
    }
    let texts: Vec<_> = values
        .iter()
        .map(|one| match one {
            Value::String(text) => quoted(text),
            other => quoted(&other.to_string()),
        })
        .collect();
    let detail = format!("supported values: {}", texts.join(", "));
    out.special(path, FieldErrorKind::NotSupported, shown(value), detail, "should be one of");
}

/// Equal, a whole number and a float of the same size included.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (GoNumber::of(one), GoNumber::of(other));
            one == other || (one.float() - other.float()).abs() < f64::EPSILON
        }
        _ => one == other,
    }
}

fn text_rules(checks: &Checks, text: &str, path: &Path<'_>, out: &mut Outcome) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(most) = checks.max_length.filter(|most| length > *most) {
        let detail = format!("may not be more than {}", at_most(most, "byte"));
        let rule = format!("should be at most {most} chars long");
        out.special(path, FieldErrorKind::TooLong, quoted(text), detail, &rule);
    } else if let Some(least) = checks.min_length.filter(|least| length < *least) {
        out.invalid(path, quoted(text), &format!("should be at least {least} chars long"));
    } else if let Some(pattern) = &checks.pattern {
        let source = &pattern.source;
        match &pattern.compiled {
            Ok(regex) if regex.is_match(text) => {}
            Ok(_) => out.invalid(path, quoted(text), &format!("should match '{source}'")),
            Err(error) => {
                let rule = format!("should match '{source}, but pattern is invalid: {error}'");
                out.invalid(path, quoted(text), &rule);
            }
        }
    }
}

fn format_rule(checks: &Checks, text: &str, path: &Path<'_>, out: &mut Outcome) {
    let Some(format) = &checks.format else { return };
    out.matches += 1;
    if !format.allows(text) {
        out.wrong_type(path, &format.name, text);
    }
}

/// The number fits the type and format; `what` is the number in a complaint.
fn number_range(
    kind: Option<Type>,
    format: Option<&str>,
    number: GoNumber,
    what: &str,
    path: &Path<'_>,
    out: &mut Outcome,
) {
    let (kind, fits) = match kind {
        Some(Type::Integer) => {
            let int = match number {
                GoNumber::Int(int) => Some(int),
                GoNumber::Float(float) => number::plain(float).parse().ok(),
            };
            let small = |int: i64| format != Some("int32") || i32::try_from(int).is_ok();
            ("integer", int.is_some_and(small))
        }
        Some(Type::Number) => {
            let in_float32 = number.float().abs() <= f64::from(f32::MAX);
            ("number", format != Some("float") || in_float32)
        }
        _ => return,
    };
    if !fits {
        let with = format.map_or("(default format)".to_owned(), |format| format!("with format {format}"));
        out.bare(format!("{what} value must be of type {kind} {with} in {path}"));
    }
}

fn number_rules(kind: Option<Type>, checks: &Checks, number: GoNumber, path: &Path<'_>, out: &mut Outcome) {
    let format = checks
        .format
        .as_ref()
        .map(|format| format.name.as_str())
        .filter(|_| matches!(kind, Some(Type::Integer | Type::Number)));
    number_range(kind, format, number, "Checked", path, out);
    if let Some(factor) = checks.multiple_of {
        let before = out.complaints.len();
        number_range(kind, format, GoNumber::Float(factor), "MultipleOf", path, out);
        multiple_of(number, factor, out.complaints.len() == before, path, out);
    }
    // Limits are told in this order: least, then most.
    if let Some(least) = checks.minimum {
        limit(
            kind,
            format,
            number,
            Limit { bound: least, exclusive: checks.exclusive_minimum, upper: false },
            path,
            out,
        );
    }
    if let Some(most) = checks.maximum {
        limit(kind, format, number, Limit { bound: most, exclusive: checks.exclusive_maximum, upper: true }, path, out);
    }
}

#[derive(Clone, Copy)]
struct Limit {
    bound: f64,
    exclusive: bool,
    upper: bool,
}

fn limit(kind: Option<Type>, format: Option<&str>, number: GoNumber, limit: Limit, path: &Path<'_>, out: &mut Outcome) {
    let what = if limit.upper { "Maximum boundary" } else { "Minimum boundary" };
    let before = out.complaints.len();
    number_range(kind, format, GoNumber::Float(limit.bound), what, path, out);
    let native = out.complaints.len() == before;
    let (broken, bound, value) = match number {
        GoNumber::Int(int) if native => {
            #[expect(clippy::cast_possible_truncation, reason = "as Go converts it")]
            let bound = limit.bound as i64;
            (beyond(&int, &bound, &limit), bound.to_string(), int.to_string())
        }
        other => {
            let float = other.float();
            (beyond(&float, &limit.bound, &limit), number::verb_v(limit.bound), number::verb_v(float))
        }
    };
    if broken {
        let rule = match (limit.upper, limit.exclusive) {
            (true, false) => "less than or equal to",
            (true, true) => "less than",
            (false, false) => "greater than or equal to",
            (false, true) => "greater than",
        };
        out.invalid(path, value, &format!("should be {rule} {bound}"));
    }
}

fn beyond<N: PartialOrd>(number: &N, bound: &N, limit: &Limit) -> bool {
    let (less, more) = if limit.upper { (bound, number) } else { (number, bound) };
    if limit.exclusive { less <= more } else { less < more }
}

fn multiple_of(number: GoNumber, factor: f64, native: bool, path: &Path<'_>, out: &mut Outcome) {
    let not_positive = |factor: String, out: &mut Outcome| {
        let message = format!("factor MultipleOf declared for {path} must be positive: {factor}");
        let (kind, name) = (FieldErrorKind::Invalid, Some(path.to_string()));
        out.push(Complaint { kind, name, value: factor, detail: message.clone(), message });
    };
    if let (GoNumber::Int(int), true) = (number, native) {
        #[expect(clippy::cast_possible_truncation, reason = "as Go converts it")]
        let factor = factor as i64;
        if factor <= 0 {
            not_positive(factor.to_string(), out);
        } else if int % factor != 0 {
            out.invalid(path, int.to_string(), &format!("should be a multiple of {factor}"));
        }
        return;
    }
    let float = number.float();
    if factor <= 0.0 {
        not_positive(number::verb_v(factor), out);
    } else {
        let times = if factor < 1.0 { 1.0 / factor * float } else { float / factor };
        if !number::float_is_whole(times) {
            out.invalid(path, number::verb_v(float), &format!("should be a multiple of {}", number::verb_v(factor)));
        }
    }
}
