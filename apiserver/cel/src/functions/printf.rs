//! `"%d of %s".format([1, "two"])`

use super::{convert, numbers};
use crate::error::EvalError;
use crate::meter::Meter;
use crate::value::Value;

/// Digits after the point when nothing is said.
const PRECISION: usize = 6;
/// More digits than this are refused; no number has them.
const PRECISION_MAX: usize = 1000;

/// One `%` clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clause {
    pub(crate) letter: char,
    precision: Option<usize>,
}

/// A piece of a format text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    Text(&'t str),
    Clause(Clause),
}

/// The pieces of a format text, up to the first that is wrong.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = Result<Piece<'_>, String>> {
    let mut rest = text;
    let mut wrong = false;
    std::iter::from_fn(move || {
        if rest.is_empty() || wrong {
            return None;
        }
        let at = rest.find('%').unwrap_or(rest.len());
        if at > 0 {
            let (plain, tail) = rest.split_at(at);
            rest = tail;
            return Some(Ok(Piece::Text(plain)));
        }
        if let Some(tail) = rest.strip_prefix("%%") {
            rest = tail;
            return Some(Ok(Piece::Text("%")));
        }
        let clause = clause(rest.get(1..).unwrap_or_default());
        Some(match clause {
            Ok((clause, tail)) => {
                rest = tail;
                Ok(Piece::Clause(clause))
            }
            Err(error) => {
                wrong = true;
                Err(error)
            }
        })
    })
}

fn clause(text: &str) -> Result<(Clause, &str), String> {
    const WHERE: &str = "could not parse formatting clause";
    if text.is_empty() {
        return Err("unexpected end of string".to_owned());
    }
    let (precision, rest) = match text.strip_prefix('.') {
        None => (None, text),
        Some(after) => {
            let end = after.find(|letter: char| !letter.is_ascii_digit());
            let Some(end) = end else {
                return Err(format!(
                    "{WHERE}: error while parsing precision: could not find end of precision specifier"
                ));
            };
            let (digits, rest) = after.split_at(end);
            let precision = digits.parse().ok().filter(|precision| *precision <= PRECISION_MAX);
            if precision.is_none() {
                return Err(format!(
                    "{WHERE}: error while parsing precision: error while converting precision to integer: \
                     strconv.Atoi: parsing {digits:?}: invalid syntax"
                ));
            }
            (precision, rest)
        }
    };
    let Some(letter) = rest.chars().next() else { return Err("unexpected end of string".to_owned()) };
    if !"sdfebxXo".contains(letter) {
        return Err(format!("{WHERE}: unrecognized formatting clause \"{letter}\""));
    }
    Ok((Clause { letter, precision }, rest.get(letter.len_utf8()..).unwrap_or_default()))
}

/// What a clause says of a value it cannot show.
pub(crate) fn complaint(letter: char, type_name: &str) -> String {
    let said = match letter {
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'x' | 'X' => "only integers, byte buffers, and strings can be formatted as hex",
        'o' => "octal clause can only be used on integers",
        _ => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, \
             and timestamps"
        }
    };
    format!("error during formatting: {said}, was given {type_name}")
}

pub(crate) fn format<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    let [Value::String(text), Value::List(values)] = args else { return Err(EvalError::no_such_overload()) };
    let mut shown = String::new();
    let mut index = 0;
    for piece in pieces(text) {
        let piece = match piece {
            Ok(piece) => piece,
            Err(_) if index >= values.len() => return Err(missing(index)),
            Err(error) => return Err(EvalError::message(error)),
        };
        match piece {
            Piece::Text(plain) => shown.push_str(plain),
            Piece::Clause(clause) => {
                let value = values.get(index).ok_or_else(|| missing(index))??;
                index += 1;
                shown.push_str(&one(meter, clause, &value)?);
            }
        }
        meter.make(shown.len())?;
    }
    Ok(Value::text(&shown))
}

fn missing(index: usize) -> EvalError {
    EvalError::message(format!("index {index} out of range"))
}

