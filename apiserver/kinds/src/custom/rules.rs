//! The rules of a schema in CEL (`x-kubernetes-validations`): compiled once, run on objects within a budget.
//!
//! Source: `pkg/apiserver/schema/cel` of apiextensions-apiserver. What an expression is and costs is `reeve-cel`'s.

use std::sync::Arc;

use reeve_cel::{BUDGET, Decl, DeclaredSizes, Env, EvalError, PER_CALL_LIMIT, Program, Type};
use serde_json::Value;

use super::correlate::Pair;
use super::schema::Schema;
use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::{entries, flag, get, list, text};
use crate::path::Path;

/// Longest text a message expression may give, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;
/// Largest request: what decides how often a value can be in an object.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// One rule, compiled.
pub(crate) struct Rule {
    source: Value,
    /// The expression, or why it is none.
    pub(crate) program: Result<Program, String>,
    /// Whether it looks at the value before the change.
    pub(crate) uses_old: bool,
    /// The expression of the message, or why it is none; nothing when there is none.
    pub(crate) message: Option<Result<Program, String>>,
    field: String,
}

/// The rules about one value and all inside it.
pub(crate) struct Rules {
    decl: Option<Arc<Decl>>,
    kind: String,
    own: Vec<Rule>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    properties: Vec<(String, Rules)>,
}

impl Rules {
    /// Compiles the rules of a schema and of those inside it; nothing when there are none. `root`: a whole object.
    pub(crate) fn of(source: &Value, root: bool) -> Option<Self> {
        if !source.is_object() {
            return None;
        }
        let embedded = |schema: &Value| flag(schema, "x-kubernetes-embedded-resource");
        let inner = |schema: &Value| Self::of(schema, embedded(schema)).map(Box::new);
        let items = inner(get(source, "items"));
        let additional = inner(get(source, "additionalProperties"));
        let properties: Vec<_> = entries(source, "properties")
            .filter_map(|(name, schema)| Some((name.to_owned(), Self::of(schema, embedded(schema))?)))
            .collect();
        let written = list(source, "x-kubernetes-validations");
        if written.is_empty() && items.is_none() && additional.is_none() && properties.is_empty() {
            return None;
        }
        let decl = if written.is_empty() { None } else { declared(source, root) };
        let own = match &decl {
            Some(decl) => written.iter().map(|rule| Rule::compile(rule, source, decl)).collect(),
            None => Vec::new(),
        };
        let kind = text(source, "type").to_owned();
        Some(Self { decl, kind, own, items, additional, properties })
    }
}

/// What rules about a value know of it.
pub(crate) fn declared(source: &Value, root: bool) -> Option<Arc<Decl>> {
    Decl::from_schema(source, "selfType", root, &|_| None).map(Arc::new)
}

/// How often a value can be in an object at most, when no schema says.
pub(crate) fn cardinality(decl: &Decl) -> u64 {
    REQUEST_BYTES_MAX / (decl.min_size + 1)
}

impl Rule {
    /// Compiles a rule of a value that is declared so.
    pub(crate) fn compile(rule: &Value, schema: &Value, decl: &Decl) -> Self {
        let optional = flag(rule, "optionalOldSelf");
        let of = decl.to_type();
        let old = if optional { Type::Opaque("optional_type".into(), [of].into()) } else { of };
        let alone = Env::new().declared("self", decl);
        let env = alone.clone().variable("oldSelf", old);
        let expression = text(rule, "rule");
        let program = match env.compile(expression) {
            Err(error) => Err(error.detail()),
            Ok(program) if *program.output() != Type::Bool => Err("cel expression must evaluate to a bool".to_owned()),
            Ok(program) => Ok(program),
        };
        let uses_old = program.is_ok() && expression.contains("oldSelf") && alone.compile(expression).is_err();
        let message = match text(rule, "messageExpression") {
            "" => None,
            _ if program.is_err() => None,
            expression => Some(match env.compile(expression) {
                Err(error) => Err(format!("messageExpression {}", error.detail())),
                Ok(program) if *program.output() != Type::String => {
                    Err("messageExpression must evaluate to a string".to_owned())
                }
                Ok(program) => Ok(program),
            }),
        };
        let field = super::field_path::resolve(text(rule, "fieldPath"), schema, true);
        let field = field.map(|found| found.path).unwrap_or_default();
        Self { source: rule.clone(), program, uses_old, message, field }
    }

    /// What the expressions cost at most, for one value.
    pub(crate) fn cost(program: &Program, decl: &Decl) -> u64 {
        program.estimate(&DeclaredSizes { decl }).max
    }

    /// The message, or the rule itself.
    fn told(&self) -> &str {
        let message = text(&self.source, "message");
        if message.is_empty() { text(&self.source, "rule").trim() } else { message.trim() }
    }

