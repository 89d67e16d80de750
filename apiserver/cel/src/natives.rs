//! From the name of a function to what it does.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::EvalError;
use crate::functions::{
    authz, convert, format, lists, net, operators, printf, quantity, regexes, semver, strings, times, url,
};
use crate::meter::Meter;
use crate::value::{Key, Value};

/// What a function does with its arguments; a method's target is the first.
pub(crate) type Native = for<'v> fn(&mut Meter, &[Value<'v>]) -> Result<Value<'v>, EvalError>;

macro_rules! named {
    ($call:path, $($name:literal),* ; $wanted:expr) => {
        match $wanted {
            $($name => { let native: Native = |_, args| $call($name, args); Some(native) })*
            _ => None,
        }
    };
}

/// The function called `name`, in the form `overload` where that makes a difference.
pub(crate) fn native(name: &str, overload: Option<&str>) -> Option<Native> {
    operator(name)
        .or_else(|| text(name))
        .or_else(|| list(name, overload))
        .or_else(|| shared(name))
        .or_else(|| library(name))
        .or_else(|| named_format(name))
}

fn operator(name: &str) -> Option<Native> {
    let native: Native = match name {
        "_+_" => operators::add,
        "_-_" => operators::subtract,
        "_*_" => operators::multiply,
        "_/_" => operators::divide,
        "_%_" => operators::remainder,
        "-_" => operators::negate,
        "!_" => operators::not,
        "_<_" => |_, args| operators::order(args, Ordering::is_lt),
        "_<=_" => |_, args| operators::order(args, Ordering::is_le),
        "_>_" => |_, args| operators::order(args, Ordering::is_gt),
        "_>=_" => |_, args| operators::order(args, Ordering::is_ge),
        "@in" => within,
        "size" => size,
        _ => {
            return named!(convert::convert, "bool", "bytes", "double", "duration", "dyn", "int", "string",
                "timestamp", "type", "uint"; name);
        }
    };
    Some(native)
}

fn within<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    match args {
        [wanted, Value::List(list)] => {
            meter.work(list.len() as u64)?;
            lists::contains(list, wanted).map(Value::Bool)
        }
        [key, Value::Map(map)] => map.find(key).map(|found| Value::Bool(found.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn size<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            if let Value::String(text) = value {
                meter.work(text.len() as u64 / 8)?;
            }
            Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn text(name: &str) -> Option<Native> {
    let native: Native = match name {
        "contains" => |_, args| strings::test(args, |text, part| text.contains(part)),
        "startsWith" => |_, args| strings::test(args, |text, part| text.starts_with(part)),
        "endsWith" => |_, args| strings::test(args, |text, part| text.ends_with(part)),
        "charAt" => strings::char_at,
        "indexOf" => strings::index_of,
        "lastIndexOf" => strings::last_index_of,
        "lowerAscii" => strings::lower,
        "upperAscii" => strings::upper,
        "trim" => strings::trim,
        "replace" => strings::replace,
        "split" => strings::split,
        "substring" => strings::substring,
        "join" => strings::join,
        "strings.quote" => strings::quote,
        "format" => printf::format,
        "jsonpatch.escapeKey" => strings::escape_key,
        "matches" => |meter, args| regexes::call_now(meter, "matches", args),
        "find" => |meter, args| regexes::call_now(meter, "find", args),
        "findAll" => |meter, args| regexes::call_now(meter, "findAll", args),
        _ => {
            return named!(times::part, "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate",
                "getDayOfWeek", "getHours", "getMinutes", "getSeconds", "getMilliseconds"; name);
        }
    };
    Some(native)
}

fn list(name: &str, overload: Option<&str>) -> Option<Native> {
    let native: Native = match name {
        "sum" => match overload {
            Some("list_int_sum_int") => |_, args| lists::sum(Value::Int(0), args),
            Some("list_uint_sum_uint") => |_, args| lists::sum(Value::Uint(0), args),
            Some("list_double_sum_double") => |_, args| lists::sum(Value::Double(0.0), args),
            Some("list_duration_sum_duration") => |_, args| lists::sum(Value::Duration(0), args),
            _ => sum_of_any,
        },
        "isSorted" => lists::is_sorted,
        "min" => lists::min,
        "max" => lists::max,
        "slice" => lists::slice,
        "flatten" => lists::flatten,
        "sort" => lists::sort,
        "@sortByAssociatedKeys" => lists::sort_by_keys,
        "lists.range" => lists::range,
        "reverse" => lists::reverse,
        "distinct" => lists::distinct,
        "sets.contains" => lists::sets_contains,
        "sets.equivalent" => lists::sets_equivalent,
        "sets.intersects" => lists::sets_intersects,
        "cel.@mapInsert" => map_insert,
        "first" => |_, args| end_of_list(args, false),
        "last" => |_, args| end_of_list(args, true),
        "optional.unwrap" | "unwrapOpt" => unwrap_all,
        "optional.of" => |_, args| one(args).map(|value| convert::some(value.clone())),
        "optional.ofNonZeroValue" => |_, args| {
            let value = one(args)?;
            Ok(Value::Optional((!value.is_zero()).then(|| Arc::new(value.clone()))))
        },
        "optional.none" => |_, _| Ok(Value::Optional(None)),
        "hasValue" => |_, args| Ok(Value::Bool(optional(args)?.is_some())),
        "value" => |_, args| match optional(args)? {
            Some(value) => Ok(Value::clone(value)),
            None => Err(EvalError::message("optional.none() dereference")),
        },
        _ => return None,
    };
    Some(native)
}

fn one<'a, 'v>(args: &'a [Value<'v>]) -> Result<&'a Value<'v>, EvalError> {
    args.first().ok_or_else(EvalError::no_such_overload)
}

fn optional<'a, 'v>(args: &'a [Value<'v>]) -> Result<Option<&'a Arc<Value<'v>>>, EvalError> {
    match args {
        [Value::Optional(inner)] => Ok(inner.as_ref()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn sum_of_any<'v>(_: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let zero = match list.get(0).transpose()? {
        Some(Value::Uint(_)) => Value::Uint(0),
        Some(Value::Double(_)) => Value::Double(0.0),
        Some(Value::Duration(_)) => Value::Duration(0),
        _ => Value::Int(0),
    };
    lists::sum(zero, args)
}

fn end_of_list<'v>(args: &[Value<'v>], last: bool) -> Result<Value<'v>, EvalError> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let index = if last { list.len().saturating_sub(1) } else { 0 };
    Ok(Value::Optional(list.get(index).transpose()?.map(Arc::new)))
}

