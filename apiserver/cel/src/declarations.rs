//! Which functions there are, what they take and what they return.
//!
//! Written as a table: `name id (args)->result`, a method as `name id target.(args)->result`. Capital letters are
//! type parameters. The ids are cel-go's and Kubernetes': the price of a call depends on them.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::functions::format;
use crate::types::{LETTERS, Type};

/// The form of a function: one of possibly several.
#[derive(Debug, Clone)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) is_method: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
}

/// All functions by name.
pub(crate) type Functions = HashMap<String, Vec<Overload>>;

/// What is there in every environment.
pub(crate) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut functions = Functions::new();
    for line in TABLE.lines().filter(|line| !line.trim().is_empty()) {
        if let Some((name, overload)) = read(line) {
            functions.entry(name.to_owned()).or_default().push(overload);
        }
    }
    for (name, ids) in FOR_EACH_TYPE {
        for (type_name, of) in COMPARABLE {
            let Some(of) = read_type(of) else { continue };
            let overload = for_type(ids, type_name, &of);
            functions.entry((*name).to_owned()).or_default().push(overload);
        }
    }
    for key in format::keys() {
        let name: &'static str = Box::leak(format!("format.{key}").into_boxed_str());
        let result = Type::object("kubernetes.NamedFormat");
        let overload = Overload { id: name, is_method: false, args: Vec::new(), result };
        functions.insert(name.to_owned(), vec![overload]);
    }
    functions
});

/// `jsonpatch.escapeKey`, only where patches are written.
pub(crate) static JSON_PATCH: LazyLock<Functions> = LazyLock::new(|| {
    let line = "jsonpatch.escapeKey string_jsonpatch_escapeKey_string (string)->string";
    read(line).into_iter().map(|(name, overload)| (name.to_owned(), vec![overload])).collect()
});

/// Types whose values have an order: their name in ids, and themselves.
const COMPARABLE: [(&str, &str); 8] = [
    ("int", "int"),
    ("uint", "uint"),
    ("double", "double"),
    ("bool", "bool"),
    ("duration", "duration"),
    ("timestamp", "timestamp"),
    ("string", "string"),
    ("bytes", "bytes"),
];

/// Functions with one form for each of these types.
const FOR_EACH_TYPE: [(&str, &str); 5] = [
    ("isSorted", "is_sorted_bool"),
    ("max", "max"),
    ("min", "min"),
    ("sort", "sort"),
    ("@sortByAssociatedKeys", "sortByAssociatedKeys"),
];

fn for_type(form: &str, type_name: &str, of: &Type) -> Overload {
    let list = Type::list(of.clone());
    let any = || Type::list(Type::Param(LETTERS + u32::from(b'T')));
    let long = of.runtime_name();
    let (id, args, result) = match form {
        "is_sorted_bool" => (format!("list_{type_name}_{form}"), vec![list], Type::Bool),
        "max" | "min" => (format!("list_{type_name}_{form}_{type_name}"), vec![list], of.clone()),
        "sort" => (format!("list_{long}_sort"), vec![list.clone()], list),
        _ => (format!("list_{long}_{form}"), vec![any(), list], any()),
    };
    Overload { id: Box::leak(id.into_boxed_str()), is_method: true, args, result }
}

fn read(line: &'static str) -> Option<(&'static str, Overload)> {
    let mut words = line.split_whitespace();
    let (name, id) = (words.next()?, words.next()?);
    let signature: String = words.collect();
    let (args, result) = signature.rsplit_once(")->")?;
    let open = match args.strip_prefix('(') {
        Some(_) => 0,
        None => args.find(".(")? + 1,
    };
    let (target, args) = args.split_at(open);
    let target = target.strip_suffix('.');
    let mut types = Vec::new();
    if let Some(target) = target {
        types.push(read_type(target)?);
    }
    for arg in split_args(args.get(1..)?) {
        types.push(read_type(arg)?);
    }
    Some((name, Overload { id, is_method: target.is_some(), args: types, result: read_type(result)? }))
}

/// Splits at commas outside parentheses.
fn split_args(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..).filter(|rest| !rest.is_empty()));
    parts
}

fn read_type(text: &str) -> Option<Type> {
    if let Some((name, rest)) = text.split_once('(') {
        let args = split_args(rest.strip_suffix(')')?);
        let args: Vec<Type> = args.into_iter().map(read_type).collect::<Option<_>>()?;
        return match (name, args.as_slice()) {
            ("list", [element]) => Some(Type::list(element.clone())),
            ("map", [key, value]) => Some(Type::map(key.clone(), value.clone())),
            ("optional", [inner]) => Some(Type::optional(inner.clone())),
            ("type", [inner]) => Some(Type::TypeOf(Some(inner.clone().into()))),
            _ => None,
        };
    }
    Some(match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        _ if text.starts_with("net.") => Type::Opaque(text.into(), std::sync::Arc::new([])),
        _ if text.starts_with("kubernetes.") => Type::object(text),
        _ => {
            let letter = text.chars().next().filter(|letter| text.len() == 1 && letter.is_ascii_uppercase())?;
            Type::Param(LETTERS + u32::from(letter))
        }
    })
}

const TABLE: &str = include_str!("functions.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_function() {
        for line in TABLE.lines().filter(|line| !line.trim().is_empty()) {
            assert!(read(line).is_some(), "{line}");
        }
        assert!(FUNCTIONS.len() > 100);
        assert_eq!(JSON_PATCH.len(), 1);
        let add = FUNCTIONS.get("_+_").expect("addition");
        assert_eq!(add.iter().map(|overload| overload.id).collect::<Vec<_>>()[..2], ["add_bytes", "add_double"]);
    }
}
