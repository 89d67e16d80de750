//! Runs a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::EvalError;
use crate::functions::regexes;
use crate::meter::Meter;
use crate::natives;
use crate::plan::{Attr, BindNode, CallNode, FoldNode, Node, Qualifier, QualifierKey, Root, Run, Unwrap};
use crate::price::{MAKE_LIST, MAKE_MAP, MAKE_STRUCT, Price};
use crate::program::{Outcome, Variables};
use crate::value::{Key, List, Map, Struct, Value, equal};

type Evaluated<'v> = Result<Value<'v>, EvalError>;

pub(crate) struct Machine<'e, 'v> {
    variables: &'e dyn Variables<'v>,
    /// Local variables; none where there is none yet.
    slots: Vec<Option<Evaluated<'v>>>,
    meter: Meter,
}

/// A failure that `&&`, `||` and the like may absorb; the others end the evaluation.
fn absorbable(error: EvalError) -> Result<EvalError, EvalError> {
    match error {
        EvalError::Message(_) => Ok(error),
        other => Err(other),
    }
}

impl<'e, 'v> Machine<'e, 'v> {
    pub(crate) fn new(variables: &'e dyn Variables<'v>, slots: usize, limit: u64) -> Self {
        Self { variables, slots: vec![None; slots], meter: Meter::new(limit) }
    }

