//! COPY and ADD: which files of a tree go where in the image.
//!
//! Source: Dockerfile reference, "COPY" and "ADD": the rules on trailing slashes, folders' contents, globs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::chmod::Chmod;
use super::diff::entry_of;
use super::glob::{Ignore, Pattern, clean};
use super::layer::{LayerWriter, Meta};
use crate::images::ImageStore;
use crate::snapshot::layers::decompressed;
use crate::snapshot::root::Root;
use crate::snapshot::tar::{Entry, Kind, TarReader};
use crate::snapshot::unpack::relative;

/// How deep folders may nest.
const DEPTH_MAX: usize = 256;
/// Memory that an xz archive may need to be unpacked; `xz -9` needs 65 MiB.
const XZ_MEMORY_KIB_MAX: u32 = 512 << 10;
/// How xz and bzip2 archives begin.
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: &[u8] = b"BZh";

/// Where files are copied from.
pub(super) struct Source<'a> {
    pub(super) root: &'a Root,
    /// What the build context leaves out.
    pub(super) ignore: Option<&'a Ignore>,
    /// Whether files keep their owner: those of other stages and images do, those of the context become root's.
    pub(super) keep_owner: bool,
}

/// One COPY or ADD, its words expanded.
pub(super) struct Order<'a> {
    pub(super) keyword: &'static str,
    pub(super) source: Source<'a>,
    pub(super) patterns: &'a [String],
    /// Files that stand in the Dockerfile or were fetched.
    pub(super) inline: &'a [Inline],
    /// Patterns of what is left out besides, below each source.
    pub(super) excludes: &'a [Pattern],
    /// Makes the folders on the way to each source in the destination.
    pub(super) parents: bool,
    /// Absolute; ends with a slash if it was written so.
    pub(super) dest: &'a str,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<&'a Chmod>,
    /// Unpack tar archives: what ADD does with those of the context.
    pub(super) extract: bool,
}

/// A file that is in no tree.
pub(super) struct Inline {
    /// Its name in a folder; empty when it has none.
    pub(super) name: String,
    /// At its beginning.
    pub(super) file: File,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    /// Unpack it if it is an archive.
    pub(super) unpack: bool,
}

/// A file without a name that holds some text.
pub(super) fn in_file(store: &ImageStore, content: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(store.tmp_dir())?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Carries out one order. `image` is the file system that the copied files will lie upon.
pub(super) fn copy(order: &Order<'_>, image: &Root, layer: &mut LayerWriter) -> Result<(), String> {
    if order.patterns.is_empty() && order.inline.is_empty() {
        return Ok(());
    }
    let mut matches = Vec::new();
    for pattern in order.patterns {
        let pivot = order.pivot(pattern)?;
        matches.extend(order.matches(pattern)?.into_iter().map(|path| (path, pivot)));
    }
    let folder = order.dest.ends_with('/');
    let target = image.real_path(Path::new(order.dest)).map_err(|errno| at(order.dest, errno))?;
    let existing = image.lstat(&target).ok();
    let is_dir = existing.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory);
    let sources = order.patterns.len() + order.inline.len();
    if !folder && (sources > 1 || matches.len() > 1 && !is_dir) {
        let keyword = order.keyword;
        return Err(format!(
            "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
        ));
    }
    // Patterns that nothing fits ask for nothing.
    if matches.is_empty() && order.inline.is_empty() {
        return Ok(());
    }
    if existing.is_some() && !is_dir && folder {
        return Err(format!("cannot copy to non-directory: {}", order.dest));
    }
    let mut copier = Copier { order, image, layer, made: BTreeSet::new(), top: PathBuf::new() };
    for (source, pivot) in matches {
        match pivot {
            Some(skipped) => {
                let kept: PathBuf = source.components().skip(skipped).collect();
                let is_dir = order.source.root.stat(&source).is_ok_and(|stat| kind(&stat) == FileType::Directory);
                let below = if is_dir { Some(kept.as_path()) } else { kept.parent() };
                copier.top(&source, &target.join(below.unwrap_or(Path::new(""))), true)?;
            }
            None => copier.top(&source, &target, folder || is_dir)?,
        }
    }
    for file in order.inline {
        copier.inline(file, &target, folder || is_dir)?;
    }
    Ok(())
}

