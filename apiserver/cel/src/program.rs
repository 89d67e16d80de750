//! A compiled expression: running it, and bounding beforehand what that can cost.

use crate::ast::Expr;
use crate::check::Checked;
use crate::error::EvalError;
use crate::estimate::{self, CostEstimate, Sizes};
use crate::eval::Machine;
use crate::plan::Plan;
use crate::stack;
use crate::types::Type;
use crate::value::Value;

/// Most an expression may cost in one evaluation, in Kubernetes.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// Most all expressions of one policy's binding, or of one custom resource, may cost together.
pub const BUDGET: u64 = 10_000_000;
/// Most all match conditions of one object may cost together.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;

/// Answers for the variables of an expression. `'v` is how long what they look at lives.
pub trait Variables<'v>: Sync {
    /// The variable `name`, or `object.field` of a lazy object; none when there is none. Called each time the
    /// variable is needed, so what is expensive should be kept.
    ///
    /// # Errors
    /// With why the variable has no value; the expression ends with it.
    fn get(&self, name: &str) -> Option<Result<Value<'v>, EvalError>>;
}

impl<'v> Variables<'v> for [(&str, Value<'v>)] {
    fn get(&self, name: &str) -> Option<Result<Value<'v>, EvalError>> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| Ok(value.clone()))
    }
}

impl<'v, const N: usize> Variables<'v> for [(&str, Value<'v>); N] {
    fn get(&self, name: &str) -> Option<Result<Value<'v>, EvalError>> {
        Variables::get(self.as_slice(), name)
    }
}

/// What came of an evaluation.
#[derive(Debug)]
pub struct Outcome<'v> {
    /// The value, or why there is none.
    pub result: Result<Value<'v>, EvalError>,
    /// What it cost, also when it went wrong.
    pub cost: u64,
}

/// A compiled expression. It can run any number of times, at the same time too.
#[derive(Debug)]
pub struct Program {
    root: Expr,
    checked: Checked,
    plan: Plan,
    /// Whether it needs more room than an ordinary thread has.
    deep: bool,
}

impl Program {
    pub(crate) fn new(root: Expr, checked: Checked, plan: Plan) -> Self {
        let deep = root.depth() > stack::SHALLOW;
        Self { root, checked, plan, deep }
    }

    /// The type of its value.
    #[must_use]
    pub fn output(&self) -> &Type {
        self.checked.type_of(&self.root)
    }

    /// Runs it; it ends when it costs more than `limit` (at most [`PER_CALL_LIMIT`] in Kubernetes).
    pub fn run<'v>(&self, variables: &dyn Variables<'v>, limit: u64) -> Outcome<'v> {
        let run = || Machine::new(variables, self.plan.slots, limit).run(&self.plan.root);
        stack::with_room(self.deep, run).unwrap_or(Outcome { result: Err(EvalError::Interrupted), cost: 0 })
    }

    /// What running it can cost, at least and at most, when what it looks at is as large as `sizes` says.
    #[must_use]
    pub fn estimate(&self, sizes: &dyn Sizes) -> CostEstimate {
        let estimate = || estimate::estimate(&self.root, &self.checked, sizes);
        stack::with_room(self.deep, estimate).unwrap_or(estimate::UNKNOWN)
    }
}
