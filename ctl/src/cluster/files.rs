//! Files that are replaced as a whole: a reader sees the old one or the new one, also after a power cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes `content` to a new file beside `path`, syncs it, and renames it over `path`.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = write_new(&temporary, content, mode).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The rename did not happen: what is left is only our own temporary file.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // The folder may be another user's: a link that waits under this name is not followed.
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_waits_in_the_folder_is_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (victim, path) = (dir.path().join("victim"), dir.path().join("config"));
        std::fs::write(&victim, "mine").expect("a file");
        let planted = dir.path().join(format!("config.{}.tmp", std::process::id()));
        std::os::unix::fs::symlink(&victim, &planted).expect("a link");
        replace(&path, b"new", 0o600).expect("replaced");
        assert_eq!(std::fs::read(&victim).expect("the victim"), b"mine");
        assert_eq!(std::fs::read(&path).expect("the file"), b"new");
    }
}
