//! Writes a layer: a tar stream straight into the content store. The same entries give the same bytes, so that a
//! layer that is here already is found again by its digest.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{EntryType, Header};

use crate::images::blobs::{Blob, BlobWriter};
use crate::images::error::ImageError;
use crate::snapshot::tar::{Entry, Kind};

/// Who owns an entry, who may use it, when it changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: i64,
}

/// A layer being written, into the content store or elsewhere.
pub(super) struct LayerWriter<W: Write = BlobWriter> {
    tar: tar::Builder<W>,
    /// All times, if they are to be the same (`SOURCE_DATE_EPOCH`).
    epoch: Option<i64>,
    entries: u64,
}

impl<W: Write> LayerWriter<W> {
    pub(super) fn new(out: W, epoch: Option<i64>) -> Self {
        Self { tar: tar::Builder::new(out), epoch, entries: 0 }
    }

    pub(super) fn dir(&mut self, path: &Path, meta: Meta) -> io::Result<()> {
        let mut header = self.header(EntryType::Directory, meta, 0);
        self.tar.append_data(&mut header, path, io::empty())
    }

    /// A file of exactly `size` bytes: one that shrinks or grows meanwhile is an error, not a broken layer.
    pub(super) fn file(&mut self, path: &Path, meta: Meta, size: u64, mut content: impl Read) -> io::Result<()> {
        let mut header = self.header(EntryType::Regular, meta, size);
        let mut counted = Counted { inner: (&mut content).take(size), read: 0 };
        self.tar.append_data(&mut header, path, &mut counted)?;
        if counted.read != size || content.read(&mut [0])? != 0 {
            return Err(io::Error::other("the file changed while it was copied"));
        }
        Ok(())
    }

    pub(super) fn symlink(&mut self, path: &Path, meta: Meta, target: &Path) -> io::Result<()> {
        let mut header = self.header(EntryType::Symlink, meta, 0);
        self.tar.append_link(&mut header, path, target)
    }

    /// A file's extended attributes, to come before the file.
    pub(super) fn xattrs(&mut self, xattrs: &[(String, Vec<u8>)]) -> io::Result<()> {
        let keys: Vec<String> = xattrs.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
        let records = keys.iter().zip(xattrs).map(|(key, (_, value))| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(records)
    }

    /// An entry of another archive under another path; `link` is the target of a hard link, moved likewise.
    pub(super) fn entry(&mut self, path: &Path, entry: &Entry, link: &Path, content: impl Read) -> io::Result<()> {
        let meta = Meta { uid: entry.uid, gid: entry.gid, mode: entry.mode, mtime: entry.mtime.0 };
        self.xattrs(&entry.xattrs)?;
        match entry.kind {
            Kind::File => self.file(path, meta, entry.size, content),
            Kind::Directory => self.dir(path, meta),
            Kind::Symlink => self.symlink(path, meta, Path::new(std::ffi::OsStr::from_bytes(&entry.link))),
            Kind::HardLink => {
                let mut header = self.header(EntryType::Link, meta, 0);
                self.tar.append_link(&mut header, path, link)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::CharDevice => EntryType::Char,
                    Kind::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                };
                let mut header = self.header(kind, meta, 0);
                header.set_device_major(entry.device.0)?;
                header.set_device_minor(entry.device.1)?;
                self.tar.append_data(&mut header, path, io::empty())
            }
        }
    }

    /// Ends the layer.
    pub(super) fn end(self) -> io::Result<W> {
        self.tar.into_inner()
    }

    fn header(&mut self, kind: EntryType, meta: Meta, size: u64) -> Header {
        self.entries += 1;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(meta.mode & 0o7777);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(u64::try_from(self.epoch.unwrap_or(meta.mtime)).unwrap_or(0));
        header
    }
}

impl LayerWriter {
    /// Ends the layer and puts it into the store; `None` when nothing is in it.
    pub(super) fn finish(self) -> Result<Option<Blob>, ImageError> {
        if self.entries == 0 {
            return Ok(None);
        }
        let io = |source| ImageError::Io { step: "write a layer".to_owned(), source };
        self.end().map_err(io)?.commit(None).map(Some)
    }
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read += n as u64;
        Ok(n)
    }
}
