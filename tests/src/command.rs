//! Running a program as a user would, with a bound on its time, and reading what it said.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Longest time one command may take, in seconds: then it is killed and the test fails.
const SECONDS_MAX: &str = "120";

/// What a program did.
#[derive(Debug)]
pub struct Run {
    /// What was run, for messages.
    pub command: String,
    /// Its exit code; 124 when it was killed for taking too long.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Run {
    /// Its standard output.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    #[must_use = "use `done` when the output does not matter"]
    pub fn text(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout
    }

    /// It has worked.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn done(self) {
        drop(self.text());
    }

    /// Its standard error, as it should have failed.
    ///
    /// # Panics
    /// When it has worked, or was killed for taking too long.
    #[track_caller]
    #[must_use]
    pub fn refused(self) -> String {
        assert!(self.code != 0 && self.code != 124, "should have been refused: {self}");
        self.stderr
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "`{}` ended with {}", self.command, self.code)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Runs the command to its end, giving it `stdin`.
///
/// # Panics
/// When it cannot be started.
#[must_use]
#[allow(clippy::expect_used, reason = "the failure of the calling test")]
pub fn run(command: &mut Command, stdin: &str) -> Run {
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=5", SECONDS_MAX]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bounded.current_dir(dir);
    }
    bounded.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = bounded.spawn().expect("timeout (coreutils) starts");
    if let Some(mut pipe) = child.stdin.take() {
        // It may have ended without reading: its exit code tells.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output().expect("the command's output");
    Run {
        command: spelled(command),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn spelled(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}
