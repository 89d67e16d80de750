//! Finds the type of every node, which form of a function each call means, and what does not fit together.

use std::collections::HashMap;

use crate::ast::{Call, Expr, Fold, Kind, Presence};
use crate::declarations::Overload;
use crate::env::Env;
use crate::issue::Issues;
use crate::types::{LETTERS, Mapping, Type, most_general, replace};
use crate::value::Value;

/// What checking found out.
#[derive(Debug)]
pub(crate) struct Checked {
    /// By the number of the node.
    types: Vec<Type>,
    /// The forms a call may mean; more than one when the types are known only later.
    overloads: HashMap<u32, Vec<&'static str>>,
}

impl Checked {
    pub(crate) fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id as usize).unwrap_or(&Type::Dyn)
    }

    pub(crate) fn overloads(&self, expr: &Expr) -> &[&'static str] {
        self.overloads.get(&expr.id).map_or(&[], Vec::as_slice)
    }

    /// The form a call means, when there is only one.
    pub(crate) fn overload(&self, expr: &Expr) -> Option<&'static str> {
        match self.overloads(expr) {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Checks `root`, which has `nodes` nodes, and writes out what names stand for.
pub(crate) fn check(env: &Env, root: &mut Expr, nodes: u32, issues: &mut Issues) -> Checked {
    let types = vec![Type::Error; nodes as usize];
    let mut checker =
        Checker { env, issues, types, overloads: HashMap::new(), mapping: Mapping::default(), scopes: Vec::new() };
    checker.check(root);
    let Checker { mut types, overloads, mapping, .. } = checker;
    for of in &mut types {
        *of = mapping.substitute(of, true);
    }
    Checked { types, overloads }
}

struct Checker<'e, 'i> {
    env: &'e Env,
    issues: &'i mut Issues,
    types: Vec<Type>,
    overloads: HashMap<u32, Vec<&'static str>>,
    mapping: Mapping,
    /// Variables of comprehensions, the innermost last.
    scopes: Vec<(String, Type)>,
}

impl Checker<'_, '_> {
    fn report(&mut self, at: u32, message: String) {
        self.issues.report(Some(at), message);
    }

    fn set(&mut self, expr: &Expr, of: Type) {
        if let Some(place) = self.types.get_mut(expr.id as usize) {
            *place = of;
        }
    }

    fn known(&self, expr: &Expr) -> Type {
        self.types.get(expr.id as usize).cloned().unwrap_or(Type::Dyn)
    }

    fn find(&self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        let local = self.scopes.iter().rev().find(|(own, _)| own == name).map(|(_, of)| of.clone());
        local.or_else(|| self.env.find_variable(name))
    }

    fn undeclared(&mut self, expr: &Expr, name: &str) {
        self.report(expr.offset, format!("undeclared reference to '{name}' (in container '')"));
        self.set(expr, Type::Error);
    }

    fn mismatch(&mut self, at: u32, expected: &Type, found: &Type) {
        self.report(at, format!("expected type '{expected}' but found '{found}'"));
    }

    fn check(&mut self, expr: &mut Expr) {
        match &mut expr.kind {
            Kind::Literal(value) => {
                let of = literal_type(value);
                self.set(expr, of);
            }
            Kind::Ident(name) => match self.find(name) {
                Some(of) => {
                    if let Some(plain) = name.strip_prefix('.') {
                        *name = plain.to_owned();
                    }
                    self.set(expr, of);
                }
                None => {
                    let name = name.clone();
                    self.undeclared(expr, &name);
                }
            },
            Kind::Select(..) => self.check_select(expr),
            Kind::Call(_) => self.check_call(expr),
            Kind::List(_) => self.check_list(expr),
            Kind::Map(_) => self.check_map(expr),
            Kind::Struct(..) => self.check_struct(expr),
            Kind::Fold(_) => self.check_fold(expr),
            Kind::Broken => self.set(expr, Type::Error),
        }
    }

    fn check_select(&mut self, expr: &mut Expr) {
        // `a.b` may be the name of one variable or type.
        if let Some(name) = expr.qualified_name()
            && let Some(of) = self.find(&name)
        {
            expr.kind = Kind::Ident(name);
            self.set(expr, of);
            return;
        }
        let at = expr.offset;
        let Kind::Select(operand, field, presence) = &mut expr.kind else { return };
        let (field, presence) = (field.clone(), *presence);
        let found = self.check_field(operand, &field, at, false);
        let of = if presence == Presence::Test { Type::Bool } else { self.mapping.substitute(&found, false) };
        self.set(expr, of);
    }

    /// The type of a field of `operand`.
    fn check_field(&mut self, operand: &mut Expr, field: &str, at: u32, optional: bool) -> Type {
        self.check(operand);
        let of = self.mapping.substitute(&self.known(operand), false);
        let (target, is_optional) = of.unwrap_optional();
        let found = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(name) if !self.env.is_object(name) => {
                self.report(at, format!("unexpected failed resolution of '{name}'"));
                Type::Error
            }
            Type::Object(name) => match self.env.find_field(name, field) {
                Some(of) => of,
                None => {
                    self.report(at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                let target = target.clone();
                self.mapping.fits(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.report(at, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if is_optional || optional { Type::optional(found) } else { found }
    }

    fn check_call(&mut self, expr: &mut Expr) {
        let at = expr.offset;
        let Kind::Call(call) = &mut expr.kind else { return };
        if call.function == "_?._" {
            self.check_optional_select(expr);
            return;
        }
        for arg in &mut call.args {
            self.check(arg);
        }
        let Some(target) = &mut call.target else {
            let name = call.function.strip_prefix('.').unwrap_or(&call.function).to_owned();
            call.function.clone_from(&name);
            match self.env.find_function(&name) {
                Some(overloads) => self.resolve(expr, overloads),
                None => self.undeclared(expr, &name),
            }
            return;
        };
        // `a.b.c()` may be a function called `a.b.c`.
        let qualified = target.qualified_name().map(|prefix| {
            let prefix = prefix.strip_prefix('.').unwrap_or(&prefix).to_owned();
            format!("{prefix}.{}", call.function)
        });
        if let Some((name, overloads)) =
            qualified.and_then(|name| self.env.find_function(&name).map(|overloads| (name, overloads)))
        {
            call.function = name;
            call.target = None;
            self.resolve(expr, overloads);
            return;
        }
        self.check(target);
        let name = call.function.clone();
        match self.env.find_function(&name) {
            Some(overloads) => self.resolve(expr, overloads),
            None => {
                self.report(at, format!("undeclared reference to '{name}' (in container '')"));
                self.set(expr, Type::Error);
            }
        }
    }

    fn check_optional_select(&mut self, expr: &mut Expr) {
        let at = expr.offset;
        let Kind::Call(Call { args, .. }) = &mut expr.kind else { return };
        let [operand, field] = args.as_mut_slice() else { return };
        let Kind::Literal(Value::String(name)) = &field.kind else { return };
        let name = name.to_string();
        self.set(field, Type::String);
        let found = self.check_field(operand, &name, at, true);
        let of = self.mapping.substitute(&found, false);
        self.set(expr, of);
        self.overloads.insert(expr.id, vec!["select_optional_field"]);
    }

    /// Finds the forms that fit the arguments.
    fn resolve(&mut self, expr: &Expr, overloads: &'static [Overload]) {
        let Kind::Call(call) = &expr.kind else { return };
        let is_method = call.target.is_some();
        let args: Vec<Type> = call.target.as_deref().into_iter().chain(&call.args).map(|arg| self.known(arg)).collect();
        if matches!(call.function.as_str(), "_&&_" | "_||_") {
            self.resolve_logic(expr, overloads, &args);
            return;
        }
        let mut fitting = Vec::new();
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.is_method == is_method) {
            let (wanted, returned) = self.instance(overload);
            // From the arguments' side, as what is learnt of a type parameter depends on it.
            if !self.mapping.fit_all(&args, &wanted) {
                continue;
            }
            fitting.push(overload.id);
            let returned = self.mapping.substitute(&returned, false);
            result = Some(match result {
                None => returned,
                Some(own) if own.is_dyn() || own == returned => own,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(result) => {
                self.overloads.insert(expr.id, fitting);
                self.set(expr, result);
            }
            None => {
                let args: Vec<String> = args.iter().map(|arg| self.mapping.substitute(arg, true).to_string()).collect();
                let signature = match (is_method, args.split_first()) {
                    (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", args.join(", ")),
                };
                let name = &call.function;
                self.report(expr.offset, format!("found no matching overload for '{name}' applied to '{signature}'"));
                self.set(expr, Type::Error);
            }
        }
    }

    fn resolve_logic(&mut self, expr: &Expr, overloads: &'static [Overload], args: &[Type]) {
        let Kind::Call(call) = &expr.kind else { return };
        let mut good = true;
        for (arg, of) in call.args.iter().zip(args) {
            if !self.mapping.fits(of, &Type::Bool) {
                self.mismatch(arg.offset, &Type::Bool, of);
                good = false;
            }
        }
        if let (true, Some(overload)) = (good, overloads.first()) {
            self.overloads.insert(expr.id, vec![overload.id]);
            self.set(expr, Type::Bool);
        } else {
            self.set(expr, Type::Error);
        }
    }

    /// The form with type parameters of its own.
    fn instance(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let mut fresh: HashMap<u32, Type> = HashMap::new();
        let mapping = &mut self.mapping;
        let mut with = |number: u32| match number {
            letter if letter >= LETTERS => fresh.entry(letter).or_insert_with(|| mapping.fresh()).clone(),
            other => Type::Param(other),
        };
        let args = overload.args.iter().map(|arg| replace(arg, &mut with)).collect();
        (args, replace(&overload.result, &mut with))
    }

    /// The type of what follows `?`.
    fn unwrap_optional(&mut self, expr: &Expr, of: &Type) -> Type {
        match of.unwrap_optional() {
            (inner, true) => inner.clone(),
            (other, false) => {
                if !other.is_dyn() {
                    self.mismatch(expr.offset, &Type::optional(other.clone()), other);
                }
                other.clone()
            }
        }
    }

    /// The type of both; anything when they do not fit (that lists are not mixed is checked on the finished types).
    fn join(&mut self, before: Option<Type>, of: &Type) -> Type {
        let Some(before) = before else { return of.clone() };
        if self.mapping.fits(&before, of) { most_general(&before, of) } else { Type::Dyn }
    }

    fn check_list(&mut self, expr: &mut Expr) {
        let Kind::List(elements) = &mut expr.kind else { return };
        let mut joined = None;
        for (element, optional) in elements {
            self.check(element);
            let mut of = self.known(element);
            if *optional {
                of = self.unwrap_optional(element, &of);
            }
            joined = Some(self.join(joined, &of));
        }
        let element = joined.unwrap_or_else(|| self.mapping.fresh());
        self.set(expr, Type::list(element));
    }

    fn check_map(&mut self, expr: &mut Expr) {
        let Kind::Map(entries) = &mut expr.kind else { return };
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let of = self.known(&entry.key);
            keys = Some(self.join(keys, &of));
            self.check(&mut entry.value);
            let mut of = self.known(&entry.value);
            if entry.optional {
                of = self.unwrap_optional(&entry.value, &of);
            }
            values = Some(self.join(values, &of));
        }
        let key = keys.unwrap_or_else(|| self.mapping.fresh());
        let value = values.unwrap_or_else(|| self.mapping.fresh());
        self.set(expr, Type::map(key, value));
    }

    fn check_struct(&mut self, expr: &mut Expr) {
        let at = expr.offset;
        let Kind::Struct(name, fields) = &mut expr.kind else { return };
        if let Some(plain) = name.strip_prefix('.') {
            *name = plain.to_owned();
        }
        let name = name.clone();
        let found = match self.find(&name) {
            None => {
                self.undeclared(expr, &name);
                return;
            }
            Some(Type::TypeOf(Some(of))) => match &*of {
                Type::Object(_) => (*of).clone(),
                other => {
                    self.report(at, format!("'{}' is not a message type", other.runtime_name()));
                    Type::Error
                }
            },
            Some(other) => {
                self.report(at, format!("'{}' is not a type", other.runtime_name()));
                Type::Error
            }
        };
        let is_object = found != Type::Error;
        for field in fields {
            self.check(&mut field.value);
            let declared = match self.env.find_field(&name, &field.name).filter(|_| is_object) {
                Some(of) => of,
                None => {
                    if is_object {
                        self.report(field.offset, format!("undefined field '{}'", field.name));
                    }
                    Type::Error
                }
            };
            let mut of = self.known(&field.value);
            if field.optional {
                of = self.unwrap_optional(&field.value, &of);
            }
            if !self.mapping.fits(&declared, &of) {
                let field_name = &field.name;
                let message =
                    format!("expected type of field '{field_name}' is '{declared}' but provided type is '{of}'");
                self.report(field.offset, message);
            }
        }
        self.set(expr, found);
    }

    fn check_fold(&mut self, expr: &mut Expr) {
        let Kind::Fold(fold) = &mut expr.kind else { return };
        let fold: &mut Fold = fold;
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.mapping.substitute(&self.known(&fold.range), false);
        let collected = self.known(&fold.init);
        let (key, value) = match &range {
            Type::List(element) => (Type::Int, (**element).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.mapping.fits(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(fold.range.offset, message);
                (Type::Error, Type::Error)
            }
        };
        let depth = self.scopes.len();
        self.scopes.push((fold.accumulator.clone(), collected.clone()));
        match &fold.var2 {
            Some(var2) => {
                self.scopes.push((fold.var.clone(), key));
                self.scopes.push((var2.clone(), value));
            }
            None => {
                let one = if matches!(range, Type::List(_)) { value } else { key };
                self.scopes.push((fold.var.clone(), one));
            }
        }
        self.check(&mut fold.condition);
        self.assert(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.assert(&fold.step, &collected);
        self.scopes.truncate(depth + 1);
        self.check(&mut fold.result);
        self.scopes.truncate(depth);
        let of = self.mapping.substitute(&self.known(&fold.result), false);
        self.set(expr, of);
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let of = self.known(expr);
        if !self.mapping.fits(wanted, &of) {
            self.mismatch(expr.offset, wanted, &of);
        }
    }
}

fn literal_type(value: &Value<'_>) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}