fn one(meter: &mut Meter, clause: Clause, value: &Value<'_>) -> Result<String, EvalError> {
    let precision = clause.precision.unwrap_or(PRECISION);
    let upper = clause.letter == 'X';
    let hex = |bytes: &[u8]| -> String {
        bytes.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let signed = |number: i64, digits: String| if number < 0 { format!("-{digits}") } else { digits };
    let text = match (clause.letter, value) {
        ('s', value) => {
            let mut shown = String::new();
            as_text(meter, value, false, &mut shown)?;
            Some(shown)
        }
        ('d', Value::Int(number)) => Some(number.to_string()),
        ('d', Value::Uint(number)) => Some(number.to_string()),
        ('f', value) => double(value).map(|number| fixed(number, precision)),
        ('e', value) => double(value)
            .map(|number| if number.is_finite() { power_of_ten(number, precision) } else { infinite(number) }),
        ('b', Value::Int(number)) => Some(signed(*number, format!("{:b}", number.unsigned_abs()))),
        ('b', Value::Uint(number)) => Some(format!("{number:b}")),
        ('b', Value::Bool(value)) => Some(if *value { "1" } else { "0" }.to_owned()),
        ('x', Value::Int(number)) => Some(signed(*number, format!("{:x}", number.unsigned_abs()))),
        ('X', Value::Int(number)) => Some(signed(*number, format!("{:X}", number.unsigned_abs()))),
        ('x', Value::Uint(number)) => Some(format!("{number:x}")),
        ('X', Value::Uint(number)) => Some(format!("{number:X}")),
        ('x' | 'X', Value::String(text)) => Some(hex(text.as_bytes())),
        ('x' | 'X', Value::Bytes(bytes)) => Some(hex(bytes)),
        ('o', Value::Int(number)) => Some(signed(*number, format!("{:o}", number.unsigned_abs()))),
        ('o', Value::Uint(number)) => Some(format!("{number:o}")),
        _ => None,
    };
    text.ok_or_else(|| EvalError::message(complaint(clause.letter, &value.type_name())))
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn infinite(number: f64) -> String {
    let text = if number.is_nan() { "NaN" } else { "∞" };
    if number < 0.0 { format!("-{text}") } else { text.to_owned() }
}

/// `1.5×10⁰³`, as cel-go's formatter has it.
fn power_of_ten(number: f64, precision: usize) -> String {
    let scientific = numbers::scientific(number, precision);
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let raised = exponent.chars().map(|letter| match letter {
        '-' => "⁻",
        '0' => "⁰",
        '1' => "¹",
        '2' => "²",
        '3' => "³",
        '4' => "⁴",
        '5' => "⁵",
        '6' => "⁶",
        '7' => "⁷",
        '8' => "⁸",
        '9' => "⁹",
        _ => "",
    });
    format!("{digits}×10{}", raised.collect::<String>())
}

/// With thousands set apart, as the English of cel-go's formatter has it.
fn fixed(number: f64, precision: usize) -> String {
    if !number.is_finite() {
        return infinite(number);
    }
    let plain = format!("{number:.precision$}");
    let (sign, digits) = plain.strip_prefix('-').map_or(("", plain.as_str()), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut grouped = String::with_capacity(whole.len() * 4 / 3);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{dot}{fraction}")
}

/// `%s`; within lists and maps texts are quoted and doubles have six digits.
fn as_text(meter: &mut Meter, value: &Value<'_>, inside: bool, shown: &mut String) -> Result<(), EvalError> {
    meter.make(shown.len())?;
    match value {
        Value::List(list) => {
            shown.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    shown.push_str(", ");
                }
                as_text(meter, &element?, true, shown)?;
            }
            shown.push(']');
        }
        Value::Map(map) => {
            let mut pairs = Vec::with_capacity(map.len());
            for (key, value) in map.pairs()? {
                let (mut own, mut of) = (String::new(), String::new());
                as_text(meter, &key, true, &mut own)?;
                as_text(meter, &value, true, &mut of)?;
                pairs.push((own, of));
            }
            pairs.sort();
            let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
            shown.push('{');
            shown.push_str(&pairs.join(", "));
            shown.push('}');
        }
        Value::Null => shown.push_str("null"),
        Value::String(text) if inside => shown.push_str(&go_quoted(text)),
        Value::Bytes(bytes) if inside => {
            shown.push('b');
            shown.push_str(&go_quoted(&String::from_utf8_lossy(bytes)));
        }
        Value::Double(number) if inside && !number.is_finite() => {
            shown.push_str(&format!("{:?}", numbers::shown(*number)));
        }
        Value::Double(number) if inside => shown.push_str(&format!("{number:.PRECISION$}")),
        Value::Timestamp(_) if inside => {
            shown.push_str("timestamp(\"");
            shown.push_str(&value.shown());
            shown.push_str("\")");
        }
        Value::Duration(_) if inside => {
            shown.push_str("duration(\"");
            shown.push_str(convert::to_string(value)?.as_str().unwrap_or_default());
            shown.push_str("\")");
        }
        Value::Type(name) if inside => shown.push_str(&format!("type({name})")),
        Value::Opaque(_) | Value::Optional(_) | Value::Struct(_) | Value::Unknown(_) => {
            return Err(EvalError::message(complaint('s', &value.type_name())));
        }
        value => shown.push_str(convert::to_string(value)?.as_str().unwrap_or_default()),
    }
    Ok(())
}

/// `%q`
pub(crate) fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter if letter.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
