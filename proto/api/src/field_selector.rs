//! Field selectors, `spec.nodeName=n1,status.phase!=Failed`. Reached through `selector`.

use std::fmt;

use crate::selector::SelectorError;

/// Most terms one field selector may hold.
const MAX_TERMS: usize = 100;

/// One comparison of one field with a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    /// Dotted path, `metadata.name`.
    pub field: String,
    /// The wanted value, or the unwanted.
    pub value: String,
    /// Whether the field must differ.
    pub negated: bool,
}

/// Which fields must have (or not have) which values; all terms together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Matches whatever there is.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Reads the text form. In values `\`, `,` and `=` are written with a backslash before them.
    ///
    /// # Errors
    /// When a term is no comparison or an escape is malformed.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let term = parse_term(part)
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            terms.push(FieldTerm { value: unescape(term.1)?, field: term.0.to_owned(), negated: term.2 });
            if terms.len() > MAX_TERMS {
                return Err(SelectorError(format!("must have at most {MAX_TERMS} terms")));
            }
        }
        Ok(Self { terms })
    }

    /// The terms about these fields, and the others.
    #[must_use]
    pub fn split(self, is_first: impl Fn(&str) -> bool) -> (Self, Self) {
        let (first, other) = self.terms.into_iter().partition(|term| is_first(&term.field));
        (Self { terms: first }, Self { terms: other })
    }

    /// The terms, all of which must hold.
    #[must_use]
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether nothing is asked for, so that everything matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the object is wanted, given how to read a field; a field that is not there counts as empty.
    pub fn matches_with(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or_default() == term.value) != term.negated)
    }

    /// The one value the field must have, if the selector demands one.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.field == field && !term.negated).map(|term| term.value.as_str())
    }
}

/// The text form.
impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.negated { "!=" } else { "=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

/// Cuts at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Field, value (still escaped) and whether it is a `!=`.
fn parse_term(text: &str) -> Option<(&str, &str, bool)> {
    for (index, _) in text.char_indices() {
        let rest = &text[index..];
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&text[..index], value, negated));
            }
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                other => {
                    let sequence = other.map_or_else(|| "\\".to_owned(), |other| format!("\\{other}"));
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {c}")));
            }
            _ => value.push(c),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors_match_and_print_as_kubernetes_does() {
        let selector = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed,,a==b\\,c").unwrap();
        assert_eq!(selector.to_string(), "spec.nodeName=n1,status.phase!=Failed,a=b\\,c");
        assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
        assert_eq!(selector.exact("status.phase"), None);
        let field = |name: &str| match name {
            "spec.nodeName" => Some("n1".to_owned()),
            "a" => Some("b,c".to_owned()),
            _ => None,
        };
        assert!(selector.matches_with(field));
        assert!(!FieldSelector::parse("spec.nodeName!=n1").unwrap().matches_with(field));
        assert!(FieldSelector::parse("").unwrap().is_everything());
    }

    #[test]
    fn malformed_field_selectors_are_refused_in_kubernetes_words() {
        for (text, error) in [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("a=b=c", "invalid field selector: unescaped character in value: ="),
            ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), error);
        }
    }
}