impl Order<'_> {
    /// The files of the tree that a source names, sorted. None only of a pattern: as with BuildKit that is no mistake.
    fn matches(&self, source: &str) -> Result<Vec<PathBuf>, String> {
        let path = clean(source)?;
        let nothing = || {
            let place = if self.source.ignore.is_some() {
                "in build context or excluded by .dockerignore"
            } else {
                "in the image"
            };
            format!("{} failed: file not found {place}: stat {source}: file does not exist", self.keyword)
        };
        let mut found = vec![PathBuf::new()];
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let mut next = Vec::new();
            for dir in &found {
                if part == "**" && self.parents {
                    // At the end the folder itself stands for all that is in it.
                    self.folders(dir, parts.peek().map_or(DEPTH_MAX, |_| 0), &mut next)?;
                    continue;
                }
                if !part.contains(['*', '?', '[', '\\']) {
                    next.push(dir.join(part));
                    continue;
                }
                let pattern = Pattern::parse(part)?;
                let names = match self.source.root.list(dir) {
                    Err(Errno::XDEV) => return Err(outside(dir)),
                    // What is no folder holds no match.
                    other => other.unwrap_or_default(),
                };
                next.extend(names.iter().filter(|n| pattern.matches(&n.to_string_lossy())).map(|n| dir.join(n)));
            }
            found = next;
        }
        let mut kept = Vec::new();
        for path in found.into_iter().collect::<BTreeSet<_>>() {
            match self.source.root.stat(&path) {
                Ok(stat) if !self.excludes(&path) || self.holds_exceptions(&path, &stat, 0) => kept.push(path),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(Errno::XDEV) => return Err(outside(&path)),
                Err(errno) => return Err(at(source, errno)),
            }
        }
        if kept.is_empty() && !is_pattern(&path) { Err(nothing()) } else { Ok(kept) }
    }

    /// A folder and all below it; only itself at the greatest depth.
    fn folders(&self, dir: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<(), String> {
        out.push(dir.to_owned());
        if depth >= DEPTH_MAX {
            return Ok(());
        }
        // What is no folder holds none.
        for name in self.source.root.list(dir).unwrap_or_default() {
            let path = dir.join(name);
            let stat = self.source.root.lstat(&path).map_err(|errno| at(&path, errno))?;
            let wanted = || !self.excludes(&path) || self.holds_exceptions(&path, &stat, depth);
            if kind(&stat) == FileType::Directory && wanted() {
                self.folders(&path, depth + 1, out)?;
            }
        }
        Ok(())
    }

    /// How many folders at the beginning of a source are not made in the destination: those before `/./`.
    fn pivot(&self, source: &str) -> Result<Option<usize>, String> {
        if !self.parents {
            return Ok(None);
        }
        let before = source.find("/./").and_then(|at| source.get(..at)).unwrap_or_default();
        Ok(Some(Path::new(&clean(before)?).components().count()))
    }

    fn excludes(&self, path: &Path) -> bool {
        self.source.ignore.is_some_and(|ignore| ignore.excludes(&path.to_string_lossy()))
    }

    /// Whether `--exclude` leaves a path below the named source out.
    fn leaves_out(&self, below: &Path) -> bool {
        let below = below.to_string_lossy();
        self.excludes.iter().any(|pattern| pattern.matches(&below))
    }

    /// Whether a folder is left out as a whole, but for something below it that an exception takes back in.
    fn holds_exceptions(&self, path: &Path, stat: &Stat, depth: usize) -> bool {
        let exceptions = self.source.ignore.is_some_and(Ignore::has_exceptions);
        if kind(stat) != FileType::Directory || !exceptions || depth > DEPTH_MAX {
            return false;
        }
        // What cannot be read fails when it is copied, if it is.
        self.source.root.list(path).unwrap_or_default().iter().map(|name| path.join(name)).any(|path| {
            let below =
                || self.source.root.lstat(&path).is_ok_and(|stat| self.holds_exceptions(&path, &stat, depth + 1));
            !self.excludes(&path) || below()
        })
    }

    fn meta(&self, stat: &Stat) -> Meta {
        let kept = if self.source.keep_owner { (stat.st_uid, stat.st_gid) } else { (0, 0) };
        let (uid, gid) = self.owner.unwrap_or(kept);
        let mode = self.chmod(stat.st_mode & 0o7777, kind(stat) == FileType::Directory);
        Meta { uid, gid, mode, mtime: stat.st_mtime }
    }

    fn chmod(&self, mode: u32, folder: bool) -> u32 {
        self.mode.map_or(mode, |chmod| chmod.apply(mode, folder))
    }

    /// What a folder is like that had to be made: not as the source's, but as was said. Changes of a mode are for what
    /// is copied.
    fn new_dir(&self) -> Meta {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let mode = if let Some(Chmod::To(mode)) = self.mode { *mode } else { NEW_DIR.mode };
        Meta { uid, gid, mode, ..NEW_DIR }
    }
}

