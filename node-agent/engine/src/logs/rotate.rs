//! Keeps a container's log small: a file that has grown to its limit is moved aside, the oldest go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Moves a log aside under a name with its time, and removes what is more than `files_max` files with the next one.
/// Names sort by age. Source: kubelet `containerLogManager`, whose names end with the second; here two may fall into
/// one.
///
/// # Errors
/// When a file cannot be moved or removed.
pub fn exchange(path: &Path, files_max: usize, now: Timestamp) -> io::Result<()> {
    let stamp = now.strftime("%Y%m%d-%H%M%S.%9f");
    fs::rename(path, format!("{}.{stamp}", path.display()))?;
    let mut all = older(path)?;
    all.sort();
    let surplus = (all.len() + 1).saturating_sub(files_max.max(1));
    all.iter().take(surplus).try_for_each(fs::remove_file)
}

/// The files that were moved aside.
fn older(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(dir)?.filter_map(Result::ok);
    let of_this_log = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    Ok(entries.filter(of_this_log).map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_files_go_and_none_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for moment in 0..8 {
            fs::write(&path, moment.to_string()).unwrap();
            exchange(&path, 5, Timestamp::from_millisecond(moment).unwrap()).unwrap();
        }
        let mut left = older(&path).unwrap();
        left.sort();
        let content: Vec<_> = left.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(content, ["4", "5", "6", "7"]);
    }
}
