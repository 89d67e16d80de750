//! Arithmetic and order.

use std::cmp::Ordering;

use crate::error::EvalError;
use crate::meter::Meter;
use crate::value::{Text, Value, add_lists, compare};

type Called<'v> = Result<Value<'v>, EvalError>;

fn int(result: Option<i64>) -> Called<'static> {
    result.map(Value::Int).ok_or_else(|| EvalError::message("integer overflow"))
}

fn uint(result: Option<u64>) -> Called<'static> {
    result.map(Value::Uint).ok_or_else(|| EvalError::message("unsigned integer overflow"))
}

fn span(result: Option<i64>) -> Called<'static> {
    result.map(Value::Duration).ok_or_else(|| EvalError::message("duration overflow"))
}

fn moved<'v>(at: crate::time::Timestamp, nanos: Option<i64>) -> Called<'v> {
    let moved = nanos.and_then(|nanos| at.plus(nanos));
    moved.map(Value::Timestamp).ok_or_else(|| EvalError::message("timestamp overflow"))
}

pub(crate) fn add<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [one, other] = args else { return Err(EvalError::no_such_overload()) };
    match (one, other) {
        (Value::String(a), Value::String(b)) => {
            meter.make(a.len() + b.len())?;
            let mut text = String::with_capacity(a.len() + b.len());
            text.push_str(a);
            text.push_str(b);
            Ok(Value::String(Text::Shared(text.into())))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.make(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            if a.list_type.is_some() {
                meter.make(a.len() + b.len())?;
            }
            add_lists(a.clone(), b.clone()).map(Value::List)
        }
        (Value::Timestamp(at), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(at)) => {
            moved(*at, Some(*nanos))
        }
        (one, other) => add_numbers(one, other),
    }
}

pub(crate) fn add_numbers<'v>(one: &Value<'v>, other: &Value<'v>) -> Called<'v> {
    match (one, other) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::Duration(a), Value::Duration(b)) => span(a.checked_add(*b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn subtract<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [one, other] = args else { return Err(EvalError::no_such_overload()) };
    match (one, other) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => span(a.checked_sub(*b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => span(a.since(*b)),
        (Value::Timestamp(at), Value::Duration(nanos)) => moved(*at, nanos.checked_neg()),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn multiply<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn divide<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(EvalError::message("division by zero"))
        }
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn remainder<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::message("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn negate<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    match args {
        [Value::Int(number)] => int(number.checked_neg()),
        [Value::Double(number)] => Ok(Value::Double(-number)),
        [Value::Duration(nanos)] => span(nanos.checked_neg()),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn not<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// `<`, `<=`, `>`, `>=`
pub(crate) fn order<'v>(args: &[Value<'v>], holds: impl Fn(Ordering) -> bool) -> Called<'v> {
    match args {
        [one, other] => compare(one, other).map(|order| Value::Bool(holds(order))),
        _ => Err(EvalError::no_such_overload()),
    }
}
