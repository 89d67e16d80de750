//! What an evaluation has cost so far, and the limits that end it.

use crate::error::EvalError;

/// Work that has no price in CEL (going through a text to count its letters, compiling a pattern) is counted in
/// roughly nanoseconds; more than this in one evaluation and it ends, as Kubernetes ends it when the request's time
/// is over.
const WORK_MAX: u64 = 2_000_000_000;
/// Largest text or list a single call may make. Nothing within the cost limit needs more, but replacing every
/// letter by a long text would.
const MADE_MAX: usize = 16 * 1024 * 1024;

/// The cost of one evaluation.
#[derive(Debug)]
pub(crate) struct Meter {
    cost: u64,
    limit: u64,
    work: u64,
}

impl Meter {
    pub(crate) fn new(limit: u64) -> Self {
        Self { cost: 0, limit, work: 0 }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    /// Counts work without price.
    pub(crate) fn work(&mut self, units: u64) -> Result<(), EvalError> {
        self.work = self.work.saturating_add(units);
        if self.work > WORK_MAX { Err(EvalError::Interrupted) } else { Ok(()) }
    }

    /// Asked before something of that size is made.
    pub(crate) fn make(&mut self, size: usize) -> Result<(), EvalError> {
        if size > MADE_MAX { Err(EvalError::CostLimit) } else { self.work(size as u64) }
    }
}
