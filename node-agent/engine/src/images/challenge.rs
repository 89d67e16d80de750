//! What a server that wants to know who asks has to say: `WWW-Authenticate`. Pure.
//!
//! Source: RFC 9110, 11.6.1.

use std::collections::BTreeMap;

/// One way to say who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// `basic`, `bearer`; in lower case.
    pub(super) scheme: String,
    /// By name in lower case.
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter's value.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// The challenges in one header. What cannot be read ends them.
pub(super) fn challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        match (after.trim_start().strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = self::value(value.trim_start());
                challenge.parameters.insert(word.to_lowercase(), value);
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Challenge { scheme: word.to_lowercase(), parameters: BTreeMap::new() });
                rest = after;
            }
        }
    }
}

/// A word, or a text in quotation marks; and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return (word.to_owned(), rest);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                escaped = false;
                value.push(c);
            }
            '\\' => escaped = true,
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            _ => value.push(c),
        }
    }
    (value, "")
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scheme name=value name=value`
    fn shown(text: &str) -> Vec<String> {
        let one = |own: Challenge| {
            let parameters = own.parameters.iter().map(|(name, value)| format!(" {name}={value}"));
            format!("{}{}", own.scheme, parameters.collect::<String>())
        };
        challenges(text).into_iter().map(one).collect()
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (text, expected) in [
            (r#"Bearer realm="https://a/t",service="s, \"t\"""#, &[r#"bearer realm=https://a/t service=s, "t""#][..]),
            (r#"Basic realm="x""#, &["basic realm=x"]),
            (r#"BASIC Realm = x , Bearer realm=y,scope="a b""#, &["basic realm=x", "bearer realm=y scope=a b"]),
            ("Negotiate, Basic realm=\"x\"", &["negotiate", "basic realm=x"]),
            (r#"Bearer realm="no end"#, &["bearer realm=no end"]),
            ("realm=x", &[]),
            ("", &[]),
            ("\u{1b}[31m", &[]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
