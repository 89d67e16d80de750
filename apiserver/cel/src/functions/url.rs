//! URLs: `url("https://host:80/path?query")` and its parts, read as Go's `net/url` reads a request's URI.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::EvalError;
use crate::meter::Meter;
use crate::opaque::{Inner, Opaque};
use crate::value::{Key, Map, Value};

type Called<'v> = Result<Value<'v>, EvalError>;

/// The parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Reads an absolute URL or an absolute path.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return bad("net/url: invalid control character in URL");
        }
        if text.is_empty() {
            return bad("empty url");
        }
        let (scheme, rest) = match scheme_of(text) {
            Ok(parts) => parts,
            Err(why) => return bad(why),
        };
        let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !before_query.starts_with('/') {
            return match scheme.is_empty() {
                true => bad("invalid URI for request"),
                // `mailto:someone` has no host and no path.
                false => Ok(Self {
                    text: text.to_owned(),
                    scheme: scheme.to_ascii_lowercase(),
                    host: String::new(),
                    path: String::new(),
                    query: query.split('#').next().unwrap_or_default().to_owned(),
                }),
            };
        }
        let (host, path) = match before_query.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            Some(authority) => match authority.find('/') {
                Some(end) => authority.split_at(end),
                None => (authority, ""),
            },
            None => ("", before_query),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if let Some(why) = wrong_host(host).or_else(|| wrong_escape(path)) {
            return bad(&why);
        }
        // A fragment is no part of a request's URI, but read apart once the whole is known to be one.
        let path = path.split('#').next().unwrap_or_default();
        Ok(Self {
            text: text.to_owned(),
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            path: escaped_path(path),
            query: query.split('#').next().unwrap_or_default().to_owned(),
        })
    }

    fn hostname_and_port(&self) -> (&str, &str) {
        let host = self.host.as_str();
        if let Some(rest) = host.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').unwrap_or((rest, ""));
            return (inside, after.strip_prefix(':').unwrap_or_default());
        }
        host.rsplit_once(':').unwrap_or((host, ""))
    }

    fn query_values(&self) -> BTreeMap<String, Vec<String>> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescape(key), unescape(value)) {
                values.entry(key).or_default().push(value);
            }
        }
        values
    }
}

fn scheme_of(text: &str) -> Result<(&str, &str), &'static str> {
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if index > 0 => {}
            b':' if index == 0 => return Err("missing protocol scheme"),
            b':' => {
                let (scheme, rest) = text.split_at(index);
                return Ok((scheme, rest.get(1..).unwrap_or_default()));
            }
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn wrong_host(host: &str) -> Option<String> {
    if host.starts_with('[') {
        let Some((_, after)) = host.split_once(']') else { return Some("missing ']' in host".to_owned()) };
        return wrong_port(after);
    }
    if let Some(at) = host.rfind(':')
        && let Some(why) = wrong_port(host.get(at..).unwrap_or_default())
    {
        return Some(why);
    }
    let bad = host.chars().find(|letter| " \"<>\\^`{|}".contains(*letter));
    bad.map(|letter| format!("invalid character {:?} in host name", letter.to_string()))
}

fn wrong_port(port: &str) -> Option<String> {
    let digits = port.strip_prefix(':');
    let good = port.is_empty() || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    (!good).then(|| format!("invalid port {port:?} after host"))
}

fn wrong_escape(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let sequence: String = rest.chars().skip(rest.get(..at)?.chars().count()).take(3).collect();
        let hex = sequence.len() == 3 && sequence.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit());
        if !hex {
            return Some(format!("invalid URL escape {sequence:?}"));
        }
        rest = rest.get(at + 3..)?;
    }
    None
}

/// The path with everything escaped that a path must not hold.
fn escaped_path(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
            }
            byte => bytes.push(*byte),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn url<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(text)] = args else { return Err(EvalError::no_such_overload()) };
    match Url::parse(text) {
        Ok(url) => Ok(Value::Opaque(Opaque(Inner::Url(Arc::new(url))))),
        Err(error) => Err(EvalError::message(format!("URL parse error during conversion from string: {error}"))),
    }
}

pub(crate) fn is_url<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(text)] = args else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Bool(Url::parse(text).is_ok()))
}

/// A part of a URL.
pub(crate) fn ask<'v>(function: &str, args: &[Value<'v>]) -> Called<'v> {
    let [Value::Opaque(Opaque(Inner::Url(url)))] = args else { return Err(EvalError::no_such_overload()) };
    let text = match function {
        "getScheme" => &url.scheme,
        "getHost" => &url.host,
        "getHostname" => url.hostname_and_port().0,
        "getPort" => url.hostname_and_port().1,
        "getEscapedPath" => &url.path,
        _ => {
            let entries = url.query_values().into_iter().map(|(key, values)| {
                let values = values.iter().map(|value| Value::text(value)).collect();
                (Key::String(key.as_str().into()), (Value::text(&key), Value::list(values)))
            });
            return Ok(Value::Map(Map::new(entries.collect())));
        }
    };
    Ok(Value::text(text))
}
