//! Wall clocks of servers that jump while they run: libfaketime, which the servers are started under, reads from a file
//! how far each one is off. Their monotonic clocks go on as they did: those no machine turns.

use std::path::{Path, PathBuf};

use crate::servers::Servers;

/// Where Debian and Ubuntu put it, for the machine's architecture.
const FOLDERS: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];

/// The library, if it is installed.
#[must_use]
pub fn library() -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1")).find(|path| path.exists())
}

fn file_of(servers: &Servers, name: &str) -> PathBuf {
    servers.data_dir(name).with_extension("clock")
}

/// Has a server's next process ask for the time under the library.
pub fn prepare(servers: &mut Servers, name: &str, library: &Path) {
    turn(servers, name, 0);
    let file = file_of(servers, name);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let settings = [
        ("LD_PRELOAD", text(library)),
        ("FAKETIME_TIMESTAMP_FILE", text(&file)),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()), // the same for versions before 0.9.10
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    settings.into_iter().for_each(|(key, value)| servers.set_env(name, key, &value));
}

/// How many seconds a server's clock is before or after the machine's, as it says itself in an object that it makes
/// and does not keep. (The date of its answers is remembered for as long as it is ahead of the clock.)
///
/// # Panics
/// When it does not answer.
#[must_use]
#[track_caller]
#[allow(clippy::expect_used, reason = "the failure of the calling test")]
pub fn shown(servers: &Servers, name: &str) -> i64 {
    let made = "jsonpath={.metadata.creationTimestamp}";
    let said = servers.kubectl(name, &["create", "configmap", "clock", "--dry-run=server", "-o", made]).text();
    let difference = "echo $(($(date -d \"$0\" +%s) - $(date +%s)))";
    servers.run(&["sh", "-c", difference, said.trim()]).text().trim().parse().expect("a number of seconds")
}

/// Turns a server's clock to so many seconds before or after the machine's.
///
/// # Panics
/// When the file cannot be written.
#[track_caller]
#[allow(clippy::expect_used, reason = "the failure of the calling test")]
pub fn turn(servers: &Servers, name: &str, seconds: i64) {
    let file = file_of(servers, name);
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n")).expect("the clock's file");
    std::fs::rename(&new, &file).expect("the clock's file");
}
