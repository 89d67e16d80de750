//! Tells how far a build is, from all stages at once.

use std::sync::{Mutex, PoisonError};

use super::Progress;

/// Whoever is told.
pub(super) type Listener<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// What all stages tell to.
pub(super) struct Teller<'a>(Mutex<(Listener<'a>, usize)>);

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
        Self(Mutex::new((listener, 0)))
    }

    /// A voice for a stage of so many steps.
    pub(super) fn stage(&self, stage: Option<String>, total: usize) -> Reporter<'_, 'a> {
        Reporter { teller: self, stage, open: None, id: 0, number: 0, total }
    }

    fn tell(&self, progress: impl FnOnce(&mut usize) -> Progress) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (listener, steps) = &mut *told;
        let progress = progress(steps);
        listener(progress);
    }
}

impl Reporter<'_, '_> {
    /// An instruction begins.
    pub(super) fn step(&mut self, text: &str) {
        self.end();
        self.number += 1;
        // What a base image has others do is not in the Dockerfile.
        self.total = self.total.max(self.number);
        let mut begun = 0;
        self.teller.tell(|steps| {
            *steps += 1;
            begun = *steps;
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
}
