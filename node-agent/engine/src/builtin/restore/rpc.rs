//! How CRIU is told what to restore, and what it says meanwhile. Pure.
//!
//! Source: criu.org, "RPC"; github.com/checkpoint-restore/criu, "images/rpc.proto".

use std::os::fd::RawFd;
use std::path::Path;

use super::super::checkpoint::criu::NETWORK;
use super::protobuf::{Message, Value, fields};
use crate::supervisor::CRIU_NETWORK;

/// Types of requests and answers.
const RESTORE: u64 = 2;
const NOTIFY: u64 = 6;

/// What is to be restored, and into what.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// Folders of images and of the log, in this process.
    pub(super) images: RawFd,
    pub(super) work: RawFd,
    pub(super) log: &'a str,
    /// The bare root.
    pub(super) root: &'a Path,
    /// `mnt[KEY]:PLACE`
    pub(super) external: &'a [String],
    /// Keys of the streams 0, 1, 2.
    pub(super) streams: &'a [String],
    /// Namespaces to join: kind and place.
    pub(super) namespaces: &'a [(&'static str, &'a Path)],
    /// AppArmor profile of all processes, in place of those in the images.
    pub(super) app_armor: Option<&'a str>,
}

impl Request<'_> {
    /// As CRIU reads it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let number = |fd: RawFd| u64::try_from(fd).unwrap_or_default();
        let inherited = |key: &str, fd: RawFd| Message::default().text(1, key).number(2, number(fd));
        let mut options = Message::default()
            .number(1, number(self.images))
            .flag(4) // external Unix sockets
            .flag(5) // established TCP connections
            .flag(6) // devices by any path
            .flag(8) // file locks
            .number(9, 2) // errors and warnings
            .text(10, self.log)
            .flag(12) // tell of each stage, and wait
            .text(13, &self.root.to_string_lossy())
            .number(17, number(self.work))
            .flag(26) // as its sister
            .number(34, 0); // cgroups are ours
        for (key, fd) in self.streams.iter().zip(0..).filter(|(key, _)| !key.is_empty()) {
            options = options.message(27, &inherited(key, fd));
        }
        options = options.message(27, &inherited(NETWORK, CRIU_NETWORK));
        for external in self.external {
            options = options.text(37, external);
        }
        for (kind, place) in self.namespaces {
            options = options.message(39, &Message::default().text(1, kind).text(2, &place.to_string_lossy()));
        }
        if let Some(profile) = self.app_armor {
            options = options.text(53, &format!("apparmor:{profile}"));
        }
        Message::default().number(1, RESTORE).message(2, &options).into_bytes()
    }
}

/// The answer that lets CRIU go on, or not.
pub(super) fn proceed(go: bool) -> Vec<u8> {
    Message::default().number(1, NOTIFY).number(3, u64::from(go)).into_bytes()
}

/// What CRIU says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// A stage is reached; the first process, where it is told.
    Stage(String, Option<i32>),
    /// All is there, and this is the first process.
    Restored(i32),
    /// It has given up.
    Failed,
}

/// Reads it; `None` when it is nothing that CRIU says to us.
pub(super) fn read(bytes: &[u8]) -> Option<Said> {
    let answer = fields(bytes)?;
    let field = |wanted: u64| answer.iter().find(|(field, _)| *field == wanted).map(|(_, value)| *value);
    let kind = field(1)?.number()?;
    let is_well = field(2)?.number()? != 0;
    let pid = |value: Value<'_>| value.number().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    match kind {
        NOTIFY => {
            let stage = fields(field(5)?.bytes()?)?;
            let field = |wanted: u64| stage.iter().find(|(field, _)| *field == wanted).map(|(_, value)| *value);
            let name = std::str::from_utf8(field(1)?.bytes()?).ok()?.to_owned();
            Some(Said::Stage(name, field(2).and_then(pid)))
        }
        RESTORE if is_well => {
            let made = fields(field(4)?.bytes()?)?;
            let (_, value) = made.into_iter().find(|(field, _)| *field == 1)?;
            Some(Said::Restored(pid(value)?))
        }
        RESTORE => Some(Said::Failed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_everything_that_is_given() {
        let request = Request {
            images: 40,
            work: 41,
            log: "restore.log",
            root: Path::new("/view"),
            external: &["mnt[/vol]:/place/vol".to_owned()],
            streams: &[String::new(), "file[2b:1]".to_owned()],
            namespaces: &[("uts", Path::new("/pins/uts"))],
            app_armor: Some("mine"),
        };
        let bytes = request.encode();
        let read = fields(&bytes).unwrap();
        assert_eq!(read[0], (1, Value::Number(RESTORE)));
        let options = fields(read[1].1.bytes().unwrap()).unwrap();
        let of =
            |wanted: u64| options.iter().filter(|(field, _)| *field == wanted).map(|(_, v)| *v).collect::<Vec<_>>();
        assert_eq!((of(1), of(17), of(34)), (vec![Value::Number(40)], vec![Value::Number(41)], vec![Value::Number(0)]));
        assert_eq!(of(13), [Value::Bytes(b"/view")]);
        assert_eq!(
            of(27),
            [Value::Bytes(b"\x0a\x0afile[2b:1]\x10\x01"), Value::Bytes(b"\x0a\x0cextRootNetNS\x10\x04")]
        );
        assert_eq!(of(37), [Value::Bytes(b"mnt[/vol]:/place/vol")]);
        assert_eq!(of(53), [Value::Bytes(b"apparmor:mine")]);
        assert_eq!(of(39), [Value::Bytes(b"\x0a\x03uts\x12\x09/pins/uts")]);
    }

    #[test]
    fn what_criu_says_is_understood() {
        let stage = Message::default().text(1, "post-restore").number(2, 7);
        let said = Message::default().number(1, NOTIFY).number(2, 1).message(5, &stage).into_bytes();
        assert_eq!(read(&said), Some(Said::Stage("post-restore".to_owned(), Some(7))));
        let made = Message::default().number(1, 9);
        let said = |well| Message::default().number(1, RESTORE).number(2, well).message(4, &made).into_bytes();
        assert_eq!(read(&said(1)), Some(Said::Restored(9)));
        assert_eq!(read(&said(0)), Some(Said::Failed));
        assert_eq!(read(b"\x08\x06"), None);
        assert_eq!(read(b""), None);
    }
}
