//! How far a backup is, for a person at a terminal: one line that is written over.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;

use super::sized;

/// Not more often than this.
const EVERY: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

/// See the module.
pub(crate) struct Progress {
    shown: Option<Instant>,
    is_wanted: bool,
}

impl Progress {
    /// On standard error, if that is a terminal.
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { shown: None, is_wanted: is_wanted && std::io::stderr().is_terminal() }
    }

    /// So many of so many keys are there, in so many bytes.
    pub(crate) fn at(&mut self, done: u64, all: u64, bytes: u64) {
        let is_due = self.shown.is_none_or(|shown| shown.elapsed() >= EVERY);
        if self.is_wanted && (is_due || done == all) {
            self.shown = Some(Instant::now());
            let _ = write!(std::io::stderr(), "\r{}\x1b[K", line(done, all, bytes));
        }
    }

    /// The line goes.
    pub(crate) fn end(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn line(done: u64, all: u64, bytes: u64) -> String {
    let filled = (done.min(all) * WIDTH).checked_div(all).unwrap_or(WIDTH);
    let bar = |n: u64, sign: &str| sign.repeat(usize::try_from(n).unwrap_or(0));
    format!("[{}{}] {done}/{all} keys, {}", bar(filled, "#"), bar(WIDTH - filled, "."), sized(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_the_keys() {
        assert_eq!(line(50, 100, 2048), "[###############...............] 50/100 keys, 2.0 KiB");
        assert_eq!(line(0, 0, 0), "[##############################] 0/0 keys, 0 B");
    }
}
