//! `reeve restore FILE`: makes a data folder of a backup: of a cluster for `reeve up`, or of the first server of a
//! control plane (`target.rs`). Everything is checked before anything is written,
//! and what is written gets its place only when all of it is on disk: whatever is refused, and whenever this is killed,
//! no half cluster is left that `reeve up` would start.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reeve_apiserver::join::is_about_servers;
use reeve_store::backup::contents::BackupKey;
use reeve_store::backup::{self, BackupError, Item, RestoreError, Summary};

use super::args::{RestoreArgs, SecretArgs};
use super::output::{STDOUT as STDIN, folder_of};
use super::target::Target;
use super::{Failed, is_kept, passphrase, seal};
use crate::cluster::CONFIG_FILE;
use crate::cluster::server::NewServer;

/// What is being written, below the data folder. As long as it is there, `reeve up` does not take the folder.
const UNDER_WAY: &str = "restore.tmp";

impl From<BackupError> for Failed {
    fn from(source: BackupError) -> Self {
        Self::Backup { file: "the backup".to_owned(), source }
    }
}

/// Runs it to its end.
pub(crate) fn run(args: &RestoreArgs) -> Result<(), Failed> {
    let mut source = open_file(&args.file)?;
    let named = |err: Failed| match err {
        Failed::Backup { source, .. } => Failed::Backup { file: args.file.display().to_string(), source },
        other => other,
    };
    // First a look at all of it: what is damaged is refused before anything is touched.
    let mut secret = None;
    let summary = unpack(&mut source, args, &mut secret, None).map_err(named)?;
    let head = &summary.head;
    if let Some(file) = head.files.iter().find(|file| !is_kept(&file.name)) {
        return Err(Failed::Refused(format!("the backup has a file {:?} that has no place in a cluster", file.name)));
    }
    let target = Target::of(args, head)?;
    let claim = target.claim()?;
    let dir = target.data_dir();
    let made = make_empty(dir, &target)?;
    let written = target.lock().and_then(|lock| {
        source.rewind().map_err(|err| Failed::io("read", &args.file, err))?;
        write(&mut source, args, &mut secret, &target, head).map_err(named)?;
        Ok(lock)
    });
    if let Err(err) = written {
        let _ = fs::remove_dir_all(dir.join(UNDER_WAY));
        made.undo(&target);
        return Err(err);
    }
    drop(claim);
    target.say(&summary);
    Ok(())
}

/// The backup as a file that can be read twice: standard input goes into one first.
fn open_file(file: &Path) -> Result<File, Failed> {
    if file != Path::new(STDIN) {
        return File::open(file).map_err(|err| Failed::io("open", file, err));
    }
    let failed = |err| Failed::io("keep", Path::new("standard input"), err);
    let mut kept = tempfile::tempfile().map_err(failed)?;
    io::copy(&mut io::stdin().lock(), &mut kept).map_err(failed)?;
    kept.rewind().map_err(failed)?;
    Ok(kept)
}

/// Reads a backup to its end, and shows its pieces.
pub(crate) fn read(
    file: &Path,
    args: &SecretArgs,
    mut show: impl FnMut(Item) -> Result<(), Failed>,
) -> Result<Summary, Failed> {
    let opened = open_file(file)?;
    let mut plain = seal::open::<_, Failed>(BufReader::new(opened), |kind| passphrase::for_opening(args, kind))?;
    backup::unpack(&mut plain, &mut show).map_err(|err: Failed| match sound(err) {
        Failed::Backup { source, .. } => Failed::Backup { file: file.display().to_string(), source },
        other => other,
    })
}

/// An error of the encryption comes through a reader: it is one of the backup all the same.
fn sound(err: Failed) -> Failed {
    match err {
        Failed::Backup { file, source: BackupError::Io(err) } => match err.downcast::<BackupError>() {
            Ok(source) => Failed::Backup { file, source },
            Err(err) => Failed::Backup { file, source: BackupError::Io(err) },
        },
        other => other,
    }
}

