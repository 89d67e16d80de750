//! What a folder takes on disk.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::engine::FsUsage;

/// Bytes of a block as `stat` counts them, whatever the file system.
const BLOCK_LEN: u64 = 512;

/// What a folder and everything in it occupy, as `du -x` counts: holes are free, a file with several names counts once,
/// links are not followed, other file systems are left out. What goes away meanwhile is passed over.
///
/// # Errors
/// When the folder itself cannot be looked at.
pub fn disk_usage(dir: &Path) -> io::Result<FsUsage> {
    let top = fs::symlink_metadata(dir)?;
    let mut total = FsUsage { path: dir.to_owned(), used_bytes: top.blocks() * BLOCK_LEN, inodes: 1 };
    let mut seen: HashSet<u64> = HashSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() || meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino()) {
                continue;
            }
            total.used_bytes = total.used_bytes.saturating_add(meta.blocks() * BLOCK_LEN);
            total.inodes += 1;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_blocks_and_files_once_and_follows_no_links() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("big"), vec![1; 4 << 20]).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("sub/file"), dir.path().join("again")).unwrap();
        fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("link")).unwrap();
        let used = disk_usage(dir.path()).unwrap();
        assert!((1 << 20..2 << 20).contains(&used.used_bytes), "{used:?}");
        assert_eq!(used.inodes, 5, "the folder, sub, the file by one of its names, the hole, the link");
    }
}
