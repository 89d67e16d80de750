//! The macros: `has`, the comprehensions over one and two variables, `optMap`, `optFlatMap`, `sortBy`.
//!
//! Each becomes plain nodes at the place of the call. What it becomes is cel-go's, since the cost of an expression
//! is that of its expansion.

use crate::ast::{ACCUMULATOR, Call, Expr, Fold, Kind, Presence};
use crate::parser::{Nodes, bind};
use crate::value::Value;

/// A macro whose arguments do not have its form.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) offset: u32,
    pub(crate) message: String,
}

fn refuse<T>(at: &Expr, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { offset: at.offset, message: message.into() })
}

/// What `call` stands for: itself, unless it is a macro's.
pub(crate) fn expand(call: Call, offset: u32, nodes: &mut Nodes) -> Result<Kind, Refused> {
    let mut make = Maker { nodes, offset };
    let Call { function, target, args } = call;
    let macro_of = |with_target: bool| (function.as_str(), args.len(), with_target);
    let Some(target) = target else {
        return match macro_of(false) {
            ("has", 1, _) => has(args),
            _ => Ok(Kind::Call(Call { function, target: None, args })),
        };
    };
    match macro_of(true) {
        ("all" | "exists" | "exists_one", 2 | 3, _) | ("existsOne", 3, _) => {
            quantifier(&mut make, &function, *target, args)
        }
        ("map", 2 | 3, _) => map(&mut make, *target, args),
        ("filter", 2, _) => filter(&mut make, *target, args),
        ("optMap" | "optFlatMap", 2, _) => opt_map(&mut make, &function, &target, args),
        ("sortBy", 2, _) => sort_by(&mut make, *target, args),
        ("transformList" | "transformMap", 3 | 4, _) | ("transformMapEntry", 3 | 4, _) => {
            transform(&mut make, &function, *target, args)
        }
        _ => Ok(Kind::Call(Call { function, target: Some(target), args })),
    }
}

/// Makes nodes at the place of one macro call.
struct Maker<'n> {
    nodes: &'n mut Nodes,
    offset: u32,
}

impl Maker<'_> {
    fn make(&mut self, kind: Kind) -> Expr {
        self.nodes.make(self.offset, kind)
    }

    fn literal(&mut self, value: Value<'static>) -> Expr {
        self.make(Kind::Literal(value))
    }

    fn accumulator(&mut self) -> Expr {
        self.make(Kind::Ident(ACCUMULATOR.to_owned()))
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.make(Kind::Call(Call { function: function.to_owned(), target: None, args }))
    }

    fn member_call(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        self.make(Kind::Call(Call { function: function.to_owned(), target: Some(Box::new(target)), args }))
    }

    /// A copy with numbers of its own.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        // The number only; what the copy is made of stays.
        expr.id = self.nodes.make(expr.offset, Kind::Broken).id;
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::Broken => {}
            Kind::Select(operand, ..) => self.renumber(operand),
            Kind::Call(call) => {
                if let Some(target) = &mut call.target {
                    self.renumber(target);
                }
                call.args.iter_mut().for_each(|arg| self.renumber(arg));
            }
            Kind::List(elements) => elements.iter_mut().for_each(|(element, _)| self.renumber(element)),
            Kind::Map(entries) => {
                for entry in entries {
                    self.renumber(&mut entry.key);
                    self.renumber(&mut entry.value);
                }
            }
            Kind::Struct(_, fields) => fields.iter_mut().for_each(|field| self.renumber(&mut field.value)),
            Kind::Fold(fold) => {
                let Fold { range, init, condition, step, result, .. } = &mut **fold;
                for part in [range, init, condition, step, result] {
                    self.renumber(part);
                }
            }
        }
    }
}

