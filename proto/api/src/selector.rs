//! Label selectors and field selectors: reading them, printing them, matching.
//!
//! Rules and complaints are those of `k8s.io/apimachinery/pkg/labels` and `…/fields`. What is not here: which
//! fields a kind lets be selected (`reeve-kinds`).

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::Deserialize;
use serde_json::Value;

pub use crate::field_selector::{FieldSelector, FieldTerm};
use crate::names;

/// Most requirements that one selector may hold; a longer one is refused, so that matching stays cheap.
const MAX_REQUIREMENTS: usize = 1000;

/// How a requirement looks at a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value is one of those given.
    In,
    /// The label is absent or its value is none of those given.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is a whole number above the one given.
    GreaterThan,
    /// The value is a whole number below the one given.
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// Sorted, without repetitions; empty for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

/// Why a selector cannot be used. The texts are Kubernetes'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

impl Requirement {
    /// A requirement whose key and values follow the rules.
    ///
    /// # Errors
    /// When key, values or their number are not what the operator wants.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        if let Some(complaint) = names::qualified_name(key).first() {
            return Err(SelectorError(format!("<nil>: Invalid value: {}: {complaint}", Value::from(key))));
        }
        check_values(operator, &values)?;
        for (index, value) in values.iter().enumerate() {
            if let Some(complaint) = names::label_value(value).first() {
                let value = Value::from(value.as_str());
                return Err(SelectorError(format!("values[{index}][{key}]: Invalid value: {value}: {complaint}")));
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether a label of this value (or its absence) satisfies the requirement.
    #[must_use]
    pub fn accepts(&self, value: Option<&str>) -> bool {
        // Sorted when it was made: a selector of thousands of values is asked once per object and change.
        let listed = |value: &str| self.values.binary_search_by(|own| own.as_str().cmp(value)).is_ok();
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value, |value, limit| value > limit),
            Operator::LessThan => self.compare(value, |value, limit| value < limit),
        }
    }

    fn compare(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let value = value.and_then(|value| value.parse().ok());
        let limit = self.values.first().and_then(|limit| limit.parse().ok());
        matches!((value, limit), (Some(value), Some(limit)) if holds(value, limit))
    }
}

fn check_values(operator: Operator, values: &[String]) -> Result<(), SelectorError> {
    let shown = format!("{:?}", values).replace("\", \"", "\",\"");
    let complaint = match operator {
        Operator::In | Operator::NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            "values set must be empty for exists and does not exist"
        }
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
            "for 'Gt', 'Lt' operators, exactly one value is required"
        }
        Operator::GreaterThan | Operator::LessThan if values.iter().any(|value| value.parse::<i64>().is_err()) => {
            "for 'Gt', 'Lt' operators, the value must be an integer"
        }
        _ => return Ok(()),
    };
    Err(SelectorError(format!("values: Invalid value: {shown}: {complaint}")))
}

/// As in a selector's text: `a`, `!a`, `a=b`, `a!=b`, `a in (b,c)`, `a>1`.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match (self.operator, self.values.len()) {
            (Operator::Exists, _) => f.write_str(&self.key),
            (Operator::DoesNotExist, _) => write!(f, "!{}", self.key),
            (Operator::In, 1) => write!(f, "{}={values}", self.key),
            (Operator::NotIn, 1) => write!(f, "{}!={values}", self.key),
            (Operator::In, _) => write!(f, "{} in ({values})", self.key),
            (Operator::NotIn, _) => write!(f, "{} notin ({values})", self.key),
            (Operator::GreaterThan, _) => write!(f, "{}>{values}", self.key),
            (Operator::LessThan, _) => write!(f, "{}<{values}", self.key),
        }
    }
}

