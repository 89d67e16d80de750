//! Versions by semver.org: `semver("1.2.3").isLessThan(…)`.

use std::cmp::Ordering;
use std::sync::Arc;

use super::quantity::order;
use crate::error::EvalError;
use crate::meter::Meter;
use crate::opaque::{Inner, Opaque};
use crate::value::Value;

type Called<'v> = Result<Value<'v>, EvalError>;

/// A version; build metadata is checked and then of no account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Semver {
    numbers: [u64; 3],
    pre: Vec<Identifier>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        // A version before a release is less than the release.
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Semver {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts.as_slice() else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let (rest, build) = rest.split_once('+').map_or((*rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let numbers = [number("Major", major)?, number("Minor", minor)?, number("Patch", patch)?];
        let pre = pre.map_or(Ok(Vec::new()), |pre| pre.split('.').map(identifier).collect())?;
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".to_owned());
            }
            if !part.bytes().all(is_word) {
                return Err(format!("Invalid character(s) found in build meta data {part:?}"));
            }
        }
        Ok(Self { numbers, pre })
    }

    /// `v1.2` and `01.2.3` as well: a leading `v`, leading zeros and missing parts do not matter.
    fn parse_normalized(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
        for part in parts.iter_mut().filter(|part| part.len() > 1) {
            let trimmed = part.trim_start_matches('0');
            let digit = trimmed.starts_with(|letter: char| letter.is_ascii_digit());
            *part = if digit { trimmed.to_owned() } else { format!("0{trimmed}") };
        }
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err("short version cannot contain PreRelease/Build meta data".to_owned());
            }
            parts.resize(3, "0".to_owned());
        }
        Self::parse(&parts.join("."))
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {} number {text:?}", name.to_lowercase()));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

fn identifier(text: &str) -> Result<Identifier, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        let number = text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))?;
        return Ok(Identifier::Number(number));
    }
    if text.bytes().all(is_word) {
        return Ok(Identifier::Word(text.to_owned()));
    }
    Err(format!("Invalid character(s) found in prerelease {text:?}"))
}

fn read(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Ok(Semver::parse(text)),
        [Value::String(text), Value::Bool(true)] => Ok(Semver::parse_normalized(text)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn semver<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let version = read(args)?.map_err(EvalError::message)?;
    Ok(Value::Opaque(Opaque(Inner::Semver(Arc::new(version)))))
}

pub(crate) fn is_semver<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    Ok(Value::Bool(read(args)?.is_ok()))
}

/// What is asked of one version, or of two.
pub(crate) fn ask<'v>(function: &str, args: &[Value<'v>]) -> Called<'v> {
    let part = |version: &Semver, index: usize| {
        Value::Int(i64::try_from(version.numbers.get(index).copied().unwrap_or_default()).unwrap_or(i64::MAX))
    };
    match args {
        [Value::Opaque(Opaque(Inner::Semver(version)))] => match function {
            "major" => Ok(part(version, 0)),
            "minor" => Ok(part(version, 1)),
            "patch" => Ok(part(version, 2)),
            _ => Err(EvalError::no_such_overload()),
        },
        [Value::Opaque(Opaque(Inner::Semver(one))), Value::Opaque(Opaque(Inner::Semver(other)))] => match function {
            "isGreaterThan" => Ok(Value::Bool(one > other)),
            "isLessThan" => Ok(Value::Bool(one < other)),
            "compareTo" => Ok(Value::Int(order(one.cmp(other)))),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}
