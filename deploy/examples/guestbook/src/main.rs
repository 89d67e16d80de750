//! The guestbook example: `guestbook frontend` is a web server, `guestbook backend` keeps the entries.
//!
//! An ordinary program of an ordinary user: it knows nothing of Reeve, is configured by environment variables,
//! and does nothing special on SIGTERM beyond finishing the requests that are open.

mod backend;
mod frontend;
mod http;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    let outcome = match role.as_deref() {
        Some("frontend") => frontend::Frontend::from_env().and_then(|app| server::serve(8080, app)),
        Some("backend") => backend::Backend::from_env().and_then(|app| server::serve(6380, app)),
        _ => {
            eprintln!("usage: guestbook frontend|backend");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("guestbook: {err}");
            ExitCode::FAILURE
        }
    }
}
