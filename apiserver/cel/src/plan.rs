//! From a checked tree to what is evaluated: constants are computed, functions and variables looked up, patterns
//! compiled. What is constant costs nothing later, as in cel-go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

use crate::ast::{Call, Expr, Fold, Kind, Presence};
use crate::check::Checked;
use crate::env::Env;
use crate::functions::regexes;
use crate::meter::Meter;
use crate::natives::{Native, native};
use crate::price::{Price, price};
use crate::types::Type;
use crate::value::{Key, Map, Value};

/// One step of the evaluation.
#[derive(Debug)]
pub(crate) enum Node {
    Const(Value<'static>),
    Attr(Box<Attr>),
    Call(Box<CallNode>),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    /// Two sides, and whether equal is wanted.
    Equal(Box<(Node, Node)>, bool),
    NotFalse(Box<Node>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct(Arc<str>, Vec<(String, Node, bool)>),
    Fold(Box<FoldNode>),
    /// A name for a value.
    Bind(Box<BindNode>),
    InSet(Box<Node>, BTreeSet<Key>),
    /// `a.or(b)`, `a.orValue(b)`: the right side only when it is needed.
    Or2(Box<(Node, Node)>, Unwrap),
    /// `accumulator + [element]` in a comprehension: in place.
    Append(usize, Box<Node>),
    /// The same for maps.
    Insert(usize, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwrap {
    Keep,
    Value,
}

/// A variable or value, and what is selected in it.
#[derive(Debug)]
pub(crate) struct Attr {
    pub(crate) root: Root,
    pub(crate) path: Vec<Qualifier>,
    /// The last selection only asks whether something is there.
    pub(crate) test: bool,
}

#[derive(Debug)]
pub(crate) enum Root {
    Local(usize),
    Global(String),
    /// A field of a lazy object, by its whole name.
    Lazy(String),
    Node(Node),
    Conditional(Box<(Node, Attr, Attr)>),
}

#[derive(Debug)]
pub(crate) struct Qualifier {
    pub(crate) key: QualifierKey,
    pub(crate) optional: bool,
}

#[derive(Debug)]
pub(crate) enum QualifierKey {
    Const(Value<'static>),
    /// What a variable holds.
    Attr(Box<Attr>),
    Node(Node),
}

#[derive(Debug)]
pub(crate) struct CallNode {
    pub(crate) function: String,
    pub(crate) native: Run,
    pub(crate) args: Vec<Node>,
    pub(crate) price: Price,
}

#[derive(Debug)]
pub(crate) enum Run {
    Native(Native),
    Pattern(Regex),
}

#[derive(Debug)]
pub(crate) struct FoldNode {
    pub(crate) range: Node,
    pub(crate) accumulator: usize,
    pub(crate) var: usize,
    pub(crate) var2: Option<usize>,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
    /// Whether a step after one that went wrong can make it good again (`all`, `exists`).
    pub(crate) recovers: bool,
}

#[derive(Debug)]
pub(crate) struct BindNode {
    pub(crate) slot: usize,
    pub(crate) value: Node,
    /// Whether anybody asks for it; if not it is not computed.
    pub(crate) used: bool,
    pub(crate) result: Node,
}

/// A planned expression.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) root: Node,
    /// How many local variables there are at most.
    pub(crate) slots: usize,
}

/// Plans `root`.
///
/// # Errors
/// When a constant part can never have a value.
pub(crate) fn plan(env: &Env, root: &Expr, checked: &Checked) -> Result<Plan, String> {
    let mut planner = Planner { env, checked, locals: Vec::new(), slots: 0 };
    let root = planner.node(root)?;
    Ok(Plan { root, slots: planner.slots })
}

struct Planner<'e> {
    env: &'e Env,
    checked: &'e Checked,
    /// Names of local variables; the index is the slot.
    locals: Vec<String>,
    slots: usize,
}

type Planned<T = Node> = Result<T, String>;

impl Planner<'_> {
    fn node(&mut self, expr: &Expr) -> Planned {
        match &expr.kind {
            Kind::Literal(value) => Ok(Node::Const(value.clone())),
            Kind::Ident(name) => Ok(self.ident(expr, name)),
            Kind::Select(operand, field, presence) => self.select(operand, field, *presence),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let mut planned = Vec::with_capacity(elements.len());
                for (element, optional) in elements {
                    planned.push((self.node(element)?, *optional));
                }
                Ok(constant_list(planned))
            }
            Kind::Map(entries) => {
                let mut planned = Vec::with_capacity(entries.len());
                for entry in entries {
                    planned.push((self.node(&entry.key)?, self.node(&entry.value)?, entry.optional));
                }
                Ok(constant_map(planned))
            }
            Kind::Struct(name, fields) => {
                if !self.env.can_make(name) {
                    return Err(format!("unknown type: {name}"));
                }
                let mut planned = Vec::with_capacity(fields.len());
                for field in fields {
                    planned.push((field.name.clone(), self.node(&field.value)?, field.optional));
                }
                Ok(Node::Struct(name.as_str().into(), planned))
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Broken => Err("unsupported expression".to_owned()),
        }
    }

    fn ident(&self, expr: &Expr, name: &str) -> Node {
        let slot = self.locals.iter().rposition(|own| own == name);
        let root = match slot {
            Some(slot) => Root::Local(slot),
            None => match self.checked.type_of(expr) {
                Type::TypeOf(_) if self.env.find_variable(name).is_some_and(|of| matches!(of, Type::TypeOf(_))) => {
                    return Node::Const(Value::Type(name.into()));
                }
                _ => Root::Global(name.to_owned()),
            },
        };
        attr(root)
    }

    fn select(&mut self, operand: &Expr, field: &str, presence: Presence) -> Planned {
        let operand = self.node(operand)?;
        let mut attr = into_attr(operand);
        let lazy = match &attr.root {
            Root::Global(name) if attr.path.is_empty() && self.env.is_lazy(name) => Some(format!("{name}.{field}")),
            _ => None,
        };
        if let Some(name) = lazy {
            if presence == Presence::Test {
                return Ok(Node::Const(Value::Bool(true)));
            }
            attr.root = Root::Lazy(name);
            return Ok(Node::Attr(Box::new(attr)));
        }
        attr.path.push(Qualifier { key: QualifierKey::Const(Value::text(field)), optional: false });
        attr.test = presence == Presence::Test;
        Ok(Node::Attr(Box::new(attr)))
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Planned {
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in call.target.as_deref().into_iter().chain(&call.args) {
            args.push(self.node(arg)?);
        }
        let overload = self.checked.overload(expr);
        match call.function.as_str() {
            "_&&_" => pair(args).map(|pair| Node::And(Box::new(pair))),
            "_||_" => pair(args).map(|pair| Node::Or(Box::new(pair))),
            "_==_" => pair(args).map(|pair| Node::Equal(Box::new(pair), true)),
            "_!=_" => pair(args).map(|pair| Node::Equal(Box::new(pair), false)),
            "@not_strictly_false" => match args.pop() {
                Some(arg) => Ok(Node::NotFalse(Box::new(arg))),
                None => Err("no such overload: @not_strictly_false()".to_owned()),
            },
            "_?_:_" => Self::conditional(args),
            "_[_]" => Self::index(args, false),
            "_[?_]" | "_?._" => Self::index(args, true),
            "or" => pair(args).map(|pair| Node::Or2(Box::new(pair), Unwrap::Keep)),
            "orValue" => pair(args).map(|pair| Node::Or2(Box::new(pair), Unwrap::Value)),
            function => Self::plain_call(function, overload, args),
        }
    }

    fn conditional(args: Vec<Node>) -> Planned {
        let mut args = args.into_iter();
        let (Some(condition), Some(yes), Some(no)) = (args.next(), args.next(), args.next()) else {
            return Err("no such overload: _?_:_".to_owned());
        };
        let branches = (condition, into_attr(yes), into_attr(no));
        Ok(attr(Root::Conditional(Box::new(branches))))
    }

    fn index(args: Vec<Node>, optional: bool) -> Planned {
        let (operand, index) = pair(args)?;
        let mut attr = into_attr(operand);
        let key = match index {
            Node::Const(value) => QualifierKey::Const(value),
            Node::Attr(own) if !own.test => QualifierKey::Attr(own),
            other => QualifierKey::Node(other),
        };
        attr.path.push(Qualifier { key, optional });
        Ok(Node::Attr(Box::new(attr)))
    }

    fn plain_call(function: &str, overload: Option<&'static str>, args: Vec<Node>) -> Planned {
        if overload == Some("in_list")
            && let [_, Node::Const(Value::List(list))] = args.as_slice()
        {
            let keys: Option<BTreeSet<Key>> = list.iter().map(|element| set_key(&element.ok()?)).collect();
            if let Some(keys) = keys {
                let wanted = args.into_iter().next().unwrap_or(Node::Const(Value::Null));
                return Ok(match keys.is_empty() {
                    true => Node::Const(Value::Bool(false)),
                    false => Node::InSet(Box::new(wanted), keys),
                });
            }
        }
        let Some(native) = native(function, overload) else {
            return Err(format!("no such overload: {function}"));
        };
        if is_conversion(function)
            && let [Node::Const(value)] = args.as_slice()
        {
            let folded = native(&mut Meter::new(u64::MAX), std::slice::from_ref(value));
            return folded.map(Node::Const).map_err(|error| error.to_string());
        }
        let run = match (function, args.get(1)) {
            ("matches" | "find" | "findAll", Some(Node::Const(Value::String(pattern)))) => {
                Run::Pattern(regexes::compile(pattern)?)
            }
            _ => Run::Native(native),
        };
        let price = price(function, overload);
        Ok(Node::Call(Box::new(CallNode { function: function.to_owned(), native: run, args, price })))
    }

    fn local(&mut self, name: &str) -> usize {
        self.locals.push(name.to_owned());
        self.slots = self.slots.max(self.locals.len());
        self.locals.len() - 1
    }

    fn fold(&mut self, fold: &Fold) -> Planned {
        let init = self.node(&fold.init)?;
        let depth = self.locals.len();
        if matches!(&fold.range.kind, Kind::List(elements) if elements.is_empty())
            && matches!(&fold.condition.kind, Kind::Literal(Value::Bool(false)))
        {
            let slot = self.local(&fold.accumulator);
            let result = self.node(&fold.result)?;
            self.locals.truncate(depth);
            let mut used = false;
            fold.result.walk(&mut |expr| used |= matches!(&expr.kind, Kind::Ident(name) if *name == fold.accumulator));
            return Ok(Node::Bind(Box::new(BindNode { slot, value: init, used, result })));
        }
        let range = self.node(&fold.range)?;
        let accumulator = self.local(&fold.accumulator);
        let var = self.local(&fold.var);
        let var2 = fold.var2.as_deref().map(|name| self.local(name));
        let condition = self.node(&fold.condition)?;
        let step = in_place(self.node(&fold.step)?, accumulator);
        self.locals.truncate(depth + 1);
        let result = self.node(&fold.result)?;
        self.locals.truncate(depth);
        let recovers = matches!(step, Node::And(_) | Node::Or(_));
        Ok(Node::Fold(Box::new(FoldNode { range, accumulator, var, var2, init, condition, step, result, recovers })))
    }
}

fn attr(root: Root) -> Node {
    Node::Attr(Box::new(Attr { root, path: Vec::new(), test: false }))
}

/// `node` as the root of selections. What is tested for presence is a value of its own.
fn into_attr(node: Node) -> Attr {
    match node {
        Node::Attr(attr) if !attr.test => *attr,
        other => Attr { root: Root::Node(other), path: Vec::new(), test: false },
    }
}

fn pair(args: Vec<Node>) -> Planned<(Node, Node)> {
    let mut args = args.into_iter();
    match (args.next(), args.next(), args.next()) {
        (Some(one), Some(other), None) => Ok((one, other)),
        _ => Err("no such overload".to_owned()),
    }
}

/// Values that can be looked up at once.
fn set_key(value: &Value<'_>) -> Option<Key> {
    match value {
        Value::Null => None,
        value => Key::of(value),
    }
}

fn is_conversion(function: &str) -> bool {
    matches!(
        function,
        "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "type" | "uint"
    )
}

fn constant_list(elements: Vec<(Node, bool)>) -> Node {
    let constant = elements.iter().all(|(element, optional)| matches!(element, Node::Const(_)) && !optional);
    if !constant {
        return Node::List(elements);
    }
    let values = elements.into_iter().filter_map(|(element, _)| match element {
        Node::Const(value) => Some(value),
        _ => None,
    });
    Node::Const(Value::list(values.collect()))
}

fn constant_map(entries: Vec<(Node, Node, bool)>) -> Node {
    let constant = entries.iter().all(|(key, value, optional)| match (key, value) {
        (Node::Const(key), Node::Const(_)) => Key::of(key).is_some() && !optional,
        _ => false,
    });
    if !constant {
        return Node::Map(entries);
    }
    let pairs = entries.into_iter().filter_map(|(key, value, _)| match (key, value) {
        (Node::Const(key), Node::Const(value)) => Some((Key::of(&key)?, (key, value))),
        _ => None,
    });
    Node::Const(Value::Map(Map::new(pairs.collect::<BTreeMap<_, _>>())))
}

/// `accumulator + [element]`, alone or where a filter holds, done without copying what was collected.
fn in_place(step: Node, accumulator: usize) -> Node {
    match step {
        Node::Call(call) if is_local(call.args.first(), accumulator) => {
            let mut args = call.args;
            match (call.function.as_str(), args.len()) {
                ("_+_", 2) if is_list(args.get(1)) => match args.pop() {
                    Some(added) => Node::Append(accumulator, Box::new(added)),
                    None => Node::List(Vec::new()),
                },
                ("cel.@mapInsert", 2 | 3) => {
                    args.remove(0);
                    Node::Insert(accumulator, args)
                }
                _ => Node::Call(Box::new(CallNode { args, ..*call })),
            }
        }
        Node::Attr(mut attr) => {
            if let (true, Root::Conditional(branches)) = (attr.path.is_empty(), &mut attr.root)
                && let Root::Node(node) = &mut branches.1.root
            {
                let step = std::mem::replace(node, Node::Const(Value::Null));
                *node = in_place(step, accumulator);
            }
            Node::Attr(attr)
        }
        other => other,
    }
}

fn is_local(node: Option<&Node>, slot: usize) -> bool {
    matches!(node, Some(Node::Attr(attr))
        if attr.path.is_empty() && matches!(attr.root, Root::Local(own) if own == slot))
}

/// Whether it can only be a list of its own.
fn is_list(node: Option<&Node>) -> bool {
    matches!(node, Some(Node::List(_) | Node::Const(Value::List(_))))
}
