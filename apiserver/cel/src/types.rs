//! The types of expressions, how they are written in messages, and which fits which.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The type of an expression, as the checker finds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    /// Anything; known only when the expression runs.
    Dyn,
    /// Of an expression with an issue.
    Error,
    /// Of `null`.
    Null,
    /// Truth values.
    Bool,
    /// 64-bit numbers.
    Int,
    /// Unsigned 64-bit numbers.
    Uint,
    /// Floating-point numbers.
    Double,
    /// Texts.
    String,
    /// Sequences of bytes.
    Bytes,
    /// Points in time.
    Timestamp,
    /// Spans of time.
    Duration,
    /// Lists of one type.
    List(Arc<Type>),
    /// Maps from one type to another.
    Map(Arc<Type>, Arc<Type>),
    /// Objects with declared fields, by name.
    Object(Arc<str>),
    /// Types of libraries, with their parameters.
    Opaque(Arc<str>, Arc<[Type]>),
    /// The type of a type.
    TypeOf(Option<Arc<Type>>),
    /// A type that is not known yet, or the parameter of a function's signature.
    Param(u32),
}

/// Name of the type of optional values.
pub(crate) const OPTIONAL: &str = "optional_type";
/// Parameters from here on are letters of signatures.
pub(crate) const LETTERS: u32 = 1 << 31;

impl Type {
    /// A list of `element`.
    #[must_use]
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    /// A map from `key` to `value`.
    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// The object type called `name`.
    #[must_use]
    pub fn object(name: &str) -> Self {
        Self::Object(name.into())
    }

    /// A value of type `inner` that may be missing.
    #[must_use]
    pub fn optional(inner: Self) -> Self {
        Self::Opaque(OPTIONAL.into(), Arc::new([inner]))
    }

