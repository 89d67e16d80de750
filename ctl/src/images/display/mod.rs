//! How far a build is, told on standard error (standard output is the result's) in BuildKit's ways: as a list that a
//! terminal draws anew, or as a line for each thing that happens. What is told is decided in the modules; here it is
//! written.

mod plain;
mod text;
mod trace;
mod tty;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use reeve_engine::build::Progress;
use rustix::termios::tcgetwinsize;
use tokio::time::Instant;

use super::failed;
use crate::kubectl::error::CliError;
pub(super) use text::clean;
use trace::Trace;
use tty::{Size, View};

/// Environment variable with the way, for when no flag says one.
const PROGRESS: &str = "BUILDKIT_PROGRESS";
/// Environment variable that says, when it is not empty, that nothing is to have colours.
const NO_COLOR: &str = "NO_COLOR";
/// A terminal is drawn anew so often: times tick.
const DRAWN_EVERY: Duration = Duration::from_millis(100);
/// What a terminal is taken for that does not know its size; BuildKit's.
const SIZE: Size = Size { width: 80, height: 10 };

/// The way in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing but warnings, and not what was built either.
    None,
    /// Nothing but warnings; the image's id is the result.
    Quiet,
    Plain,
    Tty,
}

impl Mode {
    /// What `--progress`, `--quiet` and the environment ask for, as with docker.
    pub(super) fn choose(
        progress: &str,
        quiet: bool,
        environment: impl Fn(&str) -> Option<String>,
        is_terminal: bool,
    ) -> Result<Self, CliError> {
        if quiet {
            return match progress {
                "auto" | "quiet" => Ok(Self::Quiet),
                other => Err(CliError::plain(format!("progress={other} and quiet cannot be used together"))),
            };
        }
        let of_environment = (progress == "auto").then(|| environment(PROGRESS)).flatten();
        let chosen = of_environment.filter(|chosen| !chosen.is_empty()).unwrap_or_else(|| progress.to_owned());
        match chosen.as_str() {
            "auto" | "" => Ok(if is_terminal { Self::Tty } else { Self::Plain }),
            "tty" if is_terminal => Ok(Self::Tty),
            "tty" => Err(CliError::plain("failed to get console: provided file is not a console")),
            "plain" => Ok(Self::Plain),
            "quiet" => Ok(Self::Quiet),
            "none" => Ok(Self::None),
            "rawjson" => {
                Err(CliError::plain("progress mode rawjson is not supported: auto, none, plain, quiet or tty"))
            }
            other => Err(CliError::plain(format!("invalid progress mode {other}"))),
        }
    }

    /// The same for this process.
    pub(super) fn of_process(progress: &str, quiet: bool) -> Result<Self, CliError> {
        Self::choose(progress, quiet, |name| std::env::var(name).ok(), stderr().is_terminal())
    }
}

/// Tells it.
pub(super) enum Display {
    /// Of nothing else.
    Warnings,
    Plain(Lines),
    Tty(Screen),
}

impl Display {
    /// Begins.
    pub(super) fn begin(mode: Mode) -> Result<Self, CliError> {
        Ok(match mode {
            Mode::None | Mode::Quiet => Self::Warnings,
            Mode::Plain => Self::Plain(Lines { trace: Trace::default(), began: Instant::now() }),
            Mode::Tty => {
                let terminal = stderr().as_fd().try_clone_to_owned().map_err(|err| failed(&err))?;
                let coloured = std::env::var_os(NO_COLOR).is_none_or(|value| value.is_empty());
                Self::Tty(Screen::begin(terminal.into(), coloured).map_err(|err| failed(&err))?)
            }
        })
    }

    /// Something happened.
    pub(super) fn take(&mut self, progress: &Progress) {
        match (self, progress) {
            (Self::Warnings, Progress::Warning(text)) => say(&plain::warning(text)),
            (Self::Warnings, _) => {}
            (Self::Plain(lines), _) => lines.take(progress),
            (Self::Tty(screen), _) => screen.take(progress),
        }
    }

    /// The build is over, well or not.
    pub(super) fn end(self) {
        match self {
            Self::Warnings => {}
            Self::Plain(lines) => say(&lines.trace.failures(str::to_owned)),
            Self::Tty(screen) => screen.end(),
        }
    }
}

/// A line for each thing that happens.
pub(super) struct Lines {
    trace: Trace,
    began: Instant,
}

impl Lines {
    fn take(&mut self, progress: &Progress) {
        let now = self.began.elapsed();
        self.trace.take(progress, now);
        if let Some(line) = plain::line(progress, &self.trace, now) {
            say(&line);
        }
    }
}

/// Who does not want to see it any more does not.
fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// A terminal that is drawn anew by a thread of its own, as long as this lives.
pub(super) struct Screen {
    shared: Arc<Shared>,
    drawer: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// It is over.
    ended: Condvar,
}

struct State {
    terminal: File,
    view: View,
    began: Instant,
    over: bool,
}

