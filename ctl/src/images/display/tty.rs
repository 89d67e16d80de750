//! A build on a terminal, as BuildKit shows it: a list of its steps that is drawn anew in its place, with the last
//! lines of what runs. Pure: time and the terminal's size are arguments.

use std::time::Duration;

use super::text::{clean, cut};
use super::trace::{End, Step, Trace};

/// Lines of a running step's output at most; BuildKit's.
const OUTPUT_LINES: usize = 6;
/// Lines that must be free before a step's output is shown; BuildKit's.
const OUTPUT_ROOM: usize = OUTPUT_LINES + 3;
/// Columns that a step's name needs at least to be shown; BuildKit's.
const NAME_COLUMNS_MIN: usize = 12;

/// How large the terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub width: usize,
    pub height: usize,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Finished,
    Failed,
    Stopped,
    Faint,
}

impl Look {
    fn sequence(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Finished => "\x1b[34m",
            Self::Failed => "\x1b[31m",
            Self::Stopped => "\x1b[33m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// What is on the terminal, and what goes there.
#[derive(Debug)]
pub(super) struct View {
    pub trace: Trace,
    /// Whether lines may have colours.
    coloured: bool,
    /// Lines above the list that are not written yet.
    said: String,
    /// Lines of the terminal that are the list's.
    rows: usize,
}

impl View {
    pub(super) fn new(coloured: bool) -> Self {
        Self { trace: Trace::default(), coloured, said: String::new(), rows: 0 }
    }

    /// Puts a line above the list the next time that it is drawn.
    pub(super) fn say(&mut self, line: &str) {
        self.said.push_str(&cleaned(line));
    }

    /// Draws the list in the place of the one before. What it cannot know to be its own is never written over: where a
    /// terminal has broken lines anew as it became narrower, pieces of them stay.
    pub(super) fn draw(&mut self, now: Duration, size: Size, whole: bool) -> String {
        let lines = lines(&self.trace, now, size, whole);
        // Hidden meanwhile: the cursor would be seen to run about.
        let mut text = "\x1b[?25l\r".to_owned();
        if self.rows > 0 {
            text.push_str(&format!("\x1b[{}A", self.rows));
        }
        for line in std::mem::take(&mut self.said).lines() {
            text.push_str(&format!("{line}\x1b[K\n"));
        }
        self.rows = lines.len();
        for (line, look) in lines {
            match look.sequence() {
                "" => text.push_str(&line),
                _ if !self.coloured => text.push_str(&line),
                sequence => text.push_str(&format!("{sequence}{line}\x1b[0m")),
            }
            text.push_str("\x1b[K\n");
        }
        text + "\x1b[J\x1b[?25h"
    }

    /// What the failed steps wrote, to stand below the list.
    pub(super) fn failures(&self) -> String {
        self.trace.failures(clean)
    }
}

/// Several lines, each fit for the terminal.
fn cleaned(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}

/// The list; `whole` when it is the last: then as long as it is, else no longer than the terminal.
pub(super) fn lines(trace: &Trace, now: Duration, size: Size, whole: bool) -> Vec<(String, Look)> {
    let (ended, planned) = trace.count();
    if planned == 0 {
        // What fails before the first step is an error and no build.
        return Vec::new();
    }
    let finished = if whole && ended > 0 && ended == planned { " FINISHED" } else { "" };
    // The last column stays free: what stands there makes some terminals begin a line.
    let width = size.width.saturating_sub(1);
    let header = format!("[+] Building {:.1}s ({ended}/{planned}){finished}", now.as_secs_f64());
    let mut lines = vec![(cut(&header, width).0.to_owned(), Look::Plain)];
    let steps: Vec<&Step> = trace.steps().collect();
    // The header, and the line below everything.
    let room = size.height.saturating_sub(2);
    let (telling, output) = if whole { (Vec::new(), 0) } else { telling(&steps, room) };
    for step in if whole { steps } else { fitting(steps, room.saturating_sub(output)) } {
        let Some(line) = line(step, now, width) else { continue };
        lines.push(line);
        let said = telling.iter().find(|(own, _)| std::ptr::eq(*own, step));
        for line in said.map(|(_, said)| said.as_slice()).unwrap_or_default() {
            lines.push((cut(&format!(" => => # {line}"), width).0.to_owned(), Look::Faint));
        }
    }
    lines
}

/// The running steps of which the output is shown, those that write most first, with its lines; and how many lines that
/// are.
fn telling<'t>(steps: &[&'t Step], room: usize) -> (Vec<(&'t Step, Vec<String>)>, usize) {
    let running = steps.iter().copied().filter(|step| step.end.is_none());
    let mut free = room.saturating_sub(running.clone().count());
    let mut candidates: Vec<&Step> = running.filter(|step| step.written > 0).collect();
    candidates.sort_by_key(|step| std::cmp::Reverse(step.written));
    let (mut telling, mut output) = (Vec::new(), 0);
    for step in candidates {
        if free <= OUTPUT_ROOM {
            break;
        }
        let said = step.log.iter().rev().map(|(_, line)| clean(line)).filter(|line| !line.trim().is_empty());
        let mut said: Vec<String> = said.take(OUTPUT_LINES).collect();
        said.reverse();
        output += said.len();
        free -= OUTPUT_ROOM;
        telling.push((step, said));
    }
    (telling, output)
}

/// As many steps as there is room for: what has ended goes first, the oldest of it before the rest.
fn fitting(steps: Vec<&Step>, room: usize) -> Vec<&Step> {
    let mut excess = steps.len().saturating_sub(room);
    let ended = steps.iter().filter(|step| step.end.is_some()).count();
    // Where even those that run are too many, the oldest of them.
    let mut running_excess = excess.saturating_sub(ended);
    let stays = |step: &&Step| {
        let left = if step.end.is_some() { &mut excess } else { &mut running_excess };
        let goes = *left > 0;
        *left = left.saturating_sub(1);
        !goes
    };
    steps.into_iter().filter(stays).collect()
}

/// A step's line, if the terminal is wide enough for one.
fn line(step: &Step, now: Duration, width: usize) -> Option<(String, Look)> {
    let (word, look) = match step.end {
        None => ("", Look::Plain),
        Some(End::Done(_)) => ("", Look::Finished),
        Some(End::Cached) => ("CACHED ", Look::Finished),
        Some(End::Failed(_)) => ("ERROR ", Look::Failed),
        Some(End::Stopped(_)) => ("CANCELED ", Look::Stopped),
    };
    let took = step.took(now).as_secs_f64();
    let timer = format!(" {:.1}s", if took < 0.05 { 0.0 } else { took });
    let prefix = " => ";
    let left = width.checked_sub(prefix.len() + timer.len() + 1).filter(|left| *left >= NAME_COLUMNS_MIN)?;
    let name = format!("{word}{}", step.name);
    let (name, used) = cut(&name, left);
    let gap = " ".repeat(left - used + 1);
    Some((format!("{prefix}{name}{gap}{timer}"), look))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use reeve_engine::build::Progress;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn step(id: usize, text: &str) -> Progress {
        Progress::Step { id, stage: None, number: id, total: 9, text: text.to_owned() }
    }

    fn output(id: usize, line: impl Into<String>) -> Progress {
        Progress::Output { id, line: line.into() }
    }

    fn trace(told: impl IntoIterator<Item = (u64, Progress)>) -> Trace {
        let mut trace = Trace::default();
        told.into_iter().for_each(|(millis, progress)| trace.take(&progress, at(millis)));
        trace
    }

    fn texts(trace: &Trace, now: u64, size: (usize, usize), whole: bool) -> Vec<String> {
        let size = Size { width: size.0, height: size.1 };
        lines(trace, at(now), size, whole).into_iter().map(|(line, _)| line).collect()
    }

    /// One step done, one known, one at work.
    fn build() -> Trace {
        trace([
            (0, Progress::Planned { steps: 4 }),
            (0, step(1, "FROM debian")),
            (1200, Progress::Done { id: 1 }),
            (1200, step(2, "RUN a")),
            (1250, Progress::Cached { id: 2 }),
            (1300, step(3, "RUN make")),
            (1400, output(3, "cc a.c")),
            (1500, output(3, "\x1b[1mcc\x1b[0m b.c")),
        ])
    }

    #[test]
    fn a_build_is_shown_as_by_buildkit() {
        let expected = [
            "[+] Building 2.5s (2/4)",
            " => [1/9] FROM debian              1.2s",
            " => CACHED [2/9] RUN a             0.0s",
            " => [3/9] RUN make                 1.2s",
            " => => # cc a.c",
            " => => # cc b.c",
        ];
        assert_eq!(texts(&build(), 2500, (40, 30), false), expected);
    }

    #[test]
    fn everything_stays_at_the_end_without_what_commands_wrote() {
        let mut trace = build();
        for (millis, progress) in
            [(2500, Progress::Done { id: 3 }), (2500, step(4, "COPY a b")), (2540, Progress::Done { id: 4 })]
        {
            trace.take(&progress, at(millis));
        }
        let expected = [
            "[+] Building 2.6s (4/4) FINISHED",
            " => [1/9] FROM debian              1.2s",
            " => CACHED [2/9] RUN a             0.0s",
            " => [3/9] RUN make                 1.2s",
            " => [4/9] COPY a b                 0.0s",
        ];
        assert_eq!(texts(&trace, 2600, (40, 3), true), expected, "higher than the terminal");
    }

    #[test]
    fn a_failure_is_shown_with_what_the_step_wrote_and_those_that_were_given_up() {
        let mut trace = build();
        trace.take(&step(4, "RUN slow"), at(1500));
        trace.take(&Progress::Failed { id: 3, message: "exit code: 1".to_owned() }, at(2500));
        trace.take(&Progress::Stopped { id: 4 }, at(2500));
        let expected = [" => ERROR [3/9] RUN make           1.2s", " => CANCELED [4/9] RUN slow        1.0s"];
        let texts = texts(&trace, 2500, (40, 30), true);
        assert_eq!(texts[0], "[+] Building 2.5s (4/4) FINISHED");
        assert_eq!(texts[3..], expected);
        let view = View { trace, ..View::new(true) };
        let expected = "------\n > [3/9] RUN make:\n0.100 cc a.c\n0.200 cc b.c\n------\n";
        assert_eq!(view.failures(), expected);
    }

    #[test]
    fn the_list_is_never_larger_than_the_terminal() {
        let mut told = vec![(0, Progress::Planned { steps: 40 })];
        for id in 1..=30 {
            told.push((0, step(id, "RUN something with a name that is long, and 界界 wide 🦀")));
            told.push((0, output(id, "a line\twith \x1b[31mcolours\x1b[0m and \r what was written over it")));
            if id % 3 != 0 {
                told.push((10, Progress::Done { id }));
            }
        }
        let trace = trace(told);
        for height in 0..60 {
            for width in 0..100 {
                let size = Size { width, height };
                let lines = lines(&trace, at(20), size, false);
                assert!(lines.len() <= height.saturating_sub(1).max(1), "{size:?}: {lines:?}");
                for (line, _) in lines {
                    let columns = cut(&line, usize::MAX).1;
                    assert!(columns < width.max(1), "{size:?}: {columns} columns: {line:?}");
                    assert!(!line.contains(char::is_control), "{line:?}");
                }
            }
        }
    }

    #[test]
    fn where_not_all_have_room_what_runs_stays() {
        let mut told = Vec::new();
        for id in 1..=6 {
            told.push((0, step(id, "RUN x")));
            if id != 2 && id != 5 {
                told.push((0, Progress::Done { id }));
            }
        }
        let shown = |height| {
            let trace = trace(told.clone());
            let numbers = texts(&trace, 0, (40, height), false).into_iter().skip(1);
            numbers.map(|line| line.chars().nth(5).unwrap_or_default()).collect::<String>()
        };
        assert_eq!([shown(8), shown(7), shown(6), shown(5)], ["123456", "23456", "2456", "256"]);
        assert_eq!([shown(4), shown(3), shown(2)], ["25", "5", ""]);
    }

    #[test]
    fn the_last_lines_of_the_step_that_writes_most_are_shown() {
        let mut told = vec![(0, step(1, "RUN little")), (0, step(2, "RUN much")), (0, output(1, "one"))];
        told.extend((0..20).map(|n| (0, output(2, format!("line {n}")))));
        told.push((0, output(2, "  ")));
        let trace = trace(told);
        let shown = |height| texts(&trace, 0, (40, height), false);
        let last: Vec<String> = (14..20).map(|n| format!(" => => # line {n}")).collect();
        assert_eq!(shown(30)[2], " => => # one");
        assert_eq!(shown(30)[4..], last);
        assert_eq!(shown(14)[3..], last, "room for one of them");
        assert_eq!(shown(13).len(), 3, "room for none");
    }

    #[test]
    fn what_is_drawn_takes_the_place_of_what_was() {
        let size = Size { width: 40, height: 30 };
        let mut view = View::new(true);
        view.say("Warning: \x1b[2Jx\n");
        let first = view.draw(at(0), size, false);
        assert_eq!(first, "\x1b[?25l\rWarning: x\x1b[K\n\x1b[J\x1b[?25h", "there are no steps yet");
        view.trace.take(&Progress::Planned { steps: 4 }, at(0));
        let second = view.draw(at(0), size, false);
        assert_eq!(second, "\x1b[?25l\r[+] Building 0.0s (0/4)\x1b[K\n\x1b[J\x1b[?25h");
        view.trace = build();
        let third = view.draw(at(2500), size, false);
        assert!(third.starts_with("\x1b[?25l\r\x1b[1A[+] Building 2.5s (2/4)\x1b[K\n\x1b[34m => [1/9] "), "{third:?}");
        assert!(third.contains("\x1b[2m => => # cc b.c\x1b[0m\x1b[K\n"), "{third:?}");
        assert!(view.draw(at(2500), size, false).starts_with("\x1b[?25l\r\x1b[6A[+]"));
    }

    #[test]
    fn without_colours_there_are_none() {
        let mut view = View { trace: build(), ..View::new(false) };
        let drawn = view.draw(at(2500), Size { width: 40, height: 30 }, false);
        let sequences: BTreeSet<char> =
            drawn.split("\x1b[").skip(1).filter_map(|rest| rest.chars().find(|c| c.is_alphabetic())).collect();
        assert_eq!(sequences, BTreeSet::from(['J', 'K', 'h', 'l']), "{drawn:?}");
    }
}
