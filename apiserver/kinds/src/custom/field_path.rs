//! Paths into a schema: `.spec.foo`, `.spec['a-map-key']` (`ValidFieldPath` of `pkg/apiserver/schema/cel`).

use serde_json::Value;

use crate::json::get;

/// A path that leads somewhere.
pub(crate) struct Resolved<'s> {
    /// As Kubernetes prints it, without the first dot.
    pub(crate) path: String,
    /// The first step.
    pub(crate) first: String,
    /// The schema of what is there.
    pub(crate) schema: &'s Value,
}

/// Follows a path; the error says what is wrong with it. `brackets`: whether map keys may stand in brackets.
pub(crate) fn resolve<'s>(path: &str, schema: &'s Value, brackets: bool) -> Result<Resolved<'s>, String> {
    let mut found = Resolved { path: String::new(), first: String::new(), schema };
    let mut rest = path;
    while let Some(token) = take(&mut rest) {
        let mut next = || take(&mut rest).ok_or_else(|| "unexpected end of JSON path".to_owned());
        match token {
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = next()?;
                let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let Some(inner) = inner.filter(|_| quoted.len() > 1) else {
                    return Err(format!("expected single quoted string but got {quoted}"));
                };
                found.step(&unescape(inner)?)?;
                let close = next()?;
                if close != "]" {
                    return Err(format!("expected ] but got {close}"));
                }
            }
            "." => found.step(next()?)?,
            other => return Err(format!("expected [ or . but got: {other}")),
        }
    }
    Ok(found)
}

impl Resolved<'_> {
    fn step(&mut self, name: &str) -> Result<(), String> {
        let invalid = || "does not refer to a valid field".to_owned();
        let (properties, additional) = (get(self.schema, "properties"), get(self.schema, "additionalProperties"));
        if properties.is_object() {
            self.schema = Some(get(properties, name)).filter(|schema| !schema.is_null()).ok_or_else(invalid)?;
            let dot = if self.path.is_empty() { "" } else { "." };
            self.path.push_str(&format!("{dot}{name}"));
        } else if additional.is_object() {
            self.schema = additional;
            self.path.push_str(&format!("[{name}]"));
        } else {
            return Err(invalid());
        }
        if self.first.is_empty() {
            name.clone_into(&mut self.first);
        }
        Ok(())
    }
}

/// The next delimiter, quoted text or name.
fn take<'p>(rest: &mut &'p str) -> Option<&'p str> {
    let length = match rest.bytes().next()? {
        b'.' | b'[' | b']' => 1,
        b'\'' => {
            let bytes = rest.as_bytes();
            (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\').map_or(rest.len(), |at| at + 1)
        }
        _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
    };
    let (token, after) = rest.split_at(length);
    *rest = after;
    Some(token)
}

fn unescape(text: &str) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some(escaped @ ('\\' | '\'')) => out.push(escaped),
                _ => return Err("invalid string literal: invalid escape sequence".to_owned()),
            },
            (c, false) => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_fields_and_map_values() {
        let schema = json!({"properties": {"spec": {"properties": {"m": {"additionalProperties": {"type": "string"}},
            "a.b": {"type": "integer"}}}}});
        let told = |path: &str| resolve(path, &schema, true).map(|found| found.path).unwrap_or_else(|error| error);
        assert_eq!(told(".spec.m['x.y']"), "spec.m[x.y]");
        assert_eq!(told(".spec['a.b']"), "spec.a.b");
        assert_eq!(told(".spec.none"), "does not refer to a valid field");
        assert_eq!(told("spec"), "expected [ or . but got: spec");
        assert_eq!(told(".spec[x]"), "expected single quoted string but got x");
        let error = resolve(".spec['a']", &schema, false).err();
        assert_eq!(error.as_deref(), Some("array notation is not allowed"));
    }
}
