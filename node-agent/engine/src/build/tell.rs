//! Tells how far a build is, from all stages at once.

use std::sync::{Mutex, PoisonError};

use super::Progress;

/// Whoever is told.
pub(super) type Listener<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// What all stages tell to.
pub(super) struct Teller<'a>(Mutex<Told<'a>>);

struct Told<'a> {
    listener: Listener<'a>,
    planned: usize,
    begun: usize,
}

/// One stage's voice.
pub(super) struct Reporter<'r, 't> {
    teller: &'r Teller<'t>,
    stage: Option<String>,
    /// The step that is under way, unless its result was known.
    open: Option<usize>,
    id: usize,
    number: usize,
    total: usize,
}

impl<'a> Teller<'a> {
    pub(super) fn new(listener: Listener<'a>) -> Self {
        Self(Mutex::new(Told { listener, planned: 0, begun: 0 }))
    }

    /// So many more steps are to be carried out.
    pub(super) fn plan(&self, steps: usize) {
        self.tell(|told| {
            told.planned += steps;
            Progress::Planned { steps: told.planned }
        });
    }

    /// A voice for a stage of so many steps.
    pub(super) fn stage(&self, stage: Option<String>, total: usize) -> Reporter<'_, 'a> {
        Reporter { teller: self, stage, open: None, id: 0, number: 0, total }
    }

    fn tell(&self, progress: impl FnOnce(&mut Told<'a>) -> Progress) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = progress(&mut told);
        (told.listener)(progress);
    }
}

impl Reporter<'_, '_> {
    /// There are more steps than the Dockerfile has: what the base image has others do.
    pub(super) fn plan(&mut self, steps: usize) {
        if steps > 0 {
            self.total += steps;
            self.teller.plan(steps);
        }
    }

    /// An instruction begins.
    pub(super) fn step(&mut self, text: &str) {
        self.end();
        self.number += 1;
        let mut begun = 0;
        self.teller.tell(|told| {
            told.begun += 1;
            begun = told.begun;
            let (stage, number, total) = (self.stage.clone(), self.number, self.total);
            Progress::Step { id: begun, stage, number, total, text: text.to_owned() }
        });
        self.id = begun;
        self.open = Some(begun);
    }

    /// A command has written a line.
    pub(super) fn output(&self, line: &str) {
        self.teller.tell(|_| Progress::Output { id: self.id, line: line.to_owned() });
    }

    /// The instruction's result was known.
    pub(super) fn cached(&mut self) {
        self.open = None;
        self.teller.tell(|_| Progress::Cached { id: self.id });
    }

    /// The instruction that began last has been carried out.
    pub(super) fn end(&mut self) {
        if let Some(id) = self.open.take() {
            self.teller.tell(|_| Progress::Done { id });
        }
    }
    /// The instruction that began last failed.
    pub(super) fn fail(&mut self, message: &str) {
        if let Some(id) = self.open.take() {
            self.teller.tell(|_| Progress::Failed { id, message: message.to_owned() });
        }
    }

    /// The instruction that began last was given up.
    pub(super) fn stop(&mut self) {
        if let Some(id) = self.open.take() {
            self.teller.tell(|_| Progress::Stopped { id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_that_begins_ends_once_in_one_way() {
        let mut told = Vec::new();
        let mut listener = |progress| told.push(progress);
        let teller = Teller::new(&mut listener);
        teller.plan(3);
        let (mut one, mut two) = (teller.stage(Some("one".to_owned()), 2), teller.stage(None, 1));
        one.step("FROM a");
        one.plan(1);
        one.plan(0);
        one.step("RUN x");
        two.step("RUN y");
        one.fail("exit code: 1");
        one.stop();
        two.stop();
        two.end();
        let step = |id, stage: Option<&str>, number, total, text: &str| {
            let (stage, text) = (stage.map(str::to_owned), text.to_owned());
            Progress::Step { id, stage, number, total, text }
        };
        let expected = [
            Progress::Planned { steps: 3 },
            step(1, Some("one"), 1, 2, "FROM a"),
            Progress::Planned { steps: 4 },
            Progress::Done { id: 1 },
            step(2, Some("one"), 2, 3, "RUN x"),
            step(3, None, 1, 1, "RUN y"),
            Progress::Failed { id: 2, message: "exit code: 1".to_owned() },
            Progress::Stopped { id: 3 },
        ];
        assert_eq!(told, expected);
    }
}
