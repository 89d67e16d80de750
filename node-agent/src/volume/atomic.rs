//! Writes a volume's files so that a reader sees either all old or all new ones.
//!
//! The files stand in a folder named after the time; `..data` is a symlink to it, swapped by rename; the names
//! a user sees are symlinks through `..data`. Source: kubelet `AtomicWriter`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::SetUpError;

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Who owns it, if not root.
    pub(crate) owner: Option<u32>,
}

/// Files by relative path.
pub(crate) type Files = BTreeMap<String, File>;

/// Whether a path may be a file's place in a volume.
pub(crate) fn check_path(path: &str) -> Result<(), SetUpError> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let hidden =
        Path::new(path).components().next().is_some_and(|part| part.as_os_str().to_string_lossy().starts_with(".."));
    if path.is_empty() || path.len() > 4096 || !plain || hidden {
        return Err(SetUpError::BadPath(path.to_owned()));
    }
    Ok(())
}

/// Makes `files` the content of the volume at `dir`; nothing happens if they already are.
pub(crate) fn write(dir: &Path, files: &Files, group: Option<u32>, now: Timestamp) -> Result<(), SetUpError> {
    for path in files.keys() {
        check_path(path)?;
    }
    fs::create_dir_all(dir).map_err(SetUpError::io("create", dir))?;
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && is_current(&data, files) {
        return link_names(dir, files);
    }
    let stamp = stamp(dir, now);
    let fresh = dir.join(&stamp);
    write_files(&fresh, files, group)?;
    let tmp = dir.join(DATA_TMP);
    let _ = fs::remove_file(&tmp);
    symlink(&stamp, &tmp).map_err(SetUpError::io("link", &tmp))?;
    fs::rename(&tmp, &data).map_err(SetUpError::io("rename", &tmp))?;
    link_names(dir, files)?;
    if let Some(old) = old {
        let old = dir.join(old);
        fs::remove_dir_all(&old).map_err(SetUpError::io("remove", &old))?;
    }
    Ok(())
}

/// A name for the folder that no earlier one has.
fn stamp(dir: &Path, now: Timestamp) -> OsString {
    let base = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let mut number = u64::from(now.subsec_nanosecond().unsigned_abs());
    loop {
        let name = OsString::from(format!("{base}.{number:09}"));
        if fs::symlink_metadata(dir.join(&name)).is_err() {
            return name;
        }
        number += 1;
    }
}

fn is_current(data: &Path, files: &Files) -> bool {
    let same = |(path, file): (&String, &File)| {
        let path = data.join(path);
        let mode = fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777);
        fs::read(&path).is_ok_and(|bytes| bytes == file.bytes) && mode.is_ok_and(|mode| mode & file.mode == file.mode)
    };
    count_files(data) == Some(files.len()) && files.iter().all(same)
}

fn count_files(dir: &Path) -> Option<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir).ok()? {
        let entry = entry.ok()?;
        count += if entry.file_type().ok()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Some(count)
}

fn write_files(fresh: &Path, files: &Files, group: Option<u32>) -> Result<(), SetUpError> {
    make_dir(fresh, group)?;
    for (path, file) in files {
        let path = fresh.join(path);
        for parent in path.ancestors().skip(1).take_while(|parent| *parent != fresh).collect::<Vec<_>>().iter().rev() {
            if !parent.is_dir() {
                make_dir(parent, group)?;
            }
        }
        write_file(&path, file, group)?;
    }
    Ok(())
}

fn make_dir(path: &Path, group: Option<u32>) -> Result<(), SetUpError> {
    fs::DirBuilder::new().mode(0o755).create(path).map_err(SetUpError::io("create", path))?;
    let mode = if group.is_some() { 0o2775 } else { 0o755 };
    chown_and_mode(path, None, group, mode)
}

fn write_file(path: &Path, file: &File, group: Option<u32>) -> Result<(), SetUpError> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut opened = opened.map_err(SetUpError::io("create", path))?;
    opened.write_all(&file.bytes).map_err(SetUpError::io("write", path))?;
    // A group that owns the volume can read what its owner can. Source: kubelet `SetVolumeOwnership`.
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    chown_and_mode(path, file.owner, group, mode)
}

fn chown_and_mode(path: &Path, owner: Option<u32>, group: Option<u32>, mode: u32) -> Result<(), SetUpError> {
    if owner.is_some() || group.is_some() {
        chown(path, owner, group).map_err(SetUpError::io("change the owner of", path))?;
    }
    // After chown, which clears the set-group-ID bit.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(SetUpError::io("change the mode of", path))
}

/// Makes the names the user sees, and removes those that are gone.
fn link_names(dir: &Path, files: &Files) -> Result<(), SetUpError> {
    let first = |path: &String| Path::new(path).components().next().map(|part| part.as_os_str().to_owned());
    let names: BTreeSet<OsString> = files.keys().filter_map(first).collect();
    for name in &names {
        let link = dir.join(name);
        let target = PathBuf::from(DATA).join(name);
        if fs::read_link(&link).is_ok_and(|existing| existing == target) {
            continue;
        }
        symlink(&target, &link).map_err(SetUpError::io("link", &link))?;
    }
    for entry in fs::read_dir(dir).map_err(SetUpError::io("list", dir))? {
        let entry = entry.map_err(SetUpError::io("list", dir))?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
            fs::remove_file(entry.path()).map_err(SetUpError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644, owner: None };
        content.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn now(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_update_swaps_all_files_at_once_and_leaves_no_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None, now(1)).unwrap();
        let first = fs::read_link(dir.path().join(DATA)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        write(dir.path(), &files(&[("a", "one"), ("c", "3")]), None, now(1)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "one");
        assert_eq!(fs::read_to_string(dir.path().join("c")).unwrap(), "3");
        assert!(fs::symlink_metadata(dir.path().join("d")).is_err());
        assert!(!dir.path().join(first).exists());
    }

    #[test]
    fn the_same_content_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), None, now(1)).unwrap();
        let first = fs::read_link(dir.path().join(DATA)).unwrap();
        write(dir.path(), &files(&[("a", "1")]), None, now(2)).unwrap();
        assert_eq!(fs::read_link(dir.path().join(DATA)).unwrap(), first);
    }

    #[test]
    fn modes_and_groups_are_as_asked() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut content = files(&[("a", "1")]);
        content.get_mut("a").unwrap().mode = 0o400;
        write(dir.path(), &content, Some(2000), now(1)).unwrap();
        let meta = fs::metadata(dir.path().join("a")).unwrap();
        assert_eq!((meta.gid(), meta.mode() & 0o777), (2000, 0o440));
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["", "/a", "../a", "a/../../b", "..data", "./a/../b"] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path("a/b.c").is_ok());
    }
}
