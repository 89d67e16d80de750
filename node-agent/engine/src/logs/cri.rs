//! The CRI log format: `2016-10-06T00:17:09.669794202Z stdout F line`.
//!
//! Source: Kubernetes design proposal "CRI: log management for container stdout/stderr streams". `F` is a whole
//! line, `P` a part: the line goes on in the next entry.

use jiff::Timestamp;

/// Longest content of one entry; longer lines are cut into parts. containerd's default.
pub const LINE_LEN_MAX: usize = 16 << 10;

/// Cuts one stream of a container into log entries.
#[derive(Debug)]
pub struct LineCutter {
    stream: &'static str,
    partial: Vec<u8>,
}

impl LineCutter {
    /// For `stdout` or `stderr`.
    #[must_use]
    pub fn new(stream: &'static str) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// Takes what was read, appends the entries that are complete to `out`. `stamp` is [`format_stamp`]'s.
    pub fn push(&mut self, mut chunk: &[u8], stamp: &str, out: &mut Vec<u8>) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = chunk.split_at(end);
            self.add(line, stamp, out);
            let content = std::mem::take(&mut self.partial);
            self.entry(&content, true, stamp, out);
            chunk = rest.get(1..).unwrap_or_default();
        }
        self.add(chunk, stamp, out);
    }

    /// At the end of the stream: what came without a line end becomes a part.
    pub fn finish(&mut self, stamp: &str, out: &mut Vec<u8>) {
        let content = std::mem::take(&mut self.partial);
        if !content.is_empty() {
            self.entry(&content, false, stamp, out);
        }
    }

    fn add(&mut self, mut text: &[u8], stamp: &str, out: &mut Vec<u8>) {
        while self.partial.len() + text.len() > LINE_LEN_MAX {
            let (head, tail) = text.split_at(LINE_LEN_MAX - self.partial.len());
            self.partial.extend_from_slice(head);
            let content = std::mem::take(&mut self.partial);
            self.entry(&content, false, stamp, out);
            text = tail;
        }
        self.partial.extend_from_slice(text);
    }

    fn entry(&self, content: &[u8], whole: bool, stamp: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(stamp.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.stream.as_bytes());
        out.extend_from_slice(if whole { b" F " } else { b" P " });
        out.extend_from_slice(content);
        out.push(b'\n');
    }
}

/// RFC 3339 in UTC, always with nine digits, so that entries sort as text.
#[must_use]
pub fn format_stamp(now: Timestamp) -> String {
    format!("{now:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "2016-10-06T00:17:09.669794202Z";

    fn log(chunks: &[&[u8]]) -> String {
        let mut cutter = LineCutter::new("stdout");
        let mut out = Vec::new();
        for chunk in chunks {
            cutter.push(chunk, STAMP, &mut out);
        }
        cutter.finish(STAMP, &mut out);
        String::from_utf8(out).unwrap().replace(STAMP, "T")
    }

    #[test]
    fn lines_are_entries_however_the_stream_is_cut() {
        assert_eq!(log(&[b"a\nb\n"]), "T stdout F a\nT stdout F b\n");
        assert_eq!(log(&[b"a", b"", b"b", b"\n\n"]), "T stdout F ab\nT stdout F \n");
    }

    #[test]
    fn what_ends_without_a_line_end_is_a_part() {
        assert_eq!(log(&[b"a\nrest"]), "T stdout F a\nT stdout P rest\n");
    }

    #[test]
    fn a_long_line_is_cut_into_parts_and_nothing_is_lost() {
        let line = vec![b'x'; LINE_LEN_MAX * 2 + 5];
        let text = log(&[&line, b"\n"]);
        let lens: Vec<_> = text.lines().map(|l| (&l[9..10], l.len() - 11)).collect();
        assert_eq!(lens, [("P", LINE_LEN_MAX), ("P", LINE_LEN_MAX), ("F", 5)]);
        let exact = log(&[&vec![b'y'; LINE_LEN_MAX], b"\n"]);
        assert_eq!(exact.lines().count(), 1);
    }

    #[test]
    fn stamps_always_have_nine_digits() {
        assert_eq!(format_stamp(Timestamp::from_second(1).unwrap()), "1970-01-01T00:00:01.000000000Z");
    }
}