    fn default_message(&self) -> String {
        let prefix = if text(&self.source, "message").is_empty() { "failed rule: " } else { "" };
        format!("{prefix}{}", self.told())
    }
}

/// Where a value stands among old and new ones.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ratchet<'v> {
    current: Option<Pair<'v>>,
    parent: Option<Pair<'v>>,
}

impl<'v> Ratchet<'v> {
    /// For a whole object that is changed.
    pub(crate) fn root(pair: Pair<'v>) -> Self {
        Self { current: Some(pair), parent: None }
    }

    fn unchanged(self) -> bool {
        self.current.or(self.parent).is_some_and(|pair| pair.equal())
    }

    fn key(self, name: &str) -> Self {
        match self.current {
            None => self,
            Some(_) if self.parent.is_none() && matches!(name, "apiVersion" | "kind") => Self::default(),
            Some(pair) => Self { current: pair.key(name), parent: Some(pair) },
        }
    }
}

/// Runs the rules of a whole object.
pub(crate) fn check(
    rules: &Rules,
    schema: &Schema,
    object: &Value,
    old: Option<&Value>,
    ratchet: Ratchet<'_>,
    path: &Path<'_>,
) -> Vec<FieldError> {
    let mut run = Run { budget: i64::try_from(BUDGET).unwrap_or(i64::MAX), errors: Errors::default() };
    // The end of the budget ends the run; what was found until then is told.
    let _ = run.value(rules, schema, object, old, ratchet, path);
    run.errors.into_vec()
}

/// No rule is looked at any more.
struct Over;

struct Run {
    budget: i64,
    errors: Errors,
}