/// Reads the whole backup, into a store if a folder is given. The secret is asked for once.
fn unpack(
    source: &mut File,
    args: &RestoreArgs,
    secret: &mut Option<Arc<seal::Secret>>,
    store: Option<&Path>,
) -> Result<Summary, Failed> {
    let asked = |kind| {
        if secret.is_none() {
            *secret = Some(passphrase::for_opening(&args.secret, kind)?);
        }
        secret.clone().ok_or_else(|| Failed::Refused("no secret".to_owned()))
    };
    let mut plain = seal::open::<_, Failed>(BufReader::new(source), asked)?;
    match store {
        None => backup::unpack(&mut plain, |_| Ok(())).map_err(sound),
        Some(folder) => backup::restore_some(&mut plain, folder, &is_of_cluster).map_err(|err| match err {
            RestoreError::Backup(source) => sound(source.into()),
            other => Failed::Refused(format!("cannot restore: {}", super::make::chain(&other))),
        }),
    }
}

/// Whether a key is restored: servers that are not there any more left some behind.
fn is_of_cluster(key: &BackupKey) -> bool {
    !is_about_servers(&key.key, &key.value)
}

/// Folders that were made.
struct Made(Vec<PathBuf>);

impl Made {
    fn undo(self, target: &Target) {
        if let (Some(lock), Some(dir)) = (target.lock_file(), self.0.first()) {
            let _ = fs::remove_file(dir.join(lock));
        }
        for dir in &self.0 {
            // One that is no longer empty is somebody's.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes the data folder, or sees that it is empty. What a restore that was killed has left goes.
fn make_empty(dir: &Path, target: &Target) -> Result<Made, Failed> {
    let under_way = dir.join(UNDER_WAY);
    if under_way.exists() && !dir.join(CONFIG_FILE).exists() && !dir.join(NewServer::FILE).exists() {
        for left in [dir.join("store"), dir.join("pki"), under_way] {
            match fs::remove_dir_all(&left) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(Failed::io("remove", &left, err)),
                _ => {}
            }
        }
    }
    match fs::read_dir(dir) {
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name());
            let foreign = |name: &OsString| name != "lost+found" && target.lock_file().is_none_or(|lock| name != lock);
            if let Some(name) = names.into_iter().find(foreign) {
                let (dir, name) = (dir.display(), name.to_string_lossy());
                let rule =
                    format!("{dir} is not empty (it has {name:?}): a backup is restored into a new or empty folder");
                return Err(Failed::Refused(rule));
            }
            Ok(Made(Vec::new()))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let made = dir.ancestors().take_while(|dir| !dir.exists()).map(Path::to_path_buf).collect();
            let built = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            built.map_err(|err| Failed::io("create", dir, err))?;
            Ok(Made(made))
        }
        Err(err) => Err(Failed::io("list", dir, err)),
    }
}

fn write(
    source: &mut File,
    args: &RestoreArgs,
    secret: &mut Option<Arc<seal::Secret>>,
    target: &Target,
    head: &backup::contents::BackupHead,
) -> Result<(), Failed> {
    let dir = target.data_dir();
    let under_way = dir.join(UNDER_WAY);
    let failed = |err| Failed::io("write", &under_way, err);
    fs::create_dir_all(under_way.join("pki")).map_err(failed)?;
    unpack(source, args, secret, Some(&under_way.join("store")))?;
    for file in head.files.iter().filter(|file| file.name.starts_with("pki/")) {
        keep_file(&under_way.join(&file.name), &file.content).map_err(failed)?;
    }
    let (name, content) = target.choices()?;
    keep_file(&under_way.join(name), &content).map_err(failed)?;
    for folder in [&under_way.join("pki"), &under_way, dir, folder_of(dir)] {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    // The choices come last: they make the folder a cluster's, or a server's.
    for name in ["store", "pki", name] {
        fs::rename(under_way.join(name), dir.join(name)).map_err(failed)?;
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    fs::remove_dir(&under_way).map_err(failed)
}

fn keep_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