    pub(crate) fn run(mut self, root: &Node) -> Outcome<'v> {
        let result = self.eval(root);
        Outcome { result, cost: self.meter.cost() }
    }

    fn eval(&mut self, node: &Node) -> Evaluated<'v> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Attr(attr) => self.attr(attr, true),
            Node::Call(call) => self.call(call),
            Node::And(both) => self.logic(&both.0, &both.1, false),
            Node::Or(both) => self.logic(&both.0, &both.1, true),
            Node::Equal(both, wanted) => self.equal(&both.0, &both.1, *wanted),
            Node::NotFalse(inner) => self.not_false(inner),
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Struct(name, fields) => self.make(name, fields),
            Node::Fold(fold) => self.fold(fold),
            Node::Bind(bind) => self.bind(bind),
            Node::InSet(wanted, keys) => {
                let wanted = self.eval(wanted)?;
                Ok(Value::Bool(Key::of(&wanted).is_some_and(|key| keys.contains(&key))))
            }
            Node::Or2(both, unwrap) => self.optional_or(&both.0, &both.1, *unwrap),
            Node::Append(slot, added) => self.append(*slot, added),
            Node::Insert(slot, what) => self.insert(*slot, what),
        }
    }

    // ## Variables and selections

    /// `charged` is whether looking at it costs something; as an index or a branch it does not.
    fn attr(&mut self, attr: &Attr, charged: bool) -> Evaluated<'v> {
        let conditional = matches!(attr.root, Root::Conditional(_));
        if charged && !attr.test && !conditional {
            self.meter.charge(1)?;
        }
        let mut value = self.root(&attr.root)?;
        let mut optional = false;
        if let Value::Optional(inner) = &value
            && !attr.path.is_empty()
        {
            match inner {
                None if attr.test => return Ok(Value::Bool(false)),
                None => return Ok(Value::Optional(None)),
                Some(inner) => {
                    optional = true;
                    value = Value::clone(inner);
                }
            }
        }
        for (index, qualifier) in attr.path.iter().enumerate() {
            let last = index + 1 == attr.path.len();
            let key = self.qualifier(qualifier)?;
            optional |= qualifier.optional;
            if attr.test && last {
                self.meter.charge(1)?;
                return Ok(Value::Bool(find(&value, &key, true)?.is_some()));
            }
            match find(&value, &key, optional)? {
                Some(found) => {
                    self.meter.charge(1)?;
                    value = found;
                }
                None if optional && attr.test => return Ok(Value::Bool(false)),
                None if optional => return Ok(Value::Optional(None)),
                None => {
                    self.meter.charge(1)?;
                    return Err(missing(&value, &key));
                }
            }
        }
        Ok(if optional { Value::Optional(Some(Arc::new(value))) } else { value })
    }

    fn root(&mut self, root: &Root) -> Evaluated<'v> {
        match root {
            Root::Local(slot) => self.local(*slot),
            Root::Global(name) => self.global(name),
            Root::Lazy(name) => {
                self.meter.charge(1)?;
                self.global(name)
            }
            Root::Node(node) => self.eval(node),
            Root::Conditional(branches) => {
                let (condition, yes, no) = &**branches;
                match self.eval(condition)? {
                    Value::Bool(true) => self.branch(yes),
                    Value::Bool(false) => self.branch(no),
                    _ => Err(EvalError::no_such_overload()),
                }
            }
        }
    }

    fn branch(&mut self, branch: &Attr) -> Evaluated<'v> {
        self.attr(branch, false)
    }

    fn global(&self, name: &str) -> Evaluated<'v> {
        match self.variables.get(name) {
            Some(value) => value,
            None => Err(EvalError::message(format!("no such attribute(s): {name}"))),
        }
    }

    fn local(&self, slot: usize) -> Evaluated<'v> {
        match self.slots.get(slot) {
            Some(Some(value)) => value.clone(),
            _ => Err(EvalError::message("no such attribute(s)")),
        }
    }

    fn set(&mut self, slot: usize, to: Option<Evaluated<'v>>) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = to;
        }
    }

    fn qualifier(&mut self, qualifier: &Qualifier) -> Evaluated<'v> {
        match &qualifier.key {
            QualifierKey::Const(value) => Ok(value.clone()),
            QualifierKey::Attr(attr) => self.attr(attr, false),
            QualifierKey::Node(node) => self.eval(node),
        }
    }

    // ## Operators and calls

    fn logic(&mut self, left: &Node, right: &Node, decides: bool) -> Evaluated<'v> {
        let mut wrong = None;
        for side in [left, right] {
            let error = match self.eval(side) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => continue,
                Ok(_) => EvalError::no_such_overload(),
                Err(error) => absorbable(error)?,
            };
            wrong.get_or_insert(error);
        }
        wrong.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn equal(&mut self, left: &Node, right: &Node, wanted: bool) -> Evaluated<'v> {
        let args = match (self.eval(left), self.eval(right)) {
            (Ok(left), Ok(right)) => [left, right],
            (Err(error), _) | (_, Err(error)) => {
                let error = absorbable(error)?;
                self.meter.charge(1)?;
                return Err(error);
            }
        };
        self.meter.charge(Price::Equals.of(&args, None))?;
        let [left, right] = &args;
        match (equal(left, right), wanted) {
            (Ok(is), _) => Ok(Value::Bool(is == wanted)),
            (Err(error), true) => Err(error),
            (Err(_), false) => Ok(Value::Bool(true)),
        }
    }

    fn not_false(&mut self, inner: &Node) -> Evaluated<'v> {
        let value = match self.eval(inner) {
            Ok(Value::Bool(value)) => value,
            Ok(_) => true,
            Err(error) => absorbable(error).map(|_| true)?,
        };
        self.meter.charge(1)?;
        Ok(Value::Bool(value))
    }

    fn call(&mut self, call: &CallNode) -> Evaluated<'v> {
        let mut args = Vec::with_capacity(call.args.len());
        let mut wrong = None;
        for arg in &call.args {
            match self.eval(arg) {
                Ok(value) => args.push(value),
                Err(error) => {
                    wrong.get_or_insert(absorbable(error)?);
                }
            }
            if wrong.is_some() && call.args.len() > 2 {
                break;
            }
        }
        if let Some(error) = wrong {
            // Both sides of an operator are looked at, and it costs the least there is.
            self.meter.charge(u64::from(call.args.len() <= 2))?;
            return Err(error);
        }
        let result = match &call.native {
            Run::Native(native) => native(&mut self.meter, &args),
            Run::Pattern(pattern) => regexes::call(&mut self.meter, &call.function, pattern, &args),
        };
        self.meter.charge(call.price.of(&args, result.as_ref().ok()))?;
        result.map_err(|error| named(error, &call.function, &args))
    }

    fn optional_or(&mut self, left: &Node, right: &Node, unwrap: Unwrap) -> Evaluated<'v> {
        match (self.eval(left)?, unwrap) {
            (Value::Optional(Some(value)), Unwrap::Value) => Ok(Value::clone(&value)),
            (Value::Optional(None), _) => self.eval(right),
            (other, _) => Ok(other),
        }
    }

    // ## Making lists, maps and objects

    fn list(&mut self, elements: &[(Node, bool)]) -> Evaluated<'v> {
        let mut values = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            match (self.eval(element)?, optional) {
                (Value::Optional(inner), true) => values.extend(inner.map(|inner| Value::clone(&inner))),
                (value, true) => {
                    let shown = value.shown();
                    let text = format!("cannot initialize optional list element from non-optional value {shown}");
                    return Err(EvalError::message(text));
                }
                (value, false) => values.push(value),
            }
        }
        self.meter.charge(MAKE_LIST)?;
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &[(Node, Node, bool)]) -> Evaluated<'v> {
        let mut made = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = self.eval(value)?;
            let Some(own) = Key::of(&key) else {
                return Err(EvalError::message(format!("unsupported key type: {}", key.type_name())));
            };
            match unwrapped(value, *optional, &key.shown())? {
                Some(value) => made.insert(own, (key, value)),
                None => made.remove(&own),
            };
        }
        self.meter.charge(MAKE_MAP)?;
        Ok(Value::Map(Map::new(made)))
    }

    fn make(&mut self, name: &Arc<str>, fields: &[(String, Node, bool)]) -> Evaluated<'v> {
        let mut made = BTreeMap::new();
        for (field, value, optional) in fields {
            let value = self.eval(value)?;
            match unwrapped(value, *optional, field)? {
                Some(value) => made.insert(field.clone(), value),
                None => made.remove(field),
            };
        }
        self.meter.charge(MAKE_STRUCT)?;
        Ok(Value::Struct(Arc::new(Struct { name: Arc::clone(name), fields: made })))
    }

    // ## Comprehensions

    fn bind(&mut self, bind: &BindNode) -> Evaluated<'v> {
        if bind.used {
            let value = self.eval(&bind.value);
            self.set(bind.slot, Some(value));
        }
        let result = self.eval(&bind.result);
        self.set(bind.slot, None);
        result
    }

    fn fold(&mut self, fold: &FoldNode) -> Evaluated<'v> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        self.set(fold.accumulator, Some(init));
        match range {
            Value::List(list) => {
                for index in 0..list.len() {
                    let Some(element) = list.get(index) else { break };
                    let index = i64::try_from(index).unwrap_or(i64::MAX);
                    if !self.round(fold, Ok(Value::Int(index)), element)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = match fold.var2 {
                        Some(_) => map.find(&key).and_then(|value| value.ok_or_else(EvalError::no_such_overload)),
                        None => Ok(key.clone()),
                    };
                    if !self.round(fold, Ok(key), value)? {
                        break;
                    }
                }
            }
            other => {
                return Err(EvalError::message(format!("got '{}', expected iterable type", go_name(&other))));
            }
        }
        let result = self.eval(&fold.result);
        self.set(fold.accumulator, None);
        result
    }

    /// One element; whether to go on.
    fn round(&mut self, fold: &FoldNode, key: Evaluated<'v>, value: Evaluated<'v>) -> Result<bool, EvalError> {
        self.meter.work(10)?;
        match fold.var2 {
            Some(var2) => {
                self.set(fold.var, Some(key));
                self.set(var2, Some(value));
            }
            None => self.set(fold.var, Some(value)),
        }
        match self.eval(&fold.condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(error) => {
                absorbable(error)?;
            }
        }
        let step = match self.eval(&fold.step) {
            Ok(value) => Ok(value),
            Err(error) => Err(absorbable(error)?),
        };
        let go_on = step.is_ok() || fold.recovers;
        self.set(fold.accumulator, Some(step));
        Ok(go_on)
    }

    /// What was collected, taken out of its variable.
    fn take(&mut self, slot: usize) -> Evaluated<'v> {
        self.meter.charge(1)?;
        match self.slots.get_mut(slot).and_then(Option::take) {
            Some(value) => value,
            None => Err(EvalError::message("no such attribute(s)")),
        }
    }

    fn append(&mut self, slot: usize, added: &Node) -> Evaluated<'v> {
        let added = self.eval(added)?;
        let (Value::List(mut list), Value::List(added)) = (self.take(slot)?, added) else {
            return Err(EvalError::no_such_overload());
        };
        self.meter.charge(1)?;
        for element in List::iter(&added) {
            list.push(element?)?;
        }
        Ok(Value::List(list))
    }

    fn insert(&mut self, slot: usize, what: &[Node]) -> Evaluated<'v> {
        let mut args = Vec::with_capacity(what.len());
        for node in what {
            args.push(self.eval(node)?);
        }
        let Value::Map(mut map) = self.take(slot)? else { return Err(EvalError::no_such_overload()) };
        self.meter.charge(1)?;
        natives::insert(&mut map, &args)?;
        Ok(Value::Map(map))
    }
}

