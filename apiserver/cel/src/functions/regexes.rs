//! Patterns: `matches`, `find`, `findAll`. Patterns are Go's; they are put in the words of our engine.

use regex::{Regex, RegexBuilder};

use crate::error::EvalError;
use crate::meter::Meter;
use crate::value::Value;

/// Most memory a compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Deepest nesting of groups (Go's limit).
const NESTING_MAX: u32 = 1000;

/// Compiles a pattern of Go's `regexp`.
///
/// # Errors
/// When it is no pattern, in Go's words as far as they are alike.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if let Some(twice) = repeated_twice(pattern) {
        return Err(format!("error parsing regexp: invalid nested repetition operator: `{twice}`"));
    }
    let translated = translate(pattern);
    let built = RegexBuilder::new(&translated)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build();
    built.map_err(|error| format!("error parsing regexp: {}", reason(&error, pattern)))
}

fn reason(error: &regex::Error, pattern: &str) -> String {
    let text = error.to_string();
    let known = [
        ("unclosed character class", "missing closing ]"),
        ("unclosed group", "missing closing )"),
        ("unopened group", "unexpected )"),
        ("repetition operator missing expression", "missing argument to repetition operator"),
        ("unrecognized escape sequence", "invalid escape sequence"),
        ("look-around", "invalid or unsupported Perl syntax"),
        ("backreferences are not supported", "invalid escape sequence"),
        ("incomplete escape sequence", "trailing backslash at end of expression"),
        ("invalid character class range", "invalid character class range"),
        ("size limit", "expression too large"),
        ("nest", "expression nests too deeply"),
    ];
    let said = known.iter().find(|(ours, _)| text.contains(ours)).map(|(_, go)| *go);
    match said {
        Some("trailing backslash at end of expression") => "trailing backslash at end of expression: ``".to_owned(),
        Some(said) => format!("{said}: `{pattern}`"),
        None => format!("invalid expression: `{pattern}`"),
    }
}

/// In Go `\d`, `\w`, `\s` and `\b` know ASCII only, braces that are no repetition are plain, `\Q…\E` quotes, and
/// classes know no operations.
fn translate(pattern: &str) -> String {
    let mut result = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(letter) = rest.chars().next() {
        let after = rest.get(letter.len_utf8()..).unwrap_or_default();
        rest = match letter {
            '\\' => escaped(after, in_class, &mut result),
            '[' if in_class => match after.strip_prefix(':').and_then(|inner| inner.split_once(":]")) {
                Some((name, tail)) if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'^') => {
                    result.push_str("[:");
                    result.push_str(name);
                    result.push_str(":]");
                    tail
                }
                _ => {
                    result.push_str("\\[");
                    after
                }
            },
            '[' => {
                in_class = true;
                result.push('[');
                class_start(after, &mut result)
            }
            ']' => {
                in_class = false;
                result.push(']');
                after
            }
            '&' | '~' if in_class => {
                result.push('\\');
                result.push(letter);
                after
            }
            '{' if !in_class && !is_repetition(after) => {
                result.push_str("\\{");
                after
            }
            _ => {
                result.push(letter);
                after
            }
        };
    }
    result
}

/// Two repetitions in a row, which Go refuses: `**`, `a{2}+`; a `?` after one is none.
fn repeated_twice(pattern: &str) -> Option<&str> {
    let bytes = pattern.as_bytes();
    let (mut at, mut in_class, mut repeated) = (0, false, None::<usize>);
    while let Some(byte) = bytes.get(at) {
        let start = at;
        let is_brace = *byte == b'{' && is_repetition(pattern.get(at + 1..).unwrap_or_default());
        at += match byte {
            b'\\' => 2,
            b'{' if is_brace => pattern.get(at..).and_then(|rest| rest.find('}')).map_or(1, |end| end + 1),
            _ => 1,
        };
        let operator = !in_class && (matches!(byte, b'*' | b'+' | b'?') || is_brace);
        match (operator, repeated) {
            (true, Some(before)) => return pattern.get(before..at),
            (true, None) if start > 0 && !matches!(bytes.get(start - 1), Some(b'(' | b'|')) => {
                at += usize::from(bytes.get(at) == Some(&b'?'));
                repeated = Some(start);
            }
            _ => {
                repeated = None;
                in_class = match byte {
                    b'[' if !in_class => {
                        // A `]` right after the opening is itself.
                        at += usize::from(bytes.get(at) == Some(&b'^'));
                        at += usize::from(bytes.get(at) == Some(&b']'));
                        true
                    }
                    b']' => false,
                    _ => in_class,
                };
            }
        }
    }
    None
}

