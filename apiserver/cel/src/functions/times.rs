//! `getHours()` and the like, of points and spans of time.

use crate::error::EvalError;
use crate::value::Value;

pub(crate) fn part<'v>(function: &str, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    let (at, zone) = match args {
        [Value::Duration(nanos)] => return of_duration(function, *nanos),
        [Value::Timestamp(at)] => (at, None),
        [Value::Timestamp(at), Value::String(zone)] => (at, Some(&**zone)),
        _ => return Err(EvalError::no_such_overload()),
    };
    let local = at.in_zone(zone).map_err(EvalError::message)?;
    Ok(Value::Int(match function {
        "getFullYear" => i64::from(local.year()),
        "getMonth" => i64::from(local.month()) - 1,
        "getDayOfYear" => i64::from(local.date().day_of_year()) - 1,
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        "getMilliseconds" => i64::from(local.subsec_nanosecond()) / 1_000_000,
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn of_duration<'v>(function: &str, nanos: i64) -> Result<Value<'v>, EvalError> {
    Ok(Value::Int(match function {
        "getHours" => nanos / 3_600_000_000_000,
        "getMinutes" => nanos / 60_000_000_000,
        "getSeconds" => nanos / 1_000_000_000,
        "getMilliseconds" => nanos / 1_000_000,
        _ => return Err(EvalError::no_such_overload()),
    }))
}
