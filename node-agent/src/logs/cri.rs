//! The CRI log format: `2016-10-06T00:17:09.669794202Z stdout F the line`.
//!
//! Source: `kubernetes/design-proposals-archive` kubelet-cri-logging; `P` marks a part of a line that goes on.

use jiff::Timestamp;

/// One record of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'l> {
    /// When it was written, as it stands in the file.
    pub(crate) time: &'l str,
    /// `stdout` or `stderr`.
    pub(crate) stream: &'l str,
    /// Whether the line ends here.
    pub(crate) full: bool,
    pub(crate) text: &'l [u8],
}

/// Reads one line without its line feed; `None` if it is not of the format.
pub(crate) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = std::str::from_utf8(parts.next()?).ok()?;
    let text = parts.next().unwrap_or_default();
    let full = tags.split(':').next() == Some("F");
    matches!(stream, "stdout" | "stderr").then_some(Record { time, stream, full, text })
}

impl Record<'_> {
    /// When it was written.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// The text of a line of a log file, with the line feed where the line ended.
pub(crate) fn message_of(line: &str) -> Option<String> {
    let record = parse(line.as_bytes())?;
    let mut text = String::from_utf8_lossy(record.text).into_owned();
    if record.full {
        text.push('\n');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_anything_else_is_not() {
        let record = parse(b"2016-10-06T00:17:09.669794202Z stdout P log content 1").unwrap();
        assert_eq!((record.stream, record.full, record.text), ("stdout", false, b"log content 1".as_slice()));
        assert!(record.timestamp().is_some());
        assert_eq!(message_of("2016-10-06T00:17:09Z stderr F ").as_deref(), Some("\n"));
        for line in ["", "x", "a b c d", "2016-10-06T00:17:09Z stdin F x"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