impl Run {
    fn value(
        &mut self,
        rules: &Rules,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: &Path<'_>,
    ) -> Result<(), Over> {
        if value.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        self.own(rules, value, old, ratchet, path)?;
        match value {
            Value::Array(items) => self.items(rules, schema, items, value, old, ratchet, path),
            Value::Object(fields) => {
                for (name, value) in fields {
                    let old = old.and_then(|old| old.get(name));
                    if let (Some(rules), Some(schema)) = (&rules.additional, schema.additional.schema()) {
                        self.value(rules, schema, value, old, ratchet.key(name), &path.key(name))?;
                    }
                    let own = rules.properties.iter().find(|(own, _)| own == name);
                    if let (Some((_, rules)), Some(schema)) = (own, schema.property(name)) {
                        self.value(rules, schema, value, old, ratchet.key(name), &path.child(name))?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a value has, and its items")]
    fn items(
        &mut self,
        rules: &Rules,
        schema: &Schema,
        items: &[Value],
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: &Path<'_>,
    ) -> Result<(), Over> {
        let (Some(rules), Some(item_schema)) = (&rules.items, schema.items.as_deref()) else { return Ok(()) };
        let pair = old.map(|old| Pair { new: value, old, schema });
        let old_items = pair.map(|pair| pair.items());
        let ratchet_items = ratchet.current.map(|pair| pair.items());
        for (index, item) in items.iter().enumerate() {
            let from = pair.zip(old_items.as_ref()).and_then(|(pair, old)| pair.item(index, old));
            let inner = match ratchet.current.zip(ratchet_items.as_ref()) {
                None => ratchet,
                Some((pair, old)) => Ratchet { current: pair.item(index, old), parent: Some(pair) },
            };
            self.value(rules, item_schema, item, from.map(|pair| pair.old), inner, &path.index(index))?;
        }
        Ok(())
    }

    fn own(
        &mut self,
        rules: &Rules,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: &Path<'_>,
    ) -> Result<(), Over> {
        let Some(decl) = &rules.decl else { return Ok(()) };
        if rules.own.is_empty() {
            return Ok(());
        }
        if self.budget <= 0 {
            return self.out_of_budget(rules, path);
        }
        for rule in &rules.own {
            let optional = flag(&rule.source, "optionalOldSelf");
            if rule.uses_old && old.is_none() && !optional {
                continue;
            }
            self.rule(rule, rules, decl, (value, old), ratchet, path)?;
        }
        Ok(())
    }

    fn out_of_budget(&mut self, rules: &Rules, path: &Path<'_>) -> Result<(), Over> {
        let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.told(rules, path, detail.to_owned());
        Err(Over)
    }

    /// A complaint about the rule rather than the value.
    fn told(&mut self, rules: &Rules, path: &Path<'_>, detail: String) {
        self.errors.push(FieldError::new(FieldErrorKind::Invalid, place(path, ""), rules.kind.as_str(), detail));
    }

    fn rule(
        &mut self,
        rule: &Rule,
        rules: &Rules,
        decl: &Decl,
        (value, old): (&Value, Option<&Value>),
        ratchet: Ratchet<'_>,
        path: &Path<'_>,
    ) -> Result<(), Over> {
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => {
                self.told(rules, path, format!("rule compile error: {why}"));
                return Ok(());
            }
        };
        let variables = match variables(rule, decl, value, old) {
            Ok(variables) => variables,
            Err(error) => {
                self.told(rules, path, format!("{error} evaluating rule: {}", rule.told()));
                return Ok(());
            }
        };
        let outcome = program.run(&variables, PER_CALL_LIMIT);
        let cost = i64::try_from(outcome.cost).unwrap_or(i64::MAX);
        if cost > self.budget {
            return self.out_of_budget(rules, path);
        }
        self.budget -= cost;
        match outcome.result {
            Ok(reeve_cel::Value::Bool(true)) => return Ok(()),
            Ok(_) => {}
            Err(error) => return self.failed(&error, rule, rules, path),
        }
        let detail = self.message(rule, &variables);
        let ratcheted = !rule.uses_old && ratchet.unchanged();
        let (detail, over) = match detail {
            Ok(Some(detail)) => (detail, false),
            Ok(None) => (rule.default_message(), false),
            Err(why) => (why, true),
        };
        if !ratcheted {
            if over {
                self.told(rules, path, detail);
            } else {
                self.errors.push(broken(rule, rules, value, &place(path, &rule.field), detail));
            }
        }
        if over { Err(Over) } else { Ok(()) }
    }

    fn failed(&mut self, error: &EvalError, rule: &Rule, rules: &Rules, path: &Path<'_>) -> Result<(), Over> {
        let (text, told) = (error.to_string(), rule.told());
        if error.is_cost_limit() {
            let more = "no further validation rules will be run due to call cost exceeds limit for rule";
            self.told(rules, path, format!("'{text}': {more}: {told}"));
            return Err(Over);
        }
        if text.starts_with("no such overload") {
            let more = "call arguments did not match a supported operator, function or macro signature for rule";
            self.told(rules, path, format!("'{text}': {more}: {told}"));
        } else {
            self.told(rules, path, format!("{text} evaluating rule: {told}"));
        }
        Ok(())
    }

    /// The text of the message expression; nothing when it has none that can be shown. An error ends the run.
    fn message(
        &mut self,
        rule: &Rule,
        variables: &[(&str, reeve_cel::Value<'_>); 2],
    ) -> Result<Option<String>, String> {
        let Some(Ok(program)) = &rule.message else { return Ok(None) };
        let outcome = program.run(variables, PER_CALL_LIMIT);
        let cost = i64::try_from(outcome.cost).unwrap_or(i64::MAX);
        if cost > self.budget {
            let why = "messageExpression evaluation failed due to running out of cost budget, no further validation \
                       rules will be run";
            return Err(why.to_owned());
        }
        if outcome.result.as_ref().is_err_and(EvalError::is_cost_limit) {
            let source = text(&rule.source, "messageExpression");
            return Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {source:?}"
            ));
        }
        self.budget -= cost;
        let text = outcome.result.ok().and_then(|value| value.as_str().map(|text| text.trim().to_owned()));
        Ok(text.filter(|text| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains(['\n', '\r'])))
    }
}

fn variables<'v>(
    rule: &Rule,
    decl: &'v Decl,
    value: &'v Value,
    old: Option<&'v Value>,
) -> Result<[(&'static str, reeve_cel::Value<'v>); 2], EvalError> {
    let own = reeve_cel::Value::typed(value, decl)?;
    let before = old.map(|old| reeve_cel::Value::typed(old, decl)).transpose()?;
    let before = if flag(&rule.source, "optionalOldSelf") {
        reeve_cel::Value::Optional(before.map(Arc::new))
    } else {
        before.unwrap_or(reeve_cel::Value::Null)
    };
    Ok([("self", own), ("oldSelf", before)])
}

/// The path in a complaint, with the rule's own field behind it.
fn place(path: &Path<'_>, field: &str) -> String {
    match (path.is_root(), field.is_empty()) {
        (true, true) => "<nil>".to_owned(),
        (true, false) => field.to_owned(),
        (false, true) => path.to_string(),
        (false, false) => format!("{path}.{field}"),
    }
}

/// The complaint that a rule is broken, of the kind the rule asks for.
fn broken(rule: &Rule, rules: &Rules, value: &Value, field: &str, detail: String) -> FieldError {
    let shown = match rules.kind.as_str() {
        "object" | "array" => String::new(),
        _ => super::validate::shown(value),
    };
    let (kind, detail) = match text(&rule.source, "reason") {
        "FieldValueForbidden" => (FieldErrorKind::Forbidden, detail),
        "FieldValueRequired" => (FieldErrorKind::Required, detail),
        "FieldValueDuplicate" => (FieldErrorKind::Duplicate, String::new()),
        _ => (FieldErrorKind::Invalid, detail),
    };
    FieldError { kind, field: field.to_owned(), value: shown, detail }
}