fn unwrap_all<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    meter.work(list.len() as u64)?;
    let mut values = Vec::new();
    for element in list.iter() {
        match element? {
            Value::Optional(inner) => values.extend(inner.map(|inner| Value::clone(&inner))),
            other => return Err(EvalError::message(format!("value {} is not optional", other.shown()))),
        }
    }
    Ok(Value::list(values))
}

/// A map with one entry more, or with those of another.
fn map_insert<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>, EvalError> {
    let (Some(Value::Map(map)), rest) = (args.first(), args.get(1..).unwrap_or_default()) else {
        return Err(EvalError::no_such_overload());
    };
    let mut map = map.clone();
    meter.work(map.len() as u64)?;
    insert(&mut map, rest)?;
    Ok(Value::Map(map))
}

/// Puts a key and its value, or all entries of a map, into `map`.
pub(crate) fn insert<'v>(map: &mut crate::value::Map<'v>, what: &[Value<'v>]) -> Result<(), EvalError> {
    match what {
        [key, value] if Key::of(key).is_some() => map.insert(key, value.clone()),
        [Value::Map(more)] => more.pairs()?.into_iter().try_for_each(|(key, value)| map.insert(&key, value)),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Functions that several libraries have: the value decides.
fn shared(name: &str) -> Option<Native> {
    macro_rules! compared {
        ($name:literal) => {{
            let native: Native = |_, args| match semver::ask($name, args) {
                Ok(answer) => Ok(answer),
                Err(_) => quantity::ask($name, args),
            };
            Some(native)
        }};
    }
    match name {
        "isGreaterThan" => compared!("isGreaterThan"),
        "isLessThan" => compared!("isLessThan"),
        "compareTo" => compared!("compareTo"),
        _ => None,
    }
}

fn library(name: &str) -> Option<Native> {
    let native: Native = match name {
        "url" => url::url,
        "isURL" => url::is_url,
        "ip" => net::ip,
        "cidr" => net::cidr,
        "quantity" => quantity::quantity,
        "isQuantity" => quantity::is_quantity,
        "semver" => semver::semver,
        "isSemver" => semver::is_semver,
        "format.named" => format::named,
        "validate" => format::validate,
        _ => {
            return named!(url::ask, "getScheme", "getHost", "getHostname", "getPort", "getEscapedPath", "getQuery"; name)
                .or_else(|| named!(net::ask_text, "isIP", "isCIDR", "ip.isCanonical"; name))
                .or_else(|| named!(net::ask_ip, "family", "isUnspecified", "isLoopback", "isLinkLocalMulticast",
                    "isLinkLocalUnicast", "isGlobalUnicast"; name))
                .or_else(|| named!(net::ask_cidr, "containsIP", "containsCIDR", "prefixLength", "masked"; name))
                .or_else(|| named!(quantity::ask, "sign", "asApproximateFloat", "asInteger", "isInteger", "add", "sub"; name))
                .or_else(|| named!(semver::ask, "major", "minor", "patch"; name))
                .or_else(|| named!(authz::call, "path", "group", "serviceAccount", "resource", "subresource",
                    "namespace", "name", "check", "errored", "error", "allowed", "reason", "fieldSelector",
                    "labelSelector"; name));
        }
    };
    Some(native)
}

fn named_format(name: &str) -> Option<Native> {
    named_format_key(name.strip_prefix("format.")?)
}

fn named_format_key(key: &str) -> Option<Native> {
    macro_rules! keys {
        ($($name:literal),*) => {
            match key {
                $($name => { let native: Native = |_, _| format::constant($name); Some(native) })*
                _ => None,
            }
        };
    }
    keys!(
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "dns1123LabelPrefix",
        "dns1123SubdomainPrefix",
        "dns1035LabelPrefix",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime"
    )
}

#[cfg(test)]
mod tests {
    use super::native;
    use crate::declarations::{FUNCTIONS, JSON_PATCH};

    #[test]
    fn every_declared_function_does_something() {
        // These are no calls: the evaluation knows them itself.
        let special =
            ["_?_:_", "_&&_", "_||_", "_==_", "_!=_", "_[_]", "_[?_]", "_?._", "@not_strictly_false", "or", "orValue"];
        let missing: Vec<&String> = FUNCTIONS
            .keys()
            .chain(JSON_PATCH.keys())
            .filter(|name| !special.contains(&name.as_str()) && native(name, None).is_none())
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