struct Copier<'a> {
    order: &'a Order<'a>,
    image: &'a Root,
    layer: &'a mut LayerWriter,
    /// Folders that this layer has made.
    made: BTreeSet<PathBuf>,
    /// The source that is being copied.
    top: PathBuf,
}

impl Copier<'_> {
    /// A source that was named: links to it are followed, a folder gives its contents.
    fn top(&mut self, source: &Path, target: &Path, into: bool) -> Result<(), String> {
        let stat = self.order.source.root.stat(source).map_err(|errno| at(source, errno))?;
        if kind(&stat) == FileType::Directory {
            if self.image.lstat(target).is_ok_and(|stat| kind(&stat) != FileType::Directory) {
                return Err(format!("cannot copy to non-directory: {}", self.order.dest));
            }
            if self.order.parents {
                self.make_parents(target.parent().unwrap_or(Path::new("")))?;
                self.make_top(target, &stat)?;
            } else {
                self.make_parents(target)?;
            }
            source.clone_into(&mut self.top);
            return self.contents(source, target, 0);
        }
        let name = source.file_name().unwrap_or_default();
        if self.order.leaves_out(Path::new(name)) {
            return Ok(());
        }
        if self.order.extract {
            let file = self.order.source.root.file(source).map_err(|errno| at(source, errno))?;
            if self.extract(file, source, target)? {
                return Ok(());
            }
        }
        let target = if into { target.join(name) } else { target.to_owned() };
        self.make_parents(target.parent().unwrap_or(Path::new("")))?;
        self.file(source, &target, &stat)
    }

    fn inline(&mut self, file: &Inline, target: &Path, into: bool) -> Result<(), String> {
        if file.unpack {
            let archive = file.file.try_clone().map_err(|error| at(&file.name, error))?;
            if self.extract(archive, Path::new(&file.name), target)? {
                return Ok(());
            }
        }
        if into && file.name.is_empty() {
            return Err("cannot determine filename from url: name the destination itself".to_owned());
        }
        let target = if into { target.join(&file.name) } else { target.to_owned() };
        self.make_parents(target.parent().unwrap_or(Path::new("")))?;
        self.check_over(&target, FileType::RegularFile)?;
        let size = file.file.metadata().map_err(|error| at(&target, error))?.len();
        let (uid, gid) = self.order.owner.unwrap_or((0, 0));
        let meta = Meta { uid, gid, mode: self.order.chmod(file.mode, false), mtime: file.mtime };
        let written = self.layer.file(&target, meta, size, &file.file);
        written.map_err(|error| at(&target, error))
    }

    /// A folder that was named itself: one that is there stays as it is.
    fn make_top(&mut self, target: &Path, stat: &Stat) -> Result<(), String> {
        if target.as_os_str().is_empty() || self.image.lstat(target).is_ok() || !self.made.insert(target.to_owned()) {
            return Ok(());
        }
        self.layer.dir(target, self.order.meta(stat)).map_err(|error| at(target, error))
    }

    /// Everything below a folder, links as links. Answers nothing for folders that are wholly left out.
    fn contents(&mut self, source: &Path, target: &Path, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("{}: too many nested directories", source.display()));
        }
        for name in self.order.source.root.list(source).map_err(|errno| at(source, errno))? {
            let (from, to) = (source.join(&name), target.join(&name));
            let below = from.strip_prefix(&self.top).unwrap_or(&from);
            if self.order.leaves_out(below) {
                continue;
            }
            let excluded = self.order.excludes(&from);
            let stat = self.order.source.root.lstat(&from).map_err(|errno| at(&from, errno))?;
            match kind(&stat) {
                // A folder that is left out is on the way of what is taken back in below it.
                FileType::Directory if !excluded || self.order.holds_exceptions(&from, &stat, depth) => {
                    self.make_parents(target)?;
                    self.check_over(&to, FileType::Directory)?;
                    self.layer.dir(&to, self.order.meta(&stat)).map_err(|error| at(&to, error))?;
                    self.made.insert(to.clone());
                    self.contents(&from, &to, depth + 1)?;
                }
                _ if excluded => {}
                FileType::Symlink => {
                    self.make_parents(target)?;
                    let link = self.order.source.root.link(&from).map_err(|errno| at(&from, errno))?;
                    let meta = Meta { mode: 0o777, ..self.order.meta(&stat) };
                    self.check_over(&to, FileType::Symlink)?;
                    self.layer.symlink(&to, meta, Path::new(&link)).map_err(|error| at(&to, error))?;
                }
                // As Docker: a socket without its server is nothing.
                FileType::Socket => {}
                _ => {
                    self.make_parents(target)?;
                    self.file(&from, &to, &stat)?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, source: &Path, target: &Path, stat: &Stat) -> Result<(), String> {
        if kind(stat) != FileType::RegularFile {
            return self.special(source, target, stat);
        }
        self.check_over(target, FileType::RegularFile)?;
        let file = self.order.source.root.file(source).map_err(|errno| at(source, errno))?;
        self.copy_capabilities(&file).map_err(|error| at(source, error))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.layer.file(target, self.order.meta(stat), size, file).map_err(|error| at(source, error))
    }

    /// Devices and pipes are copied as what they are.
    fn special(&mut self, source: &Path, target: &Path, stat: &Stat) -> Result<(), String> {
        let special = match kind(stat) {
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => return Err(format!("{}: neither a file nor a directory nor a link", source.display())),
        };
        self.check_over(target, kind(stat))?;
        let Meta { uid, gid, mode, .. } = self.order.meta(stat);
        let entry = Entry { uid, gid, mode, ..entry_of(target, stat, special, Vec::new()) };
        self.layer.entry(target, &entry, Path::new(""), io::empty()).map_err(|error| at(source, error))
    }

    /// What a program may do besides its user's rights goes with it, from image to image.
    fn copy_capabilities(&mut self, file: &File) -> io::Result<()> {
        const NAME: &str = "security.capability";
        let mut value = [0; 64];
        match rustix::fs::fgetxattr(file, NAME, &mut value) {
            Ok(len) if self.order.source.keep_owner => {
                let value = value.get(..len).unwrap_or_default().to_vec();
                self.layer.xattrs(&[(NAME.to_owned(), value)])
            }
            _ => Ok(()),
        }
    }

    /// Unpacks an archive below `target`; answers `false` when the file is none.
    fn extract(&mut self, mut file: File, source: &Path, target: &Path) -> Result<bool, String> {
        if !is_archive(&mut file).map_err(|error| at(source, error))? {
            return Ok(false);
        }
        self.make_parents(target)?;
        let mut tar = TarReader::new(unpacked(&file).map_err(|error| at(source, error))?);
        while let Some(entry) = tar.next().map_err(|error| at(source, error))? {
            let path = relative(&entry.path).map_err(|error| at(source, error))?;
            if path.as_os_str().is_empty() {
                continue;
            }
            // Through the links of the image: an archive's `bin/x` belongs where the image's `bin` leads.
            let to = self.image.real_path(&target.join(&path)).map_err(|errno| at(&path, errno))?;
            check_name(&to)?;
            let link = match entry.kind {
                Kind::HardLink => target.join(relative(&entry.link).map_err(|error| at(source, error))?),
                _ => PathBuf::new(),
            };
            if entry.kind == Kind::Directory {
                self.made.insert(to.clone());
            }
            let mut entry = entry;
            (entry.uid, entry.gid) = self.order.owner.unwrap_or((entry.uid, entry.gid));
            self.layer.entry(&to, &entry, &link, &mut tar).map_err(|error| at(source, error))?;
        }
        Ok(true)
    }

    /// Writes the folders on the way that neither the image nor this layer has.
    fn make_parents(&mut self, dir: &Path) -> Result<(), String> {
        for dir in missing(self.image, &self.made, dir)? {
            self.layer.dir(&dir, self.order.new_dir()).map_err(|error| at(&dir, error))?;
            self.made.insert(dir);
        }
        Ok(())
    }

    /// Folders replace only folders, other things anything but folders.
    fn check_over(&self, path: &Path, new: FileType) -> Result<(), String> {
        check_name(path)?;
        let Ok(old) = self.image.lstat(path) else { return Ok(()) };
        match (kind(&old) == FileType::Directory, new == FileType::Directory) {
            (false, true) => Err(format!("cannot copy to non-directory: /{}", path.display())),
            (true, false) => Err(format!("cannot replace to directory /{} with file", path.display())),
            _ => Ok(()),
        }
    }
}

/// What a folder is like that nobody described.
const NEW_DIR: Meta = Meta { uid: 0, gid: 0, mode: 0o755, mtime: 0 };

/// Makes a folder and those above it, as far as the image lacks them: WORKDIR.
pub(super) fn make_dir(path: &Path, owner: (u32, u32), image: &Root, layer: &mut LayerWriter) -> Result<(), String> {
    let path = image.real_path(path).map_err(|errno| at(path, errno))?;
    let (uid, gid) = owner;
    for dir in missing(image, &BTreeSet::new(), &path)? {
        layer.dir(&dir, Meta { uid, gid, ..NEW_DIR }).map_err(|error| at(&dir, error))?;
    }
    Ok(())
}

/// The folders on the way to `dir`, itself included, that neither the image has nor `made` names; topmost first.
fn missing(image: &Root, made: &BTreeSet<PathBuf>, dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut missing = Vec::new();
    for dir in dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if made.contains(dir) {
            break;
        }
        match image.lstat(dir) {
            Ok(stat) if kind(&stat) == FileType::Directory => break,
            Ok(_) | Err(Errno::NOTDIR) => return Err(format!("cannot copy to non-directory: /{}", dir.display())),
            Err(Errno::NOENT) => missing.push(dir.to_owned()),
            Err(errno) => return Err(at(dir, errno)),
        }
        check_name(dir)?;
    }
    missing.reverse();
    Ok(missing)
}

