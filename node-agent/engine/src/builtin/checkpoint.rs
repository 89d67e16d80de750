//! Why a container cannot be checkpointed. Only CRIU can do that, and this engine does not drive it yet: whoever asks
//! hears whether it is there, and whether it works on this kernel at all.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Where Debian has it, whatever `PATH` says.
const SBIN: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// How long CRIU may look at the kernel.
const CHECK_MAX: Duration = Duration::from_secs(10);
/// How much of what it says is told.
const LINES_MAX: usize = 4;

/// What a checkpoint needs that is not here.
pub(super) async fn missing(timeout: Option<Duration>) -> String {
    let Some(criu) = find() else { return "checkpoints need CRIU, and there is no criu in PATH".to_owned() };
    let mut command = Command::new(&criu);
    command.arg("check").stdin(Stdio::null()).kill_on_drop(true);
    let checked = tokio::time::timeout(timeout.map_or(CHECK_MAX, |own| own.min(CHECK_MAX)), command.output()).await;
    let why = match checked {
        Err(_) => "it does not answer".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(output)) if output.status.success() => {
            return "checkpoints need CRIU; it works here, and this engine does not drive it yet".to_owned();
        }
        Ok(Ok(output)) => last_lines(&[output.stdout, output.stderr].concat()),
    };
    format!("checkpoints need CRIU, and {} check says: {why}", criu.display())
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from));
    dirs.map(|dir| dir.join("criu")).find(|program| program.is_file())
}

fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(LINES_MAX)..).unwrap_or_default().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_what_criu_says_are_told() {
        assert_eq!(last_lines(b"a\n\n b\nc\nd\ne\n"), "b; c; d; e");
        assert_eq!(last_lines(b""), "");
    }
}
