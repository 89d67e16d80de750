//! Who builds which stage, and who waits for it: each is built once, by whoever needs it first.
//!
//! Stages stand on earlier ones only, and threads take them in order. So whoever waits for a stage waits for one that
//! somebody is at already, and somebody always gets on.

use std::sync::{Condvar, Mutex, PoisonError};

use super::stage::Done;

/// All stages of a build.
pub(super) struct Board {
    stages: Mutex<Vec<State>>,
    changed: Condvar,
}

enum State {
    Free,
    Taken,
    Done(Box<Done>),
    Failed,
}

/// What becomes of somebody who needs a stage.
pub(super) enum Claim<'b> {
    /// They are to build it.
    Mine(Claimed<'b>),
    /// It is there.
    Done(Box<Done>),
    /// It will not come.
    Failed,
}

/// A stage that is being built. Dropped without a result, it has failed.
pub(super) struct Claimed<'b> {
    board: &'b Board,
    index: usize,
}

impl Board {
    pub(super) fn new(stages: usize) -> Self {
        Self { stages: Mutex::new((0..stages).map(|_| State::Free).collect()), changed: Condvar::new() }
    }

    /// Takes a stage, or waits until whoever has taken it is done.
    pub(super) fn claim(&self, index: usize) -> Claim<'_> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match stages.get_mut(index) {
                Some(state @ State::Free) => {
                    *state = State::Taken;
                    return Claim::Mine(Claimed { board: self, index });
                }
                Some(State::Taken) => {}
                Some(State::Done(done)) => return Claim::Done(done.clone()),
                Some(State::Failed) | None => return Claim::Failed,
            }
            stages = self.changed.wait(stages).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn settle(&self, index: usize, state: State) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = stages.get_mut(index) {
            *own = state;
        }
        self.changed.notify_all();
    }
}

impl Claimed<'_> {
    /// It is built.
    pub(super) fn finish(self, done: Done) {
        self.board.settle(self.index, State::Done(Box::new(done)));
        std::mem::forget(self);
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.board.settle(self.index, State::Failed);
    }
}
