//! Texts: `charAt`, `indexOf`, `replace`, `split`, `substring`, `trim`, `join`, `strings.quote`, …
//!
//! Positions are counted in code points.

use crate::error::EvalError;
use crate::meter::Meter;
use crate::value::{List, Text, Value, count};

type Called<'v> = Result<Value<'v>, EvalError>;

fn out_of_range<T>(index: i64) -> Result<T, EvalError> {
    Err(EvalError::message(format!("index out of range: {index}")))
}

/// Where code point `index` starts; the end of the text for the one after the last.
fn position(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    if text.is_ascii() {
        return (index <= text.len()).then_some(index);
    }
    let ends = std::iter::once(text.len());
    text.char_indices().map(|(at, _)| at).chain(ends).nth(index)
}

/// A part of `of` without copying when it is borrowed.
fn part<'v>(of: &Text<'v>, from: usize, to: usize) -> Value<'v> {
    match of {
        Text::Borrowed(text) => Value::String(Text::Borrowed(text.get(from..to).unwrap_or_default())),
        Text::Shared(text) => Value::text(text.get(from..to).unwrap_or_default()),
    }
}

pub(crate) fn char_at<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(text), Value::Int(index)] = args else { return Err(EvalError::no_such_overload()) };
    let Some(at) = position(text, *index) else { return out_of_range(*index) };
    let letter = text.get(at..).and_then(|rest| rest.chars().next());
    Ok(part(text, at, at + letter.map_or(0, char::len_utf8)))
}

/// `text.indexOf(part)`, `text.indexOf(part, from)`
pub(crate) fn index_of<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (text, wanted, from) = match args {
        [Value::String(text), Value::String(wanted)] => (text, wanted, 0),
        [Value::String(text), Value::String(wanted), Value::Int(from)] => (text, wanted, *from),
        _ => return super::lists::index_of(meter, args),
    };
    if wanted.is_empty() {
        return Ok(Value::Int(from));
    }
    if from < 0 {
        return out_of_range(from);
    }
    meter.work(text.len() as u64)?;
    let Some(start) = position(text, from) else { return Ok(Value::Int(-1)) };
    let found = text.get(start..).and_then(|rest| rest.find(&**wanted));
    Ok(Value::Int(match found {
        Some(at) => letters(text.get(..start + at).unwrap_or_default()),
        None => -1,
    }))
}

fn letters(text: &str) -> i64 {
    i64::try_from(count(text)).unwrap_or(i64::MAX)
}

/// `text.lastIndexOf(part)`, `text.lastIndexOf(part, from)`
pub(crate) fn last_index_of<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (text, wanted, from) = match args {
        [Value::String(text), Value::String(wanted)] => (text, wanted, None),
        [Value::String(text), Value::String(wanted), Value::Int(from)] => (text, wanted, Some(*from)),
        _ => return super::lists::last_index_of(meter, args),
    };
    meter.work(text.len() as u64)?;
    if wanted.is_empty() {
        return Ok(Value::Int(from.unwrap_or_else(|| letters(text))));
    }
    let last = match from {
        None => text.len(),
        Some(from) if from < 0 => return out_of_range(from),
        Some(from) => match position(text, from).filter(|start| *start < text.len()) {
            Some(start) => start,
            None => return Ok(Value::Int(-1)),
        },
    };
    let mut starts = text.char_indices().map(|(at, _)| at).rev().filter(|at| *at <= last);
    let found = starts.find(|at| text.get(*at..).is_some_and(|rest| rest.starts_with(&**wanted)));
    Ok(Value::Int(found.map_or(-1, |at| letters(text.get(..at).unwrap_or_default()))))
}

fn changed<'v>(meter: &mut Meter, args: &[Value<'v>], change: impl Fn(&str) -> String) -> Called<'v> {
    let [Value::String(text)] = args else { return Err(EvalError::no_such_overload()) };
    meter.work(text.len() as u64)?;
    Ok(Value::text(&change(text)))
}

