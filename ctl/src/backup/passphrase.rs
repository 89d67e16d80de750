//! Where the secret of a sealed backup comes from: a key file, a file with a passphrase, the environment, or a person
//! at a terminal.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::Failed;
use super::args::SecretArgs;
use super::seal::{KEY_LEN_MIN, Secret, SecretKind};

/// The passphrase, for programs.
pub(crate) const VARIABLE: &str = "REEVE_BACKUP_PASSPHRASE";
/// A longer file is no key and no passphrase.
const SECRET_LEN_MAX: u64 = 64 * 1024;

/// The secret for a new backup.
pub(crate) fn for_sealing(args: &SecretArgs) -> Result<Secret, Failed> {
    match &args.key_file {
        Some(file) => key(file),
        None => passphrase(args, true),
    }
}

/// The secret for a backup that wants one of this kind.
pub(crate) fn for_opening(args: &SecretArgs, kind: SecretKind) -> Result<Arc<Secret>, Failed> {
    let secret = match (kind, &args.key_file) {
        (SecretKind::Key, Some(file)) => key(file),
        (SecretKind::Key, None) => Err(refused("it is encrypted with a key file: name it with --key-file")),
        (SecretKind::Passphrase, Some(_)) => Err(refused("it is encrypted with a passphrase, not with a key file")),
        (SecretKind::Passphrase, None) => passphrase(args, false),
    };
    secret.map(Arc::new)
}

fn refused(what: &str) -> Failed {
    Failed::Refused(what.to_owned())
}

fn key(file: &Path) -> Result<Secret, Failed> {
    let bytes = read(file)?;
    if bytes.len() < KEY_LEN_MIN {
        let rule = format!("{} has {} bytes, a key has at least {KEY_LEN_MIN}", file.display(), bytes.len());
        return Err(Failed::Refused(rule));
    }
    Ok(Secret::Key(bytes))
}

fn read(file: &Path) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|opened| opened.take(SECRET_LEN_MAX).read_to_end(&mut bytes));
    opened.map_err(|err| Failed::io("read", file, err))?;
    Ok(bytes)
}

fn passphrase(args: &SecretArgs, is_new: bool) -> Result<Secret, Failed> {
    let words = match (&args.passphrase_file, std::env::var(VARIABLE)) {
        (Some(file), _) => {
            let bytes = read(file)?;
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            line.strip_suffix(b"\r").unwrap_or(line).to_vec()
        }
        (None, Ok(words)) => words.into_bytes(),
        (None, Err(_)) => ask_person(is_new)?,
    };
    if words.is_empty() { Err(refused("the passphrase is empty")) } else { Ok(Secret::Passphrase(words)) }
}

fn ask_person(is_new: bool) -> Result<Vec<u8>, Failed> {
    let path = Path::new("/dev/tty");
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open(path) else {
        let rule = format!("a passphrase is needed: --passphrase-file, --key-file or ${VARIABLE}");
        return Err(Failed::Refused(rule));
    };
    let failed = |err| Failed::io("read", path, err);
    let first = ask(&mut terminal, "Passphrase of the backup: ").map_err(failed)?;
    if is_new && first != ask(&mut terminal, "Once more: ").map_err(failed)? {
        return Err(refused("the two passphrases differ"));
    }
    Ok(first)
}

/// Reads a line that is not shown.
fn ask(terminal: &mut File, prompt: &str) -> std::io::Result<Vec<u8>> {
    let shown = tcgetattr(&*terminal)?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    terminal.write_all(prompt.as_bytes())?;
    tcsetattr(&*terminal, SetArg::TCSAFLUSH, &hidden)?;
    let mut line = Vec::new();
    let read = BufReader::new(&*terminal).read_until(b'\n', &mut line);
    tcsetattr(&*terminal, SetArg::TCSAFLUSH, &shown)?;
    terminal.write_all(b"\n")?;
    read?;
    Ok(line.strip_suffix(b"\n").unwrap_or(&line).to_vec())
}
