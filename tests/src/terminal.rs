//! A terminal for programs that behave differently on one: a pseudo-terminal pair with a program on its end.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use nix::pty::{Winsize, openpty};

use crate::patience::eventually;

/// A program on a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    master: std::fs::File,
    child: Child,
    seen: String,
}

impl Terminal {
    /// Starts the command on a terminal of 100 columns and 30 rows.
    ///
    /// # Panics
    /// When that is not possible here.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn start(command: &mut Command) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a pseudo-terminal");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a copy of the terminal's end"));
        command.stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(end(&pair.slave));
        let child = command.spawn().expect("the command starts");
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(pair.master.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).expect("a non-blocking end");
        Self { master: pair.master.into(), child, seen: String::new() }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes what is typed");
    }

    /// Waits until the text stands on the screen, after what was waited for before.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        eventually(&format!("the terminal shows {text:?}"), || {
            self.read();
            let at = self.seen.find(text).ok_or_else(|| self.seen.clone())?;
            self.seen.drain(..at + text.len());
            Ok(())
        });
    }

    /// Waits for the program's end: its exit code.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        eventually("the program on the terminal ends", || {
            self.read();
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
                other => Err(format!("{other:?}, screen: {}", self.seen)),
            }
        })
    }

    fn read(&mut self) {
        let mut buffer = [0_u8; 4096];
        while let Ok(count @ 1..) = self.master.read(&mut buffer) {
            self.seen.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