impl Screen {
    fn begin(terminal: File, coloured: bool) -> std::io::Result<Self> {
        let state = State { terminal, view: View::new(coloured), began: Instant::now(), over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: Condvar::new() });
        let drawn = Arc::clone(&shared);
        let drawer = std::thread::Builder::new().name("progress".to_owned()).spawn(move || drawn.keep_drawing())?;
        Ok(Self { shared, drawer: Some(drawer) })
    }

    fn take(&self, progress: &Progress) {
        let mut state = self.shared.lock();
        let now = state.began.elapsed();
        match progress {
            Progress::Warning(text) => state.view.say(&plain::warning(text)),
            _ => state.view.trace.take(progress, now),
        }
    }

    fn end(mut self) {
        self.stop();
        let mut state = self.shared.lock();
        state.draw(true);
        let failures = state.view.failures();
        let _ = state.terminal.write_all(failures.as_bytes());
    }

    fn stop(&mut self) {
        self.shared.lock().over = true;
        self.shared.ended.notify_all();
        if let Some(drawer) = self.drawer.take() {
            let _ = drawer.join();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_drawing(&self) {
        let mut state = self.lock();
        while !state.over {
            state.draw(false);
            let waited = self.ended.wait_timeout_while(state, DRAWN_EVERY, |state| !state.over);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn draw(&mut self, whole: bool) {
        let size = tcgetwinsize(&self.terminal).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let size = size.map_or(SIZE, |size| Size { width: size.ws_col.into(), height: size.ws_row.into() });
        let text = self.view.draw(self.began.elapsed(), size, whole);
        // One piece, so that no program's line comes in between; who does not see it any more does not.
        let _ = self.terminal.write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read as _;

    use nix::pty::{Winsize, openpty};

    use super::*;

    #[test]
    fn the_way_is_chosen_as_with_docker() {
        let choose = |progress, quiet, environment: &str, is_terminal| {
            let of_environment = |name: &str| (name == PROGRESS).then(|| environment.to_owned());
            Mode::choose(progress, quiet, of_environment, is_terminal).map_err(|err| err.to_string())
        };
        for (progress, quiet, environment, is_terminal, expected) in [
            ("auto", false, "", true, Mode::Tty),
            ("auto", false, "", false, Mode::Plain),
            ("auto", false, "plain", true, Mode::Plain),
            ("auto", false, "auto", true, Mode::Tty),
            ("tty", false, "plain", true, Mode::Tty),
            ("plain", false, "tty", false, Mode::Plain),
            ("auto", true, "tty", false, Mode::Quiet),
            ("quiet", true, "", true, Mode::Quiet),
            ("quiet", false, "", true, Mode::Quiet),
            ("none", false, "", true, Mode::None),
        ] {
            let chosen = choose(progress, quiet, environment, is_terminal);
            assert_eq!(chosen, Ok(expected), "{progress} {quiet} {environment} {is_terminal}");
        }
        for (progress, quiet, environment, message) in [
            ("tty", false, "", "failed to get console: provided file is not a console"),
            ("auto", false, "tty", "failed to get console: provided file is not a console"),
            ("plain", true, "", "progress=plain and quiet cannot be used together"),
            ("fancy", false, "", "invalid progress mode fancy"),
            ("auto", false, "fancy", "invalid progress mode fancy"),
            ("rawjson", false, "", "progress mode rawjson is not supported: auto, none, plain, quiet or tty"),
        ] {
            assert_eq!(choose(progress, quiet, environment, false), Err(format!("error: {message}")));
        }
    }

    /// Reads what comes to the terminal, which never rests, until it is what is waited for.
    #[track_caller]
    fn read_until(terminal: &mut File, is_it: impl Fn(&str) -> bool) -> String {
        let (mut seen, mut buffer) = (String::new(), [0_u8; 4096]);
        for _ in 0..300 {
            let count = terminal.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            if is_it(&seen) {
                return seen;
            }
        }
        panic!("the terminal shows {seen:?}");
    }

    fn resize(terminal: &File, columns: u16, rows: u16) {
        let mut size = tcgetwinsize(terminal).unwrap();
        (size.ws_col, size.ws_row) = (columns, rows);
        rustix::termios::tcsetwinsize(terminal, size).unwrap();
    }

    #[test]
    fn a_terminal_is_drawn_anew_as_time_passes_and_as_it_changes_its_size() {
        let size = Winsize { ws_row: 20, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let mut seen = File::from(pair.master);
        let screen = Screen::begin(pair.slave.into(), false).unwrap();
        screen.take(&Progress::Planned { steps: 1 });
        let (stage, text) = (None, "RUN make all of it".to_owned());
        screen.take(&Progress::Step { id: 1, stage, number: 1, total: 1, text });
        screen.take(&Progress::Output { id: 1, line: "\x1b[2Jcc".to_owned() });
        let line = format!(" => [1/1] RUN make all of it{}", " ".repeat(27));
        let times = |seen: &str| {
            let times = seen.split(&line).skip(1).filter_map(|rest| rest.split_once('s'));
            times.map(|(time, _)| time.to_owned()).collect::<BTreeSet<_>>().len()
        };
        read_until(&mut seen, |seen| times(seen) > 1 && seen.contains("s\x1b[K\r\n => => # cc\x1b[K\r\n"));
        resize(&seen, 26, 20);
        read_until(&mut seen, |seen| seen.contains(" => [1/1] RUN make   "));
        screen.take(&Progress::Failed { id: 1, message: "exit code: 1".to_owned() });
        screen.end();
        let end = read_until(&mut seen, |seen| seen.contains("cc\r\n------\r\n"));
        assert!(end.contains("[+] Building "), "{end:?}");
        assert!(end.contains(" => ERROR [1/1]"), "{end:?}");
        assert!(!end.contains("\x1b[2J"), "{end:?}");
    }
}
