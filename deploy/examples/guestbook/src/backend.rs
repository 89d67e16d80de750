//! The back end: a list of entries, one per line, kept in a file of `GUESTBOOK_DATA` (default `/data`).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::http::{Request, Response};
use crate::server::App;

/// More entries are refused.
const ENTRIES_MAX: usize = 10_000;
/// Longer entries are cut.
const ENTRY_MAX_CHARS: usize = 500;

/// The entries and the file they are kept in.
pub(crate) struct Backend {
    file: PathBuf,
    entries: Mutex<Vec<String>>,
}

impl Backend {
    /// Opens the file named by the environment and reads what it holds.
    pub(crate) fn from_env() -> io::Result<Self> {
        let folder = PathBuf::from(std::env::var_os("GUESTBOOK_DATA").unwrap_or_else(|| "/data".into()));
        std::fs::create_dir_all(&folder)?;
        Self::open(folder.join("entries"))
    }

    fn open(file: PathBuf) -> io::Result<Self> {
        let kept = match std::fs::read_to_string(&file) {
            Ok(text) => text.lines().map(str::to_owned).collect(),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(err),
        };
        Ok(Self { file, entries: Mutex::new(kept) })
    }

    fn add(&self, entry: &str) -> Response {
        let entry: String = entry.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ENTRY_MAX_CHARS).collect();
        if entry.trim().is_empty() {
            return Response::text(400, "an entry must not be empty\n");
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES_MAX {
            return Response::text(503, "the guestbook is full\n");
        }
        let kept = OpenOptions::new().create(true).append(true).open(&self.file);
        if let Err(err) = kept.and_then(|mut file| writeln!(file, "{entry}")) {
            return Response::text(503, format!("cannot keep the entry: {err}\n"));
        }
        entries.push(entry);
        Response::text(201, "thank you\n")
    }

    fn list(&self) -> Response {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Response::text(200, entries.iter().map(|entry| format!("{entry}\n")).collect::<String>())
    }

    fn clear(&self) -> Response {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(err) = std::fs::write(&self.file, "") {
            return Response::text(503, format!("cannot clear the entries: {err}\n"));
        }
        entries.clear();
        Response::text(200, "cleared\n")
    }
}

impl App for Backend {
    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/healthz") => Response::text(200, "ok\n"),
            ("GET", "/entries") => self.list(),
            ("POST", "/entries") => self.add(&request.body),
            ("DELETE", "/entries") => self.clear(),
            _ => Response::text(404, "not found\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_there_again_when_the_file_is_opened_anew() {
        let file = std::env::temp_dir().join(format!("guestbook-test-{}", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let backend = Backend::open(file.clone()).expect("opened");
        backend.add("first\nsecond");
        backend.add("  ");
        let entries = Backend::open(file.clone()).expect("opened").entries.into_inner().expect("not poisoned");
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(entries, ["first second"]);
    }
}
