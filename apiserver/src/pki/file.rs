//! Files of the PKI folder: readable by their owner only, replaced as a whole or not at all.
//!
//! A certificate and its key stand in one file, so that a crash cannot leave a pair that does not match.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{CertKey, PkiError};

/// Certificates and keys are a few KiB; nothing larger is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

const KEY_HEADER: &str = "-----BEGIN PRIVATE KEY-----";

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    move |source| PkiError::File { action, path: path.to_owned(), source }
}

/// Makes the folder, for its owner only.
pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(error("create", dir))
}

/// The file's text; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(error("read", path)(err)),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            return Err(error("read", path)(io::Error::new(io::ErrorKind::InvalidData, "the file is too large")));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(error("read", path))
}

/// Replaces the file: mode 0600, on disk before the old one goes.
pub(super) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let temporary = path.with_extension("tmp");
    write_and_rename(&temporary, path, text).map_err(error("write", path))
}

fn write_and_rename(temporary: &Path, path: &Path, text: &str) -> io::Result<()> {
    // A leftover of an interrupted start may have another mode.
    match fs::remove_file(temporary) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// As [`write`], but leaves a file that already says so.
pub(super) fn write_if_changed(path: &Path, text: &str) -> Result<(), PkiError> {
    if read(path)?.as_deref() == Some(text) { Ok(()) } else { write(path, text) }
}

/// One file's text for a pair.
pub(super) fn join(pair: &CertKey) -> String {
    format!("{}{}", pair.cert_pem, pair.key_pem)
}

/// The pair in a file's text; whether the parts are sound is for the caller to check.
pub(super) fn split(text: &str) -> CertKey {
    let (cert, key) = text.split_at(text.find(KEY_HEADER).unwrap_or(text.len()));
    CertKey { cert_pem: cert.to_owned(), key_pem: key.to_owned() }
}
