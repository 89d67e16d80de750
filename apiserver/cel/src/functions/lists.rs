//! Lists and sets: `isSorted`, `sum`, `min`, `max`, `indexOf`, `slice`, `flatten`, `sort`, `distinct`, `sets.…`.

use std::cmp::Ordering;

use super::operators;
use crate::error::EvalError;
use crate::meter::Meter;
use crate::value::{List, Value, compare, equal};

type Called<'v> = Result<Value<'v>, EvalError>;

fn only_list<'a, 'v>(args: &'a [Value<'v>]) -> Result<&'a List<'v>, EvalError> {
    match args {
        [Value::List(list), ..] => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn all<'v>(list: &List<'v>) -> Result<Vec<Value<'v>>, EvalError> {
    list.iter().collect()
}

pub(crate) fn is_sorted<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let mut before: Option<Value<'v>> = None;
    for element in only_list(args)?.iter() {
        let element = element?;
        if let Some(before) = &before
            && compare(before, &element)?.is_gt()
        {
            return Ok(Value::Bool(false));
        }
        before = Some(element);
    }
    Ok(Value::Bool(true))
}

/// The sum; of an empty list zero of the type the checker found.
pub(crate) fn sum<'v>(zero: Value<'v>, args: &[Value<'v>]) -> Called<'v> {
    let mut total = zero;
    for element in only_list(args)?.iter() {
        total = operators::add_numbers(&total, &element?)?;
    }
    Ok(total)
}

fn extreme<'v>(name: &str, args: &[Value<'v>], better: Ordering) -> Called<'v> {
    let mut best: Option<Value<'v>> = None;
    for element in only_list(args)?.iter() {
        let element = element?;
        match &best {
            Some(own) if compare(&element, own)? != better => {}
            _ => best = Some(element),
        }
    }
    best.ok_or_else(|| EvalError::message(format!("{name} called on empty list")))
}

pub(crate) fn min<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    extreme("min", args, Ordering::Less)
}

pub(crate) fn max<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    extreme("max", args, Ordering::Greater)
}

fn position<'v>(args: &[Value<'v>], last: bool) -> Called<'v> {
    let [Value::List(list), wanted] = args else { return Err(EvalError::no_such_overload()) };
    let mut found = -1;
    for (index, element) in list.iter().enumerate() {
        if equal(&element?, wanted).unwrap_or(false) {
            found = i64::try_from(index).unwrap_or(i64::MAX);
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

pub(crate) fn index_of<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    position(args, false)
}

pub(crate) fn last_index_of<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    position(args, true)
}

/// Whether an element equals `wanted`; what went wrong in a comparison counts only when none does.
pub(crate) fn contains(list: &List<'_>, wanted: &Value<'_>) -> Result<bool, EvalError> {
    let mut wrong = None;
    for element in list.iter() {
        match element.and_then(|element| equal(&element, wanted)) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => wrong = Some(error),
        }
    }
    wrong.map_or(Ok(false), Err)
}

fn two<'a, 'v>(args: &'a [Value<'v>]) -> Result<(&'a List<'v>, &'a List<'v>), EvalError> {
    match args {
        [Value::List(one), Value::List(other)] => Ok((one, other)),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Comparisons of every element with every other are charged only afterwards, so there is a limit before.
fn pairs(meter: &mut Meter, one: &List<'_>, other: &List<'_>) -> Result<(), EvalError> {
    meter.work((one.len() as u64).saturating_mul(other.len() as u64).saturating_mul(20))
}

fn holds_all(list: &List<'_>, part: &List<'_>) -> Result<bool, EvalError> {
    for element in part.iter() {
        if !contains(list, &element?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(crate) fn sets_contains<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (list, part) = two(args)?;
    pairs(meter, list, part)?;
    Ok(Value::Bool(holds_all(list, part)?))
}

pub(crate) fn sets_equivalent<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (one, other) = two(args)?;
    pairs(meter, one, other)?;
    Ok(Value::Bool(holds_all(one, other)? && holds_all(other, one)?))
}

pub(crate) fn sets_intersects<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (one, other) = two(args)?;
    pairs(meter, one, other)?;
    for element in one.iter() {
        if contains(other, &element?).unwrap_or(false) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

pub(crate) fn slice<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else {
        return Err(EvalError::no_such_overload());
    };
    let refuse = |why: &str| Err(EvalError::message(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return refuse("negative indexes not supported");
    };
    if from > to {
        return refuse("start index must be less than or equal to end index");
    }
    if list.len() < to {
        return refuse(&format!("list is length {}", list.len()));
    }
    meter.make((to - from) * 32)?;
    let items = (from..to).filter_map(|index| list.get(index)).collect::<Result<_, _>>()?;
    Ok(Value::list(items))
}

pub(crate) fn flatten<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let depth = match args {
        [Value::List(_)] => 1,
        [Value::List(_), Value::Int(depth)] => *depth,
        _ => return Err(EvalError::no_such_overload()),
    };
    if depth < 0 {
        return Err(EvalError::message("level must be non-negative"));
    }
    let mut flat = Vec::new();
    flatten_into(meter, only_list(args)?, depth, &mut flat)?;
    Ok(Value::list(flat))
}

fn flatten_into<'v>(
    meter: &mut Meter,
    list: &List<'v>,
    depth: i64,
    flat: &mut Vec<Value<'v>>,
) -> Result<(), EvalError> {
    for element in list.iter() {
        match element? {
            Value::List(inner) if depth > 0 => flatten_into(meter, &inner, depth - 1, flat)?,
            other => {
                meter.make(flat.len())?;
                flat.push(other);
            }
        }
    }
    Ok(())
}

pub(crate) fn sort<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let list = only_list(args)?;
    sorted(meter, list, list)
}

pub(crate) fn sort_by_keys<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let (list, keys) = two(args)?;
    sorted(meter, list, keys)
}

fn sorted<'v>(meter: &mut Meter, list: &List<'v>, keys: &List<'v>) -> Called<'v> {
    if list.len() != keys.len() {
        return Err(EvalError::message(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            list.len(),
            keys.len()
        )));
    }
    meter.work(list.len() as u64 * 200)?;
    let keys = all(keys)?;
    if let Some(first) = keys.first() {
        if compare(first, first).is_err() && !matches!(first, Value::Double(_)) {
            return Err(EvalError::message("list elements must be comparable"));
        }
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return Err(EvalError::message("list elements must have the same type"));
        }
    }
    let mut pairs: Vec<(Value<'v>, Value<'v>)> = keys.into_iter().zip(all(list)?).collect();
    pairs.sort_by(|(one, _), (other, _)| compare(one, other).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, value)| value).collect()))
}

pub(crate) fn range<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let [Value::Int(count)] = args else { return Err(EvalError::no_such_overload()) };
    // Its price is its length, so what does not fit the limit is refused before it is made.
    meter.make(usize::try_from(*count).unwrap_or_default().saturating_mul(8))?;
    Ok(Value::list((0..*count).map(Value::Int).collect()))
}

pub(crate) fn reverse<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let mut items = all(only_list(args)?)?;
    meter.work(items.len() as u64)?;
    items.reverse();
    Ok(Value::list(items))
}

pub(crate) fn distinct<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    let mut unique: Vec<Value<'v>> = Vec::new();
    for element in only_list(args)?.iter() {
        let element = element?;
        meter.work(unique.len() as u64 * 10)?;
        if !unique.iter().any(|own| equal(&element, own).unwrap_or(false)) {
            unique.push(element);
        }
    }
    Ok(Value::list(unique))
}