pub(crate) fn lower<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    changed(meter, args, str::to_ascii_lowercase)
}

pub(crate) fn upper<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    changed(meter, args, str::to_ascii_uppercase)
}

pub(crate) fn trim<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(text)] = args else { return Err(EvalError::no_such_overload()) };
    let start = text.len() - text.trim_start().len();
    Ok(part(text, start, start + text.trim().len()))
}

/// `text.replace(old, new)`, `text.replace(old, new, count)`
pub(crate) fn replace<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (text, old, new, limit) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => (text, old, new, *limit),
        _ => return Err(EvalError::no_such_overload()),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let times = text.matches(&**old).take(limit).count();
    let removed = times.saturating_mul(old.len());
    meter.make((text.len() - removed.min(text.len())).saturating_add(times.saturating_mul(new.len())))?;
    Ok(Value::text(&text.replacen(&**old, new, limit)))
}

/// `text.split(separator)`, `text.split(separator, count)`
pub(crate) fn split<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return Err(EvalError::no_such_overload()),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    meter.work(text.len() as u64)?;
    let mut cuts = Vec::new();
    let mut start = 0;
    if separator.is_empty() {
        let starts = text.char_indices().map(|(at, _)| at).take(limit);
        for at in starts.skip(1) {
            cuts.push((start, at));
            start = at;
        }
        if text.is_empty() {
            return Ok(Value::list(Vec::new()));
        }
    } else {
        for (at, found) in text.match_indices(&**separator).take(limit - 1) {
            cuts.push((start, at));
            start = at + found.len();
        }
    }
    cuts.push((start, text.len()));
    meter.work(cuts.len() as u64 * 32)?;
    Ok(Value::list(cuts.into_iter().map(|(from, to)| part(text, from, to)).collect()))
}

/// `text.substring(from)`, `text.substring(from, to)`
pub(crate) fn substring<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (text, from, to) = match args {
        [Value::String(text), Value::Int(from)] => (text, *from, None),
        [Value::String(text), Value::Int(from), Value::Int(to)] => (text, *from, Some(*to)),
        _ => return Err(EvalError::no_such_overload()),
    };
    meter.work(text.len() as u64)?;
    if let Some(to) = to.filter(|to| from > *to) {
        return Err(EvalError::message(format!("invalid substring range. start: {from}, end: {to}")));
    }
    let Some(start) = position(text, from) else { return out_of_range(from) };
    let end = match to {
        None => text.len(),
        Some(to) => match position(text, to) {
            Some(end) => end,
            None => return out_of_range(to),
        },
    };
    Ok(part(text, start, end))
}

/// `list.join()`, `list.join(separator)`
pub(crate) fn join<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (list, separator): (&List<'v>, &str) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, separator),
        _ => return Err(EvalError::no_such_overload()),
    };
    let mut joined = String::new();
    for (index, element) in list.iter().enumerate() {
        let element = element?;
        let Value::String(text) = &element else {
            return Err(EvalError::message(format!("join: invalid input: {}", element.shown())));
        };
        meter.make(joined.len() + separator.len() + text.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Value::text(&joined))
}

pub(crate) fn quote<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    changed(meter, args, |text| {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for letter in text.chars() {
            match letter {
                '\u{7}' => quoted.push_str("\\a"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{c}' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{b}' => quoted.push_str("\\v"),
                '\\' => quoted.push_str("\\\\"),
                '"' => quoted.push_str("\\\""),
                letter => quoted.push(letter),
            }
        }
        quoted.push('"');
        quoted
    })
}

/// `a.contains(b)` and its like.
pub(crate) fn test<'v>(args: &[Value<'v>], holds: impl Fn(&str, &str) -> bool) -> Called<'v> {
    match args {
        [Value::String(text), Value::String(other)] => Ok(Value::Bool(holds(text, other))),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// A key as part of a JSON pointer.
pub(crate) fn escape_key<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    changed(meter, args, |text| text.replace('~', "~0").replace('/', "~1"))
}
