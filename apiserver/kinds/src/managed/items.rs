//! The items of a merged list and by what they are told apart; complaints about values that do not fit the schema.

use serde_json::Value;

use super::element::PathElement;
use super::schema::{ListKind, MergeKey};

/// What does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The path as it stands in messages; empty for the whole object.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// All that does not fit its schema; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfits(pub Vec<Misfit>);

impl std::fmt::Display for Misfits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |misfit: &Misfit| match misfit.path.as_str() {
            "" => misfit.message.clone(),
            path => format!("{path}: {}", misfit.message),
        };
        match self.0.as_slice() {
            [only] => f.write_str(&text(only)),
            all => {
                f.write_str("errors:")?;
                all.iter().try_for_each(|misfit| write!(f, "\n  {}", text(misfit)))
            }
        }
    }
}

/// Complaints that are being collected.
#[derive(Debug, Default)]
pub(super) struct Complaints(Vec<Misfit>);

impl Complaints {
    pub(super) fn add(&mut self, message: impl Into<String>) {
        self.0.push(Misfit { path: String::new(), message: message.into() });
    }

    /// Where the complaints that follow will belong under an element: to be given to [`Complaints::under`].
    pub(super) fn mark(&self) -> usize {
        self.0.len()
    }

    /// Puts what was complained about since the mark under an element.
    pub(super) fn under(&mut self, mark: usize, element: &dyn std::fmt::Display) {
        for misfit in &mut self.0[mark..] {
            misfit.path = format!("{element}{}", misfit.path);
        }
    }

    pub(super) fn finish(self) -> Result<(), Misfits> {
        if self.0.is_empty() { Ok(()) } else { Err(Misfits(self.0)) }
    }
}

/// By what an item of a merged list is known.
pub(super) fn element_of(kind: ListKind<'_>, item: &Value) -> Result<PathElement, String> {
    match kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListKind::Keyed(keys) => keyed(keys, item),
        ListKind::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            plain => Ok(PathElement::Value(plain.clone())),
        },
    }
}

fn keyed(keys: &[MergeKey], item: &Value) -> Result<PathElement, String> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let found: Vec<_> = keys
        .iter()
        .filter_map(|key| {
            let value = fields.get(key.name.as_ref()).or(key.default.as_ref())?;
            Some((key.name.clone().into_owned(), value.clone()))
        })
        .collect();
    if found.is_empty() && !keys.is_empty() {
        let names: Vec<String> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            names.join(" ")
        ));
    }
    Ok(PathElement::key(found))
}