/// What an optional initializer holds; the value itself when it is not optional.
fn unwrapped<'v>(value: Value<'v>, optional: bool, field: &str) -> Result<Option<Value<'v>>, EvalError> {
    match (value, optional) {
        (Value::Optional(inner), true) => Ok(inner.map(|inner| Value::clone(&inner))),
        (value, false) => Ok(Some(value)),
        (value, true) => {
            let shown = value.shown();
            let text = format!("cannot initialize optional entry '{field}' from non-optional value {shown}");
            Err(EvalError::message(text))
        }
    }
}

/// A call with arguments it has no form for says so with its name; operators say less.
fn named(error: EvalError, function: &str, args: &[Value<'_>]) -> EvalError {
    if error != EvalError::no_such_overload() {
        return error;
    }
    let left = args.first();
    let number = matches!(left, Some(Value::Int(_) | Value::Uint(_) | Value::Double(_)));
    let time = matches!(left, Some(Value::Duration(_) | Value::Timestamp(_)));
    let text = matches!(left, Some(Value::String(_) | Value::Bytes(_)));
    let knows_operator = match function {
        "_+_" => number || time || text || matches!(left, Some(Value::List(_))),
        "_-_" => number || time,
        "_*_" | "_/_" => number,
        "_%_" => number && !matches!(left, Some(Value::Double(_))),
        "_<_" | "_<=_" | "_>_" | "_>=_" => number || time || text || matches!(left, Some(Value::Bool(_))),
        "matches" | "@in" => true,
        "-_" | "!_" | "size" | "sort" => false,
        _ => {
            let types: Vec<String> = args.iter().map(|arg| arg.type_name().into_owned()).collect();
            return EvalError::message(format!("no such overload: {function}({})", types.join(", ")));
        }
    };
    if knows_operator { error } else { EvalError::message(format!("no such overload: {function}")) }
}

/// The name of a value's type in cel-go's code, which one message shows.
fn go_name(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "types.Null",
        Value::Bool(_) => "types.Bool",
        Value::Int(_) => "types.Int",
        Value::Uint(_) => "types.Uint",
        Value::Double(_) => "types.Double",
        Value::String(_) => "types.String",
        Value::Bytes(_) => "types.Bytes",
        Value::Duration(_) => "types.Duration",
        Value::Timestamp(_) => "types.Timestamp",
        Value::Optional(_) => "*types.Optional",
        _ => "*types.Type",
    }
}

