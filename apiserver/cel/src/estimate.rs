//! What an expression can cost, found without running it: by cel-go's rules with Kubernetes' on top.
//!
//! The most it can cost decides whether a rule of a custom resource is accepted, so every number here is part of
//! the API.

mod calls;

use std::collections::HashMap;

use crate::ast::{Call, Expr, Fold, Kind, Presence, UNUSED};
use crate::check::Checked;
use crate::decl::{Decl, DeclKind};
use crate::price::{MAKE_LIST, MAKE_MAP, MAKE_STRUCT};
use crate::types::Type;
use crate::value::Value;

/// A range of sizes or costs; what cannot be bounded ends at `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CostEstimate {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

/// Elements, letters or bytes of a value.
pub type SizeEstimate = CostEstimate;

/// Nothing is known.
pub(crate) const UNKNOWN: SizeEstimate = CostEstimate { min: 0, max: u64::MAX };

impl CostEstimate {
    /// Exactly that much.
    #[must_use]
    pub const fn fixed(cost: u64) -> Self {
        Self { min: cost, max: cost }
    }

    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    #[must_use]
    pub(crate) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    #[must_use]
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    #[must_use]
    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

fn scaled(size: u64, factor: f64) -> u64 {
    // The cast saturates, so what is too much stays too much.
    crate::price::scaled(size, factor)
}

/// Answers how large the values are that an expression looks at.
pub trait Sizes: Sync {
    /// The size of what `path` leads to: a variable, then names of fields, `@items`, `@values` or `@keys`. None when
    /// nothing is known.
    fn size(&self, path: &[&str]) -> Option<SizeEstimate>;
}

/// The sizes a declaration says, for variables that are all declared by it. As in Kubernetes, the name of the
/// variable is of no account: whatever is no field of an object is taken for the object.
#[derive(Debug, Clone, Copy)]
pub struct DeclaredSizes<'d> {
    /// The declaration.
    pub decl: &'d Decl,
}

impl Sizes for DeclaredSizes<'_> {
    fn size(&self, path: &[&str]) -> Option<SizeEstimate> {
        let (_, rest) = path.split_first()?;
        let mut decl = self.decl;
        for name in rest {
            match (&decl.kind, *name) {
                // The keys of a map are texts of which no length is known, which Kubernetes counts as none.
                (DeclKind::Map(_), "@keys") => return Some(SizeEstimate::default()),
                (_, name) => decl = decl.element(name)?,
            }
        }
        Some(SizeEstimate { min: 0, max: decl.max_elements.unwrap_or(0) })
    }
}

/// Nothing is known of any size.
#[derive(Debug, Clone, Copy)]
pub struct NoSizes;

impl Sizes for NoSizes {
    fn size(&self, _path: &[&str]) -> Option<SizeEstimate> {
        None
    }
}

pub(crate) fn estimate(root: &Expr, checked: &Checked, sizes: &dyn Sizes) -> CostEstimate {
    let mut estimator = Estimator {
        checked,
        sizes,
        paths: HashMap::new(),
        computed: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(root)
}

type Path = Vec<String>;

/// Sizes of keys and values in a list or map.
#[derive(Debug, Clone, Copy)]
struct Entries {
    is_list: bool,
    key: SizeEstimate,
    value: SizeEstimate,
}

#[derive(Debug)]
struct Local {
    name: String,
    path: Path,
    size: Option<SizeEstimate>,
    entries: Option<Entries>,
}

struct Estimator<'e> {
    checked: &'e Checked,
    sizes: &'e dyn Sizes,
    /// By the number of the node.
    paths: HashMap<u32, Path>,
    computed: HashMap<u32, SizeEstimate>,
    entries: HashMap<u32, Entries>,
    locals: Vec<Local>,
}

