//! The syntax tree of an expression, as the parser leaves it: macros are already written out.

use crate::value::Value;

/// The variable a comprehension collects its result in; no user can write it.
pub(crate) const ACCUMULATOR: &str = "@result";
/// The iteration variable of a comprehension that only binds a name.
pub(crate) const UNUSED: &str = "#unused";

/// One node. `id` is its index in the tables of types and references.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) id: u32,
    /// Where it is, in code points; what a macro made is where the macro was called.
    pub(crate) offset: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Value<'static>),
    Ident(String),
    Select(Box<Expr>, String, Presence),
    Call(Call),
    /// The elements and, for each, whether it was written `?element`.
    List(Vec<(Expr, bool)>),
    Map(Vec<Entry>),
    Struct(String, Vec<Field>),
    Fold(Box<Fold>),
    /// What could not be parsed; only together with an issue.
    Broken,
}

/// Whether a selection reads the field or only asks whether it is there (`has(a.b)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Read,
    Test,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: String,
    pub(crate) target: Option<Box<Expr>>,
    pub(crate) args: Vec<Expr>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) offset: u32,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// A comprehension: go through `range`, and while `condition` is not false replace the accumulator by `step`.
#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub(crate) range: Expr,
    pub(crate) var: String,
    pub(crate) var2: Option<String>,
    pub(crate) accumulator: String,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

impl Expr {
    /// Visits this node and all below it, parents first.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(&Expr)) {
        visit(self);
        self.for_each_child(&mut |child| child.walk(visit));
    }

    /// Visits the nodes directly below.
    pub(crate) fn for_each_child(&self, visit: &mut dyn FnMut(&Expr)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::Broken => {}
            Kind::Select(operand, ..) => visit(operand),
            Kind::Call(call) => {
                if let Some(target) = &call.target {
                    visit(target);
                }
                call.args.iter().for_each(visit);
            }
            Kind::List(elements) => elements.iter().for_each(|(element, _)| visit(element)),
            Kind::Map(entries) => {
                for entry in entries {
                    visit(&entry.key);
                    visit(&entry.value);
                }
            }
            Kind::Struct(_, fields) => fields.iter().for_each(|field| visit(&field.value)),
            Kind::Fold(fold) => {
                for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                    visit(part);
                }
            }
        }
    }

    /// How many nodes are above each other.
    pub(crate) fn depth(&self) -> usize {
        let mut deepest = 0;
        self.for_each_child(&mut |child| deepest = deepest.max(child.depth()));
        deepest + 1
    }

    /// `a.b.c` as a name, when it is one.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select(operand, field, Presence::Read) => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }
}