fn find<'v>(value: &Value<'v>, key: &Value<'_>, presence: bool) -> Result<Option<Value<'v>>, EvalError> {
    match value {
        Value::Map(map) => map.find(key),
        Value::List(list) => {
            let index = list_index(key)?;
            usize::try_from(index).ok().and_then(|index| list.get(index)).transpose()
        }
        Value::Struct(made) => match key.as_str() {
            Some(field) if presence || made.fields.contains_key(field) => Ok(made.fields.get(field).cloned()),
            Some(field) => Err(EvalError::message(format!("no such key: {field}"))),
            None => Err(EvalError::no_such_overload()),
        },
        _ => Ok(None),
    }
}

fn list_index(key: &Value<'_>) -> Result<i64, EvalError> {
    let unsupported = || EvalError::message(format!("unsupported index value {} in list", key.shown()));
    match key {
        Value::Int(index) => Ok(*index),
        Value::Uint(index) => i64::try_from(*index).map_err(|_| unsupported()),
        Value::Double(index) => {
            crate::value::whole(*index).and_then(|index| i64::try_from(index).ok()).ok_or_else(unsupported)
        }
        other => Err(EvalError::message(format!("unsupported index type '{}' in list", other.type_name()))),
    }
}

fn missing(value: &Value<'_>, key: &Value<'_>) -> EvalError {
    match value {
        Value::List(_) => EvalError::message(format!("index out of bounds: {}", key.shown())),
        _ => EvalError::message(format!("no such key: {}", key.shown())),
    }
}
