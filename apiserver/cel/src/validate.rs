//! What is wrong with literals that a type does not tell: durations, times, patterns, mixed lists, format texts.

use crate::ast::{Call, Expr, Kind};
use crate::check::Checked;
use crate::functions::{printf, regexes};
use crate::issue::Issues;
use crate::time::{Timestamp, parse_duration};
use crate::types::Type;
use crate::value::Value;

pub(crate) fn validate(root: &Expr, checked: &Checked, issues: &mut Issues) {
    root.walk(&mut |expr| {
        if let Kind::Call(call) = &expr.kind {
            literal_arg(call, issues);
            format_call(expr, call, checked, issues);
        }
    });
    mixed(root, checked, issues);
}

fn literal(expr: &Expr) -> Option<&str> {
    match &expr.kind {
        Kind::Literal(value) => value.as_str(),
        _ => None,
    }
}

fn literal_arg(call: &Call, issues: &mut Issues) {
    let Some(arg) = call.args.first() else { return };
    if let (Kind::Literal(Value::Int(seconds)), "timestamp") = (&arg.kind, call.function.as_str())
        && Timestamp::from_seconds(*seconds).is_none()
    {
        issues.report(Some(arg.offset), "invalid timestamp argument");
    }
    let Some(text) = literal(arg) else { return };
    let good = match call.function.as_str() {
        "duration" => parse_duration(text).is_some(),
        "timestamp" => Timestamp::parse(text).is_some(),
        "matches" => regexes::compile(text).is_ok(),
        _ => true,
    };
    if !good {
        issues.report(Some(arg.offset), format!("invalid {} argument", call.function));
    }
}

/// Lists and maps hold values of one type, except as arguments of `format`.
fn mixed(expr: &Expr, checked: &Checked, issues: &mut Issues) {
    let mut report = |at: &Expr, expected: &Type, found: &Type| {
        issues.report(Some(at.offset), format!("expected type '{expected}' but found '{found}'"));
    };
    let of = |expr: &Expr, optional: bool| {
        let of = checked.type_of(expr);
        if optional { of.unwrap_optional().0.clone() } else { of.clone() }
    };
    match &expr.kind {
        Kind::Call(call) if call.function == "format" => return,
        Kind::List(elements) => {
            let mut first = None;
            for (element, optional) in elements {
                let own = of(element, *optional);
                match &first {
                    None => first = Some(own),
                    Some(expected) if *expected != own => {
                        report(element, expected, &own);
                        break;
                    }
                    Some(_) => {}
                }
            }
        }
        Kind::Map(entries) => {
            let mut first: Option<(Type, Type)> = None;
            for entry in entries {
                let own = (of(&entry.key, false), of(&entry.value, entry.optional));
                let Some((key, value)) = &first else {
                    first = Some(own);
                    continue;
                };
                if *key != own.0 {
                    report(&entry.key, key, &own.0);
                }
                if *value != own.1 {
                    report(&entry.value, value, &own.1);
                }
            }
        }
        _ => {}
    }
    expr.for_each_child(&mut |child| mixed(child, checked, issues));
}

fn format_call(expr: &Expr, call: &Call, checked: &Checked, issues: &mut Issues) {
    if call.function != "format" || !checked.overloads(expr).contains(&"string_format") {
        return;
    }
    let Some(text) = call.target.as_deref().and_then(literal) else { return };
    let [Expr { kind: Kind::List(args), .. }] = call.args.as_slice() else { return };
    let mut asked = 0;
    for piece in printf::pieces(text) {
        let clause = match piece {
            Ok(printf::Piece::Text(_)) => continue,
            Ok(printf::Piece::Clause(clause)) => Ok(clause),
            Err(error) => Err(error),
        };
        let Some((arg, _)) = args.get(asked) else {
            issues.report(Some(expr.offset), format!("index {asked} out of range"));
            return;
        };
        match clause {
            Err(error) => {
                issues.report(Some(expr.offset), error);
                return;
            }
            Ok(clause) => {
                if let Some(bad) = unfit(arg, clause.letter, checked) {
                    let name = checked.type_of(bad).runtime_name();
                    issues.report(Some(bad.offset), printf::complaint(clause.letter, &name));
                    return;
                }
            }
        }
        asked += 1;
    }
    if args.len() > asked {
        let got = args.len();
        let message = format!("too many arguments supplied to string.format (expected {asked}, got {got})");
        issues.report(Some(expr.offset), message);
    }
}

/// The part of `arg` that a clause cannot show.
fn unfit<'e>(arg: &'e Expr, letter: char, checked: &Checked) -> Option<&'e Expr> {
    let of = checked.type_of(arg);
    let good = of.is_dyn()
        || match letter {
            'd' | 'o' => matches!(of, Type::Int | Type::Uint),
            'f' | 'e' => matches!(of, Type::Double | Type::String),
            'b' => matches!(of, Type::Int | Type::Uint | Type::Bool),
            'x' | 'X' => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
            _ => !matches!(of, Type::Opaque(..) | Type::Object(_)),
        };
    if !good {
        return Some(arg);
    }
    match &arg.kind {
        Kind::List(elements) if letter == 's' => {
            elements.iter().find_map(|(element, _)| unfit(element, letter, checked))
        }
        Kind::Map(entries) if letter == 's' => entries
            .iter()
            .find_map(|entry| unfit(&entry.key, letter, checked).or_else(|| unfit(&entry.value, letter, checked))),
        _ => None,
    }
}
