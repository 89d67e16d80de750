//! What is known of a build's steps, whatever way it is shown. Pure: the time since the build began is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use reeve_engine::build::Progress;

use super::text::clean;

/// As many of the last lines of a step are kept, for when it fails.
const LINES_MAX: usize = 256;
/// So much is kept of a line.
const LINE_BYTES_MAX: usize = 16 << 10;

/// All steps.
#[derive(Debug, Default)]
pub(super) struct Trace {
    planned: usize,
    steps: BTreeMap<usize, Step>,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    /// `[builder 2/4] RUN make`, with nothing for a terminal in it, whatever the Dockerfile has.
    pub name: String,
    pub began: Duration,
    pub end: Option<End>,
    /// What it wrote last, each line with the step's time.
    pub log: VecDeque<(Duration, String)>,
    /// Bytes that it wrote.
    pub written: usize,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done(Duration),
    Cached,
    Failed(Duration),
    Stopped(Duration),
}

impl Trace {
    /// Takes in what happened.
    pub(super) fn take(&mut self, progress: &Progress, now: Duration) {
        match progress {
            Progress::Planned { steps } => self.planned = *steps,
            Progress::Step { id, stage, number, total, text } => {
                let stage = stage.as_ref().map(|stage| format!("{stage} ")).unwrap_or_default();
                let name = clean(&format!("[{stage}{number}/{total}] {text}"));
                self.steps.insert(*id, Step { name, began: now, end: None, log: VecDeque::new(), written: 0 });
            }
            Progress::Output { id, line } => {
                if let Some(step) = self.steps.get_mut(id) {
                    step.wrote(line, now);
                }
            }
            Progress::Cached { id } => self.end(*id, End::Cached),
            Progress::Done { id } => self.end(*id, End::Done(now)),
            Progress::Failed { id, .. } => self.end(*id, End::Failed(now)),
            Progress::Stopped { id } => self.end(*id, End::Stopped(now)),
            Progress::Warning(_) => {}
        }
    }

    fn end(&mut self, id: usize, end: End) {
        if let Some(step) = self.steps.get_mut(&id) {
            step.end = Some(end);
            if !matches!(end, End::Failed(_)) {
                step.log = VecDeque::new();
            }
        }
    }

    pub(super) fn step(&self, id: usize) -> Option<&Step> {
        self.steps.get(&id)
    }

    /// In the order in which they began.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.values()
    }

    /// How many steps have ended, and how many there will be.
    pub(super) fn count(&self) -> (usize, usize) {
        let ended = self.steps.values().filter(|step| step.end.is_some()).count();
        (ended, self.planned.max(self.steps.len()))
    }

    /// What the failed steps wrote, as BuildKit ends with it. `shown` makes a text fit for where it goes.
    pub(super) fn failures(&self, shown: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for step in self.steps.values().filter(|step| matches!(step.end, Some(End::Failed(_)))) {
            text.push_str(&format!("------\n > {}:\n", step.name));
            for (at, line) in &step.log {
                text.push_str(&format!("{} {}\n", stamp(*at), shown(line)));
            }
            text.push_str("------\n");
        }
        text
    }
}

impl Step {
    fn wrote(&mut self, line: &str, now: Duration) {
        self.written = self.written.saturating_add(line.len() + 1);
        if self.log.len() >= LINES_MAX {
            self.log.pop_front();
        }
        let end = (0..=LINE_BYTES_MAX.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        let kept = line.get(..end).unwrap_or(line);
        self.log.push_back((now.saturating_sub(self.began), kept.to_owned()));
    }

    /// How long it took, or takes so far.
    pub(super) fn took(&self, now: Duration) -> Duration {
        match self.end {
            Some(End::Cached) => Duration::ZERO,
            Some(End::Done(at) | End::Failed(at) | End::Stopped(at)) => at.saturating_sub(self.began),
            None => now.saturating_sub(self.began),
        }
    }
}

/// When in its step a line came: seconds, to four digits or so.
pub(super) fn stamp(at: Duration) -> String {
    let seconds = at.as_secs_f64();
    let digits = match seconds {
        ..10.0 => 3,
        ..100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_what_a_failed_step_wrote_is_kept() {
        let mut trace = Trace::default();
        let at = Duration::from_secs;
        let step = |id| Progress::Step { id, stage: None, number: id, total: 2, text: "RUN x".to_owned() };
        trace.take(&step(1), at(1));
        trace.take(&Progress::Output { id: 1, line: "of the other".to_owned() }, at(1));
        trace.take(&Progress::Done { id: 1 }, at(2));
        trace.take(&step(2), at(2));
        trace.take(&Progress::Output { id: 2, line: "é".repeat(LINE_BYTES_MAX) }, at(2));
        for n in 0..LINES_MAX - 1 {
            trace.take(&Progress::Output { id: 2, line: format!("line {n}") }, at(14));
        }
        assert_eq!(trace.failures(str::to_owned), "", "it has not failed yet");
        trace.take(&Progress::Failed { id: 2, message: "no".to_owned() }, at(15));
        let failures = trace.failures(str::to_owned);
        assert!(failures.starts_with("------\n > [2/2] RUN x:\n0.000 é"), "{failures}");
        assert!(failures.ends_with("12.00 line 254\n------\n"), "{failures}");
        assert_eq!(failures.matches('é').count() * 2, LINE_BYTES_MAX);
        trace.take(&Progress::Output { id: 2, line: "more".to_owned() }, at(15));
        assert!(!trace.failures(str::to_owned).contains('é'), "the oldest line went");
    }

    #[test]
    fn the_time_of_a_line_has_four_digits() {
        let stamp = |millis| stamp(Duration::from_millis(millis));
        assert_eq!([stamp(7), stamp(12_345), stamp(123_456)], ["0.007", "12.35", "123.5"].map(str::to_owned));
    }
}