/// A name that means "removed" in a layer cannot be given to a file.
fn check_name(path: &Path) -> Result<(), String> {
    if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
        return Err(format!("{}: image layers cannot hold files whose names begin with .wh.", path.display()));
    }
    Ok(())
}

/// Told by content, as Docker does. A compression that we cannot undo is refused rather than copied as it is.
fn is_archive(file: &mut File) -> Result<bool, String> {
    if begins_with(file, BZIP2).map_err(|error| error.to_string())? {
        return Err("bzip2 archives are not supported: use gzip, xz or zstd".to_owned());
    }
    let first = unpacked(file).and_then(|mut plain| plain.read(&mut [0]));
    if let Some(error) = first.err().filter(|error| error.kind() == io::ErrorKind::OutOfMemory) {
        return Err(error.to_string());
    }
    let is_archive = unpacked(file).is_ok_and(|plain| TarReader::new(plain).next().is_ok_and(|entry| entry.is_some()));
    file.rewind().map_err(|error| error.to_string())?;
    Ok(is_archive)
}

/// The uncompressed bytes of a whole file.
fn unpacked(file: &File) -> io::Result<Box<dyn Read + '_>> {
    if begins_with(file, XZ)? {
        return Ok(Box::new(XzReader::new_mem_limit(BufReader::new(file), true, XZ_MEMORY_KIB_MAX)));
    }
    decompressed(file)
}

/// Leaves the file at its beginning.
fn begins_with(mut file: &File, magic: &[u8]) -> io::Result<bool> {
    let mut begin = Vec::new();
    file.rewind()?;
    file.take(magic.len() as u64).read_to_end(&mut begin)?;
    file.rewind()?;
    Ok(begin == magic)
}

/// Whether a source may name several files, or none.
fn is_pattern(source: &str) -> bool {
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn outside(path: &Path) -> String {
    format!("forbidden path outside the build context: {} ()", path.display())
}

fn at(path: impl AsRef<Path>, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.as_ref().display())
}
