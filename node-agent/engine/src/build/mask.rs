//! Hides from a command what `.dockerignore` leaves out of the build context: a folder of whiteouts to lay over it.
//!
//! Source: Linux, Documentation/filesystems/overlayfs.rst, "Whiteouts and opaque directories".

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::glob::Ignore;
use crate::snapshot::root::Root;
use crate::snapshot::unpack::copy_attributes;

/// How deep folders may nest.
const DEPTH_MAX: usize = 256;

/// Makes the mask for a folder of the context in the empty folder `mask`. Answers whether anything is hidden.
pub(super) fn make(context: &Root, path: &Path, ignore: &Ignore, mask: &Path) -> Result<bool, String> {
    if ignore.is_empty() {
        return Ok(false);
    }
    Mask { context, ignore }.folder(path, mask, 0)
}

struct Mask<'a> {
    context: &'a Root,
    ignore: &'a Ignore,
}

impl Mask<'_> {
    fn folder(&self, path: &Path, mask: &Path, depth: usize) -> Result<bool, String> {
        if depth > DEPTH_MAX {
            return Err(format!("{}: too many nested directories", path.display()));
        }
        let mut hides = false;
        for name in self.context.list(path).map_err(|errno| at(path, errno))? {
            let (below, over) = (path.join(&name), mask.join(&name));
            let stat = self.context.lstat(&below).map_err(|errno| at(&below, errno))?;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let excluded = self.ignore.excludes(&below.to_string_lossy());
            if excluded && !(is_dir && self.takes_back(&below, depth)?) {
                let none = rustix::fs::mknodat(rustix::fs::CWD, &over, FileType::CharacterDevice, Mode::empty(), 0);
                none.map_err(|errno| at(&over, errno))?;
                hides = true;
            } else if is_dir {
                std::fs::create_dir(&over).map_err(|error| format!("{}: {error}", over.display()))?;
                if self.folder(&below, &over, depth + 1)? {
                    hides = true;
                } else {
                    std::fs::remove_dir(&over).map_err(|error| format!("{}: {error}", over.display()))?;
                }
            }
        }
        if hides {
            // The merged folder takes after the mask.
            let stat = self.context.stat(path).map_err(|errno| at(path, errno))?;
            let dir = std::fs::File::open(mask).map_err(|error| format!("{}: {error}", mask.display()))?;
            copy_attributes(dir.as_fd(), &stat).map_err(|errno| at(mask, errno))?;
        }
        Ok(hides)
    }

    /// Whether something in a folder that is left out is taken back in.
    fn takes_back(&self, path: &Path, depth: usize) -> Result<bool, String> {
        if !self.ignore.has_exceptions() || depth > DEPTH_MAX {
            return Ok(false);
        }
        for name in self.context.list(path).map_err(|errno| at(path, errno))? {
            let below = path.join(name);
            let stat = self.context.lstat(&below).map_err(|errno| at(&below, errno))?;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !self.ignore.excludes(&below.to_string_lossy()) || (is_dir && self.takes_back(&below, depth + 1)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn at(path: &Path, errno: Errno) -> String {
    format!("{}: {errno}", path.display())
}