    /// What is within an optional type.
    pub(crate) fn unwrap_optional(&self) -> (&Self, bool) {
        match self {
            Self::Opaque(name, params) if &**name == OPTIONAL => (params.first().unwrap_or(&Self::Dyn), true),
            other => (other, false),
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether every value of it has size one.
    pub(crate) fn is_scalar(&self) -> bool {
        match self.unwrap_optional() {
            (inner, true) => inner.is_scalar(),
            _ => matches!(self, Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint),
        }
    }

    /// As Kubernetes writes it where it says what an expression must evaluate to.
    #[must_use]
    pub fn declared(&self) -> String {
        match self {
            Self::List(element) => format!("list({})", element.declared()),
            Self::Map(key, value) => format!("map({}, {})", key.declared(), value.declared()),
            Self::Opaque(name, params) if !params.is_empty() => {
                let params: Vec<String> = params.iter().map(Self::declared).collect();
                format!("{name}({})", params.join(", "))
            }
            Self::TypeOf(Some(inner)) => format!("type({})", inner.declared()),
            other => other.runtime_name(),
        }
    }

    /// The name a value of it answers to `type()` with.
    #[must_use]
    pub fn runtime_name(&self) -> String {
        match self {
            Self::Null => "null_type".to_owned(),
            Self::Timestamp => "google.protobuf.Timestamp".to_owned(),
            Self::Duration => "google.protobuf.Duration".to_owned(),
            Self::List(_) => "list".to_owned(),
            Self::Map(..) => "map".to_owned(),
            Self::Object(name) | Self::Opaque(name, _) => name.to_string(),
            Self::TypeOf(_) => "type".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Object(name) => f.write_str(name),
            Self::Opaque(name, params) if params.is_empty() => f.write_str(name),
            Self::Opaque(name, params) => {
                let params: Vec<String> = params.iter().map(ToString::to_string).collect();
                write!(f, "{name}({})", params.join(", "))
            }
            Self::TypeOf(None) => f.write_str("type"),
            Self::TypeOf(Some(inner)) => write!(f, "type({inner})"),
            Self::Param(number) if *number >= LETTERS => {
                write!(f, "{}", char::from_u32(number - LETTERS).unwrap_or('?'))
            }
            Self::Param(number) => write!(f, "_var{number}"),
        }
    }
}

/// What is known of the types that were not known at first. A comparison that fails leaves no trace.
#[derive(Debug, Default)]
pub(crate) struct Mapping {
    known: HashMap<u32, Type>,
    /// What an insertion replaced, to take it back.
    undo: Vec<(u32, Option<Type>)>,
    next: u32,
}

impl Mapping {
    pub(crate) fn fresh(&mut self) -> Type {
        self.next += 1;
        Type::Param(self.next - 1)
    }

    fn find(&self, of: &Type) -> Option<&Type> {
        match of {
            Type::Param(number) => self.known.get(number),
            _ => None,
        }
    }

    fn add(&mut self, number: u32, known: Type) {
        let before = self.known.insert(number, known);
        self.undo.push((number, before));
    }

    fn back_to(&mut self, mark: usize) {
        while self.undo.len() > mark {
            match self.undo.pop() {
                Some((number, Some(before))) => {
                    self.known.insert(number, before);
                }
                Some((number, None)) => {
                    self.known.remove(&number);
                }
                None => return,
            }
        }
    }

    /// Whether a value of `value` may stand where `wanted` is declared; on success what that says is kept.
    pub(crate) fn fits(&mut self, wanted: &Type, value: &Type) -> bool {
        self.fit_all(std::slice::from_ref(wanted), std::slice::from_ref(value))
    }

    pub(crate) fn fit_all(&mut self, wanted: &[Type], values: &[Type]) -> bool {
        let mark = self.undo.len();
        let fits = self.lists_fit(wanted, values);
        if fits {
            self.undo.clear();
        } else {
            self.back_to(mark);
        }
        fits
    }

    fn lists_fit(&mut self, wanted: &[Type], values: &[Type]) -> bool {
        wanted.len() == values.len() && wanted.iter().zip(values).all(|(one, other)| self.fit(one, other))
    }

    fn fit(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Param(number) = other {
            match self.substitutes(one, *number) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Param(number) = one {
            return self.substitutes(other, *number).0;
        }
        match (one, other) {
            (a, b) if a.is_dyn_or_error() || b.is_dyn_or_error() => true,
            (Type::Null, other) | (other, Type::Null) => {
                matches!(other, Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp)
            }
            (Type::TypeOf(_), other) => matches!(other, Type::TypeOf(_)),
            (Type::Opaque(a, a_params), Type::Opaque(b, b_params)) => a == b && self.lists_fit(a_params, b_params),
            (Type::List(a), Type::List(b)) => self.fit(a, b),
            (Type::Map(a_key, a_value), Type::Map(b_key, b_value)) => {
                self.fit(a_key, b_key) && self.fit(a_value, b_value)
            }
            (a, b) => a == b,
        }
    }

    /// Whether `of` can stand for the parameter, and whether something already does.
    fn substitutes(&mut self, of: &Type, number: u32) -> (bool, bool) {
        let param = Type::Param(number);
        if *of == param {
            return (true, true);
        }
        if let Some(known) = self.known.get(&number).cloned() {
            if *of == known {
                return (true, true);
            }
            if self.fit(of, &known) {
                let general = if is_less_specific(of, &known) { of.clone() } else { known };
                if !self.occurs(number, &general) {
                    self.add(number, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        let free = !self.occurs(number, of);
        if free {
            self.add(number, of.clone());
        }
        (free, false)
    }

    fn occurs(&self, number: u32, within: &Type) -> bool {
        match within {
            Type::Param(other) => {
                *other == number || self.known.get(other).is_some_and(|known| self.occurs(number, known))
            }
            Type::List(element) => self.occurs(number, element),
            Type::Map(key, value) => self.occurs(number, key) || self.occurs(number, value),
            Type::Opaque(_, params) => params.iter().any(|param| self.occurs(number, param)),
            Type::TypeOf(Some(inner)) => self.occurs(number, inner),
            _ => false,
        }
    }

    /// `of` with everything known put in; what stays unknown becomes `dyn` if `unknown_is_dyn`.
    pub(crate) fn substitute(&self, of: &Type, unknown_is_dyn: bool) -> Type {
        if let Some(known) = self.find(of) {
            return self.substitute(known, unknown_is_dyn);
        }
        replace(of, &mut |number| self.known_or_param(number, unknown_is_dyn))
    }

    fn known_or_param(&self, number: u32, unknown_is_dyn: bool) -> Type {
        match self.known.get(&number) {
            Some(known) => self.substitute(known, unknown_is_dyn),
            None if unknown_is_dyn => Type::Dyn,
            None => Type::Param(number),
        }
    }
}

/// `of` with every parameter replaced.
pub(crate) fn replace(of: &Type, with: &mut impl FnMut(u32) -> Type) -> Type {
    match of {
        Type::Param(number) => with(*number),
        Type::List(element) => Type::list(replace(element, with)),
        Type::Map(key, value) => Type::map(replace(key, with), replace(value, with)),
        Type::Opaque(name, params) if !params.is_empty() => {
            Type::Opaque(Arc::clone(name), params.iter().map(|param| replace(param, with)).collect())
        }
        Type::TypeOf(Some(inner)) => Type::TypeOf(Some(Arc::new(replace(inner, with)))),
        other => other.clone(),
    }
}

/// Whether `one` is `other` or says less.
fn is_less_specific(one: &Type, other: &Type) -> bool {
    match (one, other) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::Opaque(a, a_params), Type::Opaque(b, b_params)) => {
            a == b
                && a_params.len() == b_params.len()
                && a_params.iter().zip(b_params.iter()).all(|(a, b)| is_less_specific(a, b))
        }
        (Type::List(a), Type::List(b)) => is_less_specific(a, b),
        (Type::Map(a_key, a_value), Type::Map(b_key, b_value)) => {
            is_less_specific(a_key, b_key) && is_less_specific(a_value, b_value)
        }
        (Type::TypeOf(_), Type::TypeOf(_)) => true,
        (a, b) => a == b,
    }
}

/// The more general of two types that fit.
pub(crate) fn most_general(one: &Type, other: &Type) -> Type {
    if is_less_specific(one, other) { one.clone() } else { other.clone() }
}