/// `^` and a first `]` right after the opening of a class.
fn class_start<'p>(after: &'p str, result: &mut String) -> &'p str {
    let mut rest = after;
    if let Some(tail) = rest.strip_prefix('^') {
        result.push('^');
        rest = tail;
    }
    if let Some(tail) = rest.strip_prefix(']') {
        result.push_str("\\]");
        rest = tail;
    }
    rest
}

fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (low, high) = inside.split_once(',').unwrap_or((inside, "0"));
    !low.is_empty() && low.bytes().chain(high.bytes()).all(|byte| byte.is_ascii_digit())
}

fn escaped<'p>(after: &'p str, in_class: bool, result: &mut String) -> &'p str {
    let Some(letter) = after.chars().next() else {
        result.push('\\');
        return after;
    };
    let tail = after.get(letter.len_utf8()..).unwrap_or_default();
    let class = |inner: &str, negated: bool| match (in_class, negated) {
        (true, false) => inner.to_owned(),
        (_, true) => format!("[^{inner}]"),
        (false, false) => format!("[{inner}]"),
    };
    match letter {
        'd' => result.push_str(&class("0-9", false)),
        'D' => result.push_str(&class("0-9", true)),
        'w' => result.push_str(&class("0-9A-Za-z_", false)),
        'W' => result.push_str(&class("0-9A-Za-z_", true)),
        's' => result.push_str(&class("\\t\\n\\x0C\\r ", false)),
        'S' => result.push_str(&class("\\t\\n\\x0C\\r ", true)),
        'b' if !in_class => result.push_str("(?-u:\\b)"),
        'B' if !in_class => result.push_str("(?-u:\\B)"),
        'Q' => {
            let (quoted, tail) = tail.split_once("\\E").unwrap_or((tail, ""));
            result.push_str(&regex::escape(quoted));
            return tail;
        }
        letter if letter.is_ascii_punctuation() => result.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4]))),
        letter => {
            result.push('\\');
            result.push(letter);
        }
    }
    tail
}

/// Compiles a pattern that is known only now. That is expensive, and its price is small.
pub(crate) fn compile_now(meter: &mut Meter, pattern: &str) -> Result<Regex, String> {
    if meter.work(100_000 + pattern.len() as u64 * 2_000).is_err() {
        return Err("expression too large".to_owned());
    }
    compile(pattern)
}

/// What a call on a compiled pattern does.
pub(crate) fn call<'v>(
    meter: &mut Meter,
    function: &str,
    pattern: &Regex,
    args: &[Value<'v>],
) -> Result<Value<'v>, EvalError> {
    let (text, limit) = match args {
        [Value::String(text), Value::String(_)] => (text, -1),
        [Value::String(text), Value::String(_), Value::Int(limit)] => (text, *limit),
        _ => return Err(EvalError::no_such_overload()),
    };
    meter.work(text.len() as u64)?;
    let found = |found: regex::Match<'_>| Value::text(found.as_str());
    Ok(match function {
        "matches" => Value::Bool(pattern.is_match(text)),
        "find" => pattern.find(text).map_or_else(|| Value::text(""), found),
        _ => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut all = Vec::new();
            for one in pattern.find_iter(text).take(limit) {
                meter.make(all.len().saturating_mul(32))?;
                all.push(found(one));
            }
            Value::list(all)
        }
    })
}

/// The same with a pattern that is known only now.
pub(crate) fn call_now<'v>(meter: &mut Meter, function: &str, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    let Some(Value::String(pattern)) = args.get(1) else { return Err(EvalError::no_such_overload()) };
    let pattern = compile_now(meter, pattern).map_err(|error| match function {
        "matches" => EvalError::message(error),
        _ => EvalError::message(format!("Illegal regex: {error}")),
    })?;
    call(meter, function, &pattern, args)
}