/// A comprehension with the usual accumulator.
struct Loop {
    range: Expr,
    vars: (String, Option<String>),
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

impl Loop {
    fn kind(self) -> Kind {
        let (var, var2) = self.vars;
        Kind::Fold(Box::new(Fold {
            range: self.range,
            var,
            var2,
            accumulator: ACCUMULATOR.to_owned(),
            init: self.init,
            condition: self.condition,
            step: self.step,
            result: self.result,
        }))
    }
}

fn simple_name(arg: &Expr, otherwise: &str) -> Result<String, Refused> {
    match &arg.kind {
        Kind::Ident(name) if name == "__result__" => refuse(arg, "iteration variable overwrites accumulator variable"),
        Kind::Ident(name) => Ok(name.clone()),
        _ => refuse(arg, otherwise),
    }
}

/// Takes the first arguments as iteration variables: two when there are more than `without` arguments.
fn variables(args: &mut std::vec::IntoIter<Expr>, two: bool) -> Result<(String, Option<String>), Refused> {
    const NAME: &str = "argument must be a simple name";
    let (Some(first), true) = (args.next(), two) else {
        return Err(Refused { offset: 0, message: NAME.to_owned() });
    };
    let second = args.next();
    let first_name = simple_name(&first, NAME)?;
    let Some(second) = second else { return Ok((first_name, None)) };
    let second_name = simple_name(&second, NAME)?;
    if first_name == second_name {
        return refuse(&second, format!("duplicate variable name: {first_name}"));
    }
    Ok((first_name, Some(second_name)))
}

fn has(args: Vec<Expr>) -> Result<Kind, Refused> {
    let Some(arg) = args.into_iter().next() else {
        return Err(Refused { offset: 0, message: "invalid argument to has() macro".to_owned() });
    };
    match arg.kind {
        Kind::Select(operand, field, Presence::Read) => Ok(Kind::Select(operand, field, Presence::Test)),
        _ => refuse(&arg, "invalid argument to has() macro"),
    }
}

fn quantifier(make: &mut Maker<'_>, function: &str, range: Expr, args: Vec<Expr>) -> Result<Kind, Refused> {
    let two = args.len() == 3;
    let mut args = args.into_iter();
    let vars = match two {
        true => variables(&mut args, true)?,
        false => match args.next() {
            Some(first) => (simple_name(&first, "argument must be a simple name")?, None),
            None => return refuse(&range, "argument must be a simple name"),
        },
    };
    let Some(predicate) = args.next() else { return refuse(&range, "argument must be a simple name") };
    let (init, condition, step, result);
    match function {
        "all" => {
            init = make.literal(Value::Bool(true));
            let collected = make.accumulator();
            condition = make.call("@not_strictly_false", vec![collected]);
            let collected = make.accumulator();
            step = make.call("_&&_", vec![collected, predicate]);
            result = make.accumulator();
        }
        "exists" => {
            init = make.literal(Value::Bool(false));
            let collected = make.accumulator();
            let negated = make.call("!_", vec![collected]);
            condition = make.call("@not_strictly_false", vec![negated]);
            let collected = make.accumulator();
            step = make.call("_||_", vec![collected, predicate]);
            result = make.accumulator();
        }
        _ => {
            init = make.literal(Value::Int(0));
            condition = make.literal(Value::Bool(true));
            let (collected, one) = (make.accumulator(), make.literal(Value::Int(1)));
            let more = make.call("_+_", vec![collected, one]);
            let same = make.accumulator();
            step = make.call("_?_:_", vec![predicate, more, same]);
            let (collected, one) = (make.accumulator(), make.literal(Value::Int(1)));
            result = make.call("_==_", vec![collected, one]);
        }
    }
    Ok(Loop { range, vars, init, condition, step, result }.kind())
}

/// The loop of `map`, `filter` and `transformList`: collects `element` where `predicate` holds.
fn collect(
    make: &mut Maker<'_>,
    range: Expr,
    vars: (String, Option<String>),
    predicate: Option<Expr>,
    element: Expr,
) -> Kind {
    let init = make.make(Kind::List(Vec::new()));
    let condition = make.literal(Value::Bool(true));
    let (collected, one) = (make.accumulator(), make.make(Kind::List(vec![(element, false)])));
    let step = make.call("_+_", vec![collected, one]);
    finish(
        make,
        Loop { range, vars, init, condition, step, result: Expr { id: 0, offset: 0, kind: Kind::Broken } },
        predicate,
    )
}

/// Puts `predicate` before the step of `of`, and the accumulator as its result.
fn finish(make: &mut Maker<'_>, mut of: Loop, predicate: Option<Expr>) -> Kind {
    if let Some(predicate) = predicate {
        let same = make.accumulator();
        of.step = make.call("_?_:_", vec![predicate, of.step, same]);
    }
    of.result = make.accumulator();
    of.kind()
}

fn map(make: &mut Maker<'_>, range: Expr, args: Vec<Expr>) -> Result<Kind, Refused> {
    let filtered = args.len() == 3;
    let mut args = args.into_iter();
    let var = match args.next() {
        Some(first) => simple_name(&first, "argument is not an identifier")?,
        None => return refuse(&range, "argument is not an identifier"),
    };
    let predicate = if filtered { args.next() } else { None };
    let Some(element) = args.next() else { return refuse(&range, "argument is not an identifier") };
    Ok(collect(make, range, (var, None), predicate, element))
}

fn filter(make: &mut Maker<'_>, range: Expr, args: Vec<Expr>) -> Result<Kind, Refused> {
    let mut args = args.into_iter();
    let (Some(element), Some(predicate)) = (args.next(), args.next()) else {
        return refuse(&range, "argument is not an identifier");
    };
    let var = simple_name(&element, "argument is not an identifier")?;
    Ok(collect(make, range, (var, None), Some(predicate), element))
}

fn transform(make: &mut Maker<'_>, function: &str, range: Expr, args: Vec<Expr>) -> Result<Kind, Refused> {
    let filtered = args.len() == 4;
    let mut args = args.into_iter();
    let vars = variables(&mut args, true)?;
    let predicate = if filtered { args.next() } else { None };
    let Some(element) = args.next() else { return refuse(&range, "argument must be a simple name") };
    if function == "transformList" {
        return Ok(collect(make, range, vars, predicate, element));
    }
    let collected = make.accumulator();
    let inserted = match function {
        "transformMap" => vec![collected, make.make(Kind::Ident(vars.0.clone())), element],
        _ => vec![collected, element],
    };
    let step = make.call("cel.@mapInsert", inserted);
    let init = make.make(Kind::Map(Vec::new()));
    let condition = make.literal(Value::Bool(true));
    let result = Expr { id: 0, offset: 0, kind: Kind::Broken };
    Ok(finish(make, Loop { range, vars, init, condition, step, result }, predicate))
}

fn opt_map(make: &mut Maker<'_>, function: &str, target: &Expr, args: Vec<Expr>) -> Result<Kind, Refused> {
    let mut args = args.into_iter();
    let (Some(var), Some(element)) = (args.next(), args.next()) else {
        return refuse(target, "invalid arguments");
    };
    let Kind::Ident(name) = &var.kind else {
        return refuse(&var, format!("{function}() variable name must be a simple identifier"));
    };
    if make.nodes.are_too_many() {
        // The parser says so.
        return Ok(Kind::Broken);
    }
    let has_value = make.member_call("hasValue", target.clone(), Vec::new());
    let copy = make.copy(target);
    let value = make.member_call("value", copy, Vec::new());
    let bound = bind(make.nodes, make.offset, name, value, element);
    let bound = make.make(bound);
    let some = if function == "optMap" { make.call("optional.of", vec![bound]) } else { bound };
    let none = make.call("optional.none", Vec::new());
    Ok(Kind::Call(Call { function: "_?_:_".to_owned(), target: None, args: vec![has_value, some, none] }))
}

fn sort_by(make: &mut Maker<'_>, target: Expr, args: Vec<Expr>) -> Result<Kind, Refused> {
    const INPUT: &str = "@__sortBy_input__";
    if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct(..)) {
        let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return refuse(&target, message);
    }
    let input = make.make(Kind::Ident(INPUT.to_owned()));
    let keys = map(make, input, args)?;
    let keys = make.make(keys);
    let list = make.make(Kind::Ident(INPUT.to_owned()));
    let sorted = make.member_call("@sortByAssociatedKeys", list, vec![keys]);
    Ok(bind(make.nodes, make.offset, INPUT, target, sorted))
}