impl Estimator<'_> {
    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    /// A path one longer; what leads nowhere stays so.
    fn longer(&self, expr: &Expr, last: &str) -> Path {
        let mut path = self.path(expr);
        path.push(last.to_owned());
        path
    }

    fn at(&self, path: &[String]) -> Option<SizeEstimate> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        self.sizes.size(&path)
    }

    fn set_size(&mut self, expr: &Expr, size: Option<SizeEstimate>) {
        if let Some(size) = size {
            self.computed.insert(expr.id, size);
        }
    }

    fn size(&mut self, expr: &Expr) -> Option<SizeEstimate> {
        if let Some(size) = self.computed.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(expr) {
            return Some(size);
        }
        let path = self.path(expr);
        if let Some(size) = self.at(&path) {
            self.computed.insert(expr.id, size);
            return Some(size);
        }
        if self.checked.type_of(expr).is_scalar() {
            return Some(SizeEstimate::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> SizeEstimate {
        self.size(expr).unwrap_or(UNKNOWN)
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        }
    }

    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            Kind::Literal(_) | Kind::Broken => CostEstimate::default(),
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                CostEstimate::fixed(1)
            }
            Kind::Select(operand, field, presence) => self.select(expr, operand, field, *presence),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => self.list(expr, elements),
            Kind::Map(entries) => {
                let (mut sum, mut keys, mut values) = (CostEstimate::fixed(MAKE_MAP), None, None);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    keys = widen(keys, self.size_or_unknown(&entry.key));
                    values = widen(values, self.size_or_unknown(&entry.value));
                }
                let (key, value) = (keys.unwrap_or_default(), values.unwrap_or_default());
                self.entries.insert(expr.id, Entries { is_list: false, key, value });
                sum
            }
            Kind::Struct(_, fields) => {
                let costs = fields.iter().map(|field| self.cost(&field.value));
                costs.fold(CostEstimate::fixed(MAKE_STRUCT), CostEstimate::plus)
            }
            Kind::Fold(fold) if fold.var == UNUSED => self.bind(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, presence: Presence) -> CostEstimate {
        let mut sum = self.cost(operand);
        if presence == Presence::Test {
            return sum;
        }
        if matches!(self.checked.type_of(operand), Type::Map(..) | Type::Object(_) | Type::Param(_)) {
            sum = sum.plus(CostEstimate::fixed(1));
        }
        let path = self.longer(operand, field);
        self.paths.insert(expr.id, path);
        sum
    }

    fn list(&mut self, expr: &Expr, elements: &[(Expr, bool)]) -> CostEstimate {
        let (mut sum, mut items) = (CostEstimate::fixed(MAKE_LIST), None);
        for (element, _) in elements {
            sum = sum.plus(self.cost(element));
            items = widen(items, self.size_or_unknown(element));
        }
        let entries = Entries { is_list: true, key: SizeEstimate::fixed(1), value: items.unwrap_or_default() };
        self.entries.insert(expr.id, entries);
        sum
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> CostEstimate {
        if let ("dyn", [arg]) = (call.function.as_str(), call.args.as_slice()) {
            let cost = self.cost(arg);
            self.copy_sizes(expr, arg);
            return cost.plus(CostEstimate::fixed(1));
        }
        let costs: Vec<CostEstimate> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let overloads = self.checked.overloads(expr);
        if overloads.is_empty() {
            return CostEstimate::default();
        }
        let target = call.target.as_deref().map(|target| self.cost(target)).unwrap_or_default();
        let mut of_call: Option<CostEstimate> = None;
        let mut result: Option<SizeEstimate> = None;
        for overload in overloads {
            let (cost, size) = self.overload(expr, call, overload, &costs);
            of_call = widen(of_call, cost);
            result = match (result, size) {
                (Some(own), Some(other)) => Some(own.union(other)),
                (own, other) => own.or(other),
            };
            if let (Some(of), "index_list" | "index_map") = (call.args.first(), *overload) {
                result = self.entries_of(of).map(|entries| entries.value);
                let path = self.longer(of, if *overload == "index_list" { "@items" } else { "@values" });
                self.paths.insert(expr.id, path);
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        self.set_size(expr, result);
        target.plus(of_call.unwrap_or_default())
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        let size = self.size(from);
        self.set_size(to, size);
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn push(&mut self, name: &str, path: Path, size: Option<SizeEstimate>, entries: Option<Entries>) {
        self.locals.push(Local { name: name.to_owned(), path, size, entries });
    }

    /// Makes the accumulator known by what it starts with.
    fn push_value(&mut self, name: &str, value: &Expr) {
        let (path, size, entries) = (self.path(value), self.size(value), self.entries_of(value));
        self.push(name, path, size, entries);
    }

    fn push_iteration(&mut self, fold: &Fold) {
        let entries = self.entries_of(&fold.range);
        let is_list = match entries {
            Some(entries) => entries.is_list,
            None => matches!(self.checked.type_of(&fold.range), Type::List(_)),
        };
        let key = entries.map(|entries| entries.key);
        let value = entries.map(|entries| entries.value);
        let (keys, values) = if is_list { ("@indices", "@items") } else { ("@keys", "@values") };
        match &fold.var2 {
            Some(var2) => {
                let path = self.longer(&fold.range, keys);
                self.push(&fold.var, path, key, None);
                let path = self.longer(&fold.range, values);
                self.push(var2, path, value, None);
            }
            None => {
                let path = self.longer(&fold.range, if is_list { values } else { keys });
                self.push(&fold.var, path, if is_list { value } else { key }, None);
            }
        }
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        let depth = self.locals.len();
        self.push_value(&fold.accumulator, &fold.init);
        self.push_iteration(fold);
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.locals.truncate(depth + 1);
        sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(depth);
        let rounds = self.size_or_unknown(&fold.range);
        sum = sum.plus(rounds.times(step.plus(condition)));
        match &fold.init.kind {
            Kind::Literal(_) => {
                let size = self.size(&fold.init);
                self.set_size(expr, size);
            }
            Kind::List(_) | Kind::Map(_) => {
                self.set_size(expr, Some(rounds));
                if let Some(entries) = self.entries_of(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn bind(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_value(&fold.accumulator, &fold.init);
        let sum = sum.plus(self.cost(&fold.result));
        self.locals.pop();
        self.copy_sizes(expr, &fold.result);
        sum
    }
}

fn widen(own: Option<CostEstimate>, other: CostEstimate) -> Option<CostEstimate> {
    Some(own.map_or(other, |own| own.union(other)))
}

/// The size of what is written out.
fn literal_size(expr: &Expr) -> Option<SizeEstimate> {
    let size = match &expr.kind {
        Kind::Literal(value @ (Value::String(_) | Value::Bytes(_))) => value.size(),
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len() as u64,
        Kind::Map(entries) => entries.len() as u64,
        _ => return None,
    };
    Some(SizeEstimate::fixed(size))
}