/// Which labels are wanted: all requirements together, or nothing at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches whatever there is.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing: what a selector that is not there means in an object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the text form, `a=b,c in (d,e),!f`. An empty text matches everything.
    ///
    /// # Errors
    /// When the text does not follow the grammar, or a key or value its rules.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = crate::label_parser::parse(text)?;
        if requirements.len() > MAX_REQUIREMENTS {
            return Err(SelectorError(format!("must have at most {MAX_REQUIREMENTS} requirements")));
        }
        Ok(Self { requirements, nothing: false })
    }

    /// From equalities: `spec.selector` of a Service, `nodeSelector` of a pod.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        Self { requirements: labels.iter().map(requirement).collect(), nothing: false }
    }

    /// From the object form; `None` matches nothing, an empty object everything.
    ///
    /// # Errors
    /// When an operator is unknown or a key or value breaks the rules.
    pub fn from_object(selector: Option<&meta::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::In, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = operator_of(&expression.operator)?;
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// As [`LabelSelector::from_object`], from JSON; null or a missing value matches nothing.
    ///
    /// # Errors
    /// When the value has not the form of a label selector, or as [`LabelSelector::from_object`].
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        let selector =
            Option::<meta::LabelSelector>::deserialize(selector).map_err(|error| SelectorError(error.to_string()))?;
        Self::from_object(selector.as_ref())
    }

    /// Whether the labels are wanted.
    #[must_use]
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_with(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
    }

    /// Whether the labels, a JSON object of texts (or null), are wanted.
    #[must_use]
    pub fn matches_value(&self, labels: &Value) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Value::as_str))
    }

    /// Whether the labels are wanted, given how to look one up.
    pub fn matches_with<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.accepts(label(&requirement.key)))
    }

    /// Whether nothing is asked for, so that everything matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether nothing can match because no selector was given.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The conditions, all of which must hold.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

fn operator_of(text: &str) -> Result<Operator, SelectorError> {
    match text {
        "In" => Ok(Operator::In),
        "NotIn" => Ok(Operator::NotIn),
        "Exists" => Ok(Operator::Exists),
        "DoesNotExist" => Ok(Operator::DoesNotExist),
        _ => Err(SelectorError(format!("{} is not a valid label selector operator", Value::from(text)))),
    }
}

/// The text form; a selector that matches nothing prints as Kubernetes prints it, empty.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(selector: &str, labels: &Value, matches: bool) {
        let parsed = LabelSelector::parse(selector).expect(selector);
        assert_eq!(parsed.matches_value(labels), matches, "{selector} on {labels}");
    }

    #[test]
    fn a_text_selector_matches_what_kubernetes_matches() {
        let labels = json!({"app": "web", "tier": "front", "n": "5", "empty": ""});
        for (selector, matches) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("absent!=db", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("absent notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!absent", true),
            ("n>4", true),
            ("n<5", false),
            ("empty=", true),
            ("empty in (,x)", true),
            ("app = web , tier in (front)", true),
            ("in in (x)", false),
        ] {
            check(selector, &labels, matches);
        }
    }

    #[test]
    fn a_malformed_selector_is_refused_in_kubernetes_words() {
        for (selector, error) in [
            ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
            ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("app=web,", "found '', expected: identifier after ','"),
            ("=web", "found '=', expected: !, identifier, or 'end of string'"),
            ("app=a=b", "found '=', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(selector).expect_err(selector).to_string(), error, "{selector}");
        }
        let error = LabelSelector::parse("app=-x").unwrap_err().to_string();
        assert!(
            error.starts_with(
                "unable to parse requirement: values[0][app]: Invalid value: \"-x\": a valid label must be"
            ),
            "{error}"
        );
    }

    #[test]
    fn the_object_form_combines_labels_and_expressions() {
        let selector = LabelSelector::from_value(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}, {"key": "x", "operator": "Exists"}],
        }))
        .unwrap();
        assert_eq!(selector.to_string(), "app=web,tier!=back,x");
        assert!(selector.matches_value(&json!({"app": "web", "x": ""})));
        assert!(!selector.matches_value(&json!({"app": "web", "x": "", "tier": "back"})));
        assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches_value(&json!({})));
        assert!(LabelSelector::from_value(&json!({})).unwrap().matches_value(&json!({})));
        let error =
            LabelSelector::from_value(&json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})).unwrap_err();
        assert_eq!(error.to_string(), "\"Is\" is not a valid label selector operator");
    }

    #[test]
    fn a_selector_prints_as_it_is_parsed() {
        for text in ["a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a>1", "a<1,b=c"] {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), text);
        }
    }
}
