//! Where a backup is written: a file that is there whole or not at all, or standard output; sealed or plain.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Failed;
use super::seal::{Sealer, Secret};

/// What stands for standard output.
pub(crate) const STDOUT: &str = "-";

enum Bottom {
    File { temporary: NamedTempFile, path: PathBuf, may_replace: bool },
    Stdout,
}

impl Write for Bottom {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { temporary, .. } => temporary.write(bytes),
            Self::Stdout => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { temporary, .. } => temporary.flush(),
            Self::Stdout => io::stdout().flush(),
        }
    }
}

enum Layers {
    Plain(BufWriter<Bottom>),
    Sealed(Box<Sealer<BufWriter<Bottom>>>),
}

/// See the module. Dropped before [`Output::keep`], nothing is left of a file.
pub(crate) struct Output {
    layers: Layers,
    name: PathBuf,
}

impl Output {
    /// A file under another name in its folder, for its owner only; refused when there is a file already that may not
    /// be replaced.
    pub(crate) fn create(path: &Path, may_replace: bool, secret: Option<&Secret>) -> Result<Self, Failed> {
        let bottom = if path == Path::new(STDOUT) {
            Bottom::Stdout
        } else {
            if !may_replace && path.symlink_metadata().is_ok() {
                return Err(exists(path));
            }
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".");
            let made = tempfile::Builder::new().prefix(&name).suffix(".tmp").tempfile_in(folder_of(path));
            let temporary = made.map_err(|err| Failed::io("make a file beside", path, err))?;
            Bottom::File { temporary, path: path.to_owned(), may_replace }
        };
        let bottom = BufWriter::new(bottom);
        let layers = match secret {
            None => Layers::Plain(bottom),
            Some(secret) => {
                let sealer = Sealer::new(bottom, secret).map_err(|err| Failed::io("write", path, err))?;
                Layers::Sealed(Box::new(sealer))
            }
        };
        Ok(Self { layers, name: path.to_owned() })
    }

    /// All of it is written: it gets its name, and survives a power cut. How many bytes it has.
    pub(crate) fn keep(self) -> Result<u64, Failed> {
        let name = self.name;
        let failed = |err| Failed::io("write", &name, err);
        let mut buffered = match self.layers {
            Layers::Plain(plain) => plain,
            Layers::Sealed(sealed) => sealed.finish().map_err(failed)?,
        };
        buffered.flush().map_err(failed)?;
        let bottom = buffered.into_inner().map_err(|err| failed(err.into_error()))?;
        let Bottom::File { temporary, path, may_replace } = bottom else { return Ok(0) };
        temporary.as_file().sync_all().map_err(failed)?;
        let bytes = temporary.as_file().metadata().map_err(failed)?.len();
        let kept = if may_replace { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        match kept {
            Ok(_) => {}
            Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(&path)),
            Err(err) => return Err(failed(err.error)),
        }
        File::open(folder_of(&path)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(bytes)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layers {
            Layers::Plain(plain) => plain.write(bytes),
            Layers::Sealed(sealed) => sealed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // at the end, by `keep`
    }
}

fn exists(path: &Path) -> Failed {
    Failed::Refused(format!("{} is there already; --force replaces it", path.display()))
}

/// The folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_replaces_nothing_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut broken_off = Output::create(&path, false, None).unwrap();
        broken_off.write_all(b"half").unwrap();
        drop(broken_off);
        assert_eq!(names(), 0);
        let mut first = Output::create(&path, false, None).unwrap();
        let late = Output::create(&path, false, None).unwrap();
        first.write_all(b"whole").unwrap();
        assert_eq!(first.keep().unwrap(), 5);
        assert!(late.keep().unwrap_err().to_string().contains("--force replaces it"));
        assert!(Output::create(&path, false, None).is_err());
        Output::create(&path, true, None).unwrap().keep().unwrap();
        assert_eq!((names(), std::fs::read(&path).unwrap().len()), (1, 0));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
