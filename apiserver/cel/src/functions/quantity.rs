//! Quantities: `quantity("1.5Gi").isGreaterThan(…)` and their arithmetic.

use std::cmp::Ordering;

use reeve_api::quantity::{Format, Quantity};

use crate::error::EvalError;
use crate::meter::Meter;
use crate::opaque::{Inner, Opaque};
use crate::value::Value;

type Called<'v> = Result<Value<'v>, EvalError>;

fn value<'v>(quantity: Quantity) -> Value<'v> {
    Value::Opaque(Opaque(Inner::Quantity(quantity)))
}

pub(crate) fn quantity<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(text)] = args else { return Err(EvalError::no_such_overload()) };
    text.parse().map(value).map_err(|error: reeve_api::quantity::QuantityError| EvalError::message(error.to_string()))
}

pub(crate) fn is_quantity<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(text)] = args else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Bool(text.parse::<Quantity>().is_ok()))
}

pub(crate) fn order(order: Ordering) -> i64 {
    match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

/// What is asked of one quantity, or of two.
pub(crate) fn ask<'v>(function: &str, args: &[Value<'v>]) -> Called<'v> {
    let [Value::Opaque(Opaque(Inner::Quantity(own))), rest @ ..] = args else {
        return Err(EvalError::no_such_overload());
    };
    let other = match rest {
        [] => None,
        [Value::Opaque(Opaque(Inner::Quantity(other)))] => Some(*other),
        [Value::Int(units)] => Some(Quantity::new(*units, Format::DecimalExponent)),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(match (function, other) {
        ("sign", None) => Value::Int(order(own.cmp(&Quantity::ZERO))),
        ("asApproximateFloat", None) => Value::Double(own.approximate()),
        ("isInteger", None) => Value::Bool(own.whole_units().is_some()),
        ("asInteger", None) => match own.whole_units() {
            Some(units) => Value::Int(units),
            None => return Err(EvalError::message("cannot convert value to integer")),
        },
        ("isGreaterThan", Some(other)) => Value::Bool(*own > other),
        ("isLessThan", Some(other)) => Value::Bool(*own < other),
        ("compareTo", Some(other)) => Value::Int(order(own.cmp(&other))),
        ("add", Some(other)) => value(*own + other),
        ("sub", Some(other)) => value(*own - other),
        _ => return Err(EvalError::no_such_overload()),
    })
}
