//! Git repositories as build contexts and as sources of ADD, fetched by the `git` program of the machine.
//!
//! Source: Docker, "Build context", "Git repositories" (`URL#REF:SUBDIR`), and the Dockerfile reference, "ADD". What
//! comes is a stranger's: git gets no say in which programs run, files get the time of the commit, and nothing is
//! looked up outside of the checkout.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::images::{ImageStore, Session};
use crate::snapshot::root::Root;

/// How deep folders may nest.
const DEPTH_MAX: usize = 256;
/// What of a failed command's words is told.
const WORDS_MAX: usize = 2000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Repository {
    url: String,
    /// Branch, tag or commit; none for the remote's own choice.
    reference: Option<String>,
    /// Folder of it; empty for all.
    subdir: String,
}

/// A repository's files. They go when it is dropped.
#[derive(Debug)]
pub struct Checkout {
    dir: tempfile::TempDir,
    /// Of the folder that was asked for.
    path: PathBuf,
    /// The commit.
    commit: String,
    /// So that nobody takes it for something that a killed process has left.
    _session: Session,
}

/// Whether a text names a repository, not a folder.
#[must_use]
pub fn is_repository(text: &str) -> bool {
    let front = text.split('#').next().unwrap_or_default();
    let web = front.starts_with("http://") || front.starts_with("https://");
    (web && front.ends_with(".git"))
        || ["git://", "ssh://", "git@"].iter().any(|scheme| front.starts_with(scheme))
        || front.starts_with("github.com/")
}

impl Checkout {
    /// Fetches a repository into the store's folder for unfinished things. Blocks.
    ///
    /// # Errors
    /// What is wrong with the text, that there is no git, or git's own words.
    pub fn fetch(store: &ImageStore, text: &str) -> Result<Self, String> {
        Self::fetch_into(store, text, false)
    }

    /// The same, keeping `.git`, if that is wanted.
    pub(super) fn fetch_into(store: &ImageStore, text: &str, keep_git_dir: bool) -> Result<Self, String> {
        let wanted = Repository::parse(text)?;
        let session = store.begin().map_err(|error| error.to_string())?;
        let dir = tempfile::tempdir_in(store.tmp_dir()).map_err(|error| error.to_string())?;
        let files = dir.path().join("files");
        fs::create_dir(&files).map_err(|error| error.to_string())?;
        let git = Git { dir: &files };
        git.run(&["init", "-q", "."])?;
        git.run(&["remote", "add", "origin", &wanted.url])?;
        let reference = wanted.reference.as_deref().unwrap_or("HEAD");
        let is_commit = reference.len() >= 7 && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
        let target = match git.run(&["fetch", "-q", "--depth=1", "--no-tags", "origin", reference]) {
            Ok(_) => "FETCH_HEAD",
            // A server that gives no single commits gives all of them.
            Err(_) if is_commit => {
                git.run(&["fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"])?;
                reference
            }
            Err(error) => return Err(error),
        };
        git.run(&["checkout", "-q", "--detach", target])?;
        git.run(&["submodule", "-q", "update", "--init", "--recursive", "--depth=1"])?;
        let commit = git.run(&["rev-parse", "HEAD"])?.trim().to_owned();
        let time = git.run(&["log", "-1", "--format=%ct"])?.trim().parse().unwrap_or(0);
        if !keep_git_dir {
            remove_git_dirs(&files, 0).map_err(|error| format!("{text}: {error}"))?;
        }
        set_times(&files, time, 0).map_err(|error| format!("{text}: {error}"))?;
        let path = folder_of(&files, &wanted.subdir).map_err(|error| format!("{text}: {}: {error}", wanted.subdir))?;
        Ok(Self { dir, path, commit, _session: session })
    }

    /// The folder that was asked for.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The commit's name.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Removes it, saying so if that fails.
    pub(super) fn close(self) -> io::Result<()> {
        self.dir.close()
    }
}

impl Repository {
    fn parse(text: &str) -> Result<Self, String> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let url = if url.starts_with("github.com/") { format!("https://{url}") } else { url.to_owned() };
        if url.starts_with('-') || reference.starts_with('-') || url.chars().any(|c| c.is_control() || c == ' ') {
            return Err(format!("invalid git repository {text:?}"));
        }
        let subdir = super::glob::clean(subdir).map_err(|_| format!("invalid git repository {text:?}: its folder"))?;
        Ok(Self { url, reference: Some(reference.to_owned()).filter(|own| !own.is_empty()), subdir })
    }
}

struct Git<'a> {
    dir: &'a Path,
}

impl Git<'_> {
    fn run(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("git");
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=true", "-c", "advice.detachedHead=false"]);
        command.args(args).current_dir(self.dir).stdin(Stdio::null());
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "git:http:https:ssh");
        for own in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(own);
        }
        let output = command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                "git repositories need the git program: install git, or build from a folder".to_owned()
            }
            _ => format!("failed to run git: {error}"),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(WORDS_MAX).collect();
        Err(format!("git {} failed: {said}", args.first().copied().unwrap_or_default()))
    }
}

/// A folder of the checkout, wherever its links lead inside.
fn folder_of(files: &Path, subdir: &str) -> Result<PathBuf, String> {
    let root = Root::open_beneath(files).map_err(|errno| errno.to_string())?;
    let real = root.real_path(Path::new(subdir)).map_err(|errno| errno.to_string())?;
    root.dir(&real).map_err(|errno| errno.to_string())?;
    Ok(files.join(real))
}

/// Submodules have one, too: a file or a folder.
fn remove_git_dirs(dir: &Path, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("too many nested directories"));
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        match (entry.file_name() == ".git", is_dir) {
            (true, true) => fs::remove_dir_all(entry.path())?,
            (true, false) => fs::remove_file(entry.path())?,
            (false, true) => remove_git_dirs(&entry.path(), depth + 1)?,
            (false, false) => {}
        }
    }
    Ok(())
}

/// Gives everything the time of the commit: the same commit makes the same layers.
fn set_times(path: &Path, time: i64, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("too many nested directories"));
    }
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            set_times(&entry?.path(), time, depth + 1)?;
        }
    }
    let at = Timespec { tv_sec: time, tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_folders_and_files() {
        for (text, is_one) in [
            ("https://example.com/x.git", true),
            ("https://example.com/x.git#v1:sub", true),
            ("git://example.com/x", true),
            ("git@example.com:x/y", true),
            ("ssh://git@example.com/x", true),
            ("github.com/a/b", true),
            ("https://example.com/x.tar.gz", false),
            ("./github.com/a", false),
            (".", false),
        ] {
            assert_eq!(is_repository(text), is_one, "{text}");
        }
    }

    #[test]
    fn reference_and_folder_stand_behind_the_address() {
        let parsed = |text: &str| Repository::parse(text).map(|own| (own.url, own.reference, own.subdir));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parsed("git://h/x#v1:a/./b"), Ok(("git://h/x".to_owned(), some("v1"), "a/b".to_owned())));
        assert_eq!(parsed("github.com/a/b#:c"), Ok(("https://github.com/a/b".to_owned(), None, "c".to_owned())));
        for bad in ["--upload-pack=x", "git://h/x#--help", "git://h/x#v:../..", "git://h/ x"] {
            assert!(parsed(bad).unwrap_err().starts_with("invalid git repository"), "{bad}");
        }
    }
}
