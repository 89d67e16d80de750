//! A line for each thing that happens, as BuildKit's plain progress has them. Pure.

use std::time::Duration;

use reeve_engine::build::Progress;

use super::trace::{Trace, stamp};

/// What is told of it. The trace has taken it in.
pub(super) fn line(progress: &Progress, trace: &Trace, now: Duration) -> Option<String> {
    let took = |id: &usize| trace.step(*id).map_or(Duration::ZERO, |step| step.took(now));
    Some(match progress {
        Progress::Planned { .. } => return None,
        Progress::Warning(text) => warning(text),
        Progress::Step { id, .. } => format!("#{id} {}\n", trace.step(*id).map_or("", |step| step.name.as_str())),
        Progress::Output { id, line } => format!("#{id} {} {line}\n", stamp(took(id))),
        Progress::Cached { id } => format!("#{id} CACHED\n"),
        Progress::Done { id } => format!("#{id} DONE {:.1}s\n", took(id).as_secs_f64()),
        Progress::Failed { id, message } => format!("#{id} ERROR: {message}\n"),
        Progress::Stopped { id } => format!("#{id} CANCELED\n"),
    })
}

/// Told whatever else is not.
pub(super) fn warning(text: &str) -> String {
    format!("Warning: {text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_buildkits_does() {
        let mut trace = Trace::default();
        let mut told = |progress: Progress, millis| {
            let now = Duration::from_millis(millis);
            trace.take(&progress, now);
            line(&progress, &trace, now)
        };
        let step = |id: usize, stage: Option<&str>| Progress::Step {
            id,
            stage: stage.map(str::to_owned),
            number: 2,
            total: 3,
            text: "RUN make".to_owned(),
        };
        assert_eq!(told(Progress::Planned { steps: 3 }, 0), None);
        for (progress, millis, expected) in [
            (Progress::Warning("x".to_owned()), 0, "Warning: x\n"),
            (step(4, None), 1000, "#4 [2/3] RUN make\n"),
            (step(5, Some("builder")), 1000, "#5 [builder 2/3] RUN make\n"),
            (Progress::Output { id: 4, line: "cc".to_owned() }, 1250, "#4 0.250 cc\n"),
            (Progress::Cached { id: 5 }, 1300, "#5 CACHED\n"),
            (Progress::Done { id: 4 }, 2300, "#4 DONE 1.3s\n"),
            (step(6, Some("\x1b[2J")), 3000, "#6 [ 2/3] RUN make\n"),
            (step(7, None), 3000, "#7 [2/3] RUN make\n"),
            (Progress::Failed { id: 6, message: "exit code: 1".to_owned() }, 3000, "#6 ERROR: exit code: 1\n"),
            (Progress::Stopped { id: 7 }, 3000, "#7 CANCELED\n"),
        ] {
            assert_eq!(told(progress, millis).as_deref(), Some(expected));
        }
    }
}
