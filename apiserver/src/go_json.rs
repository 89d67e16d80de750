//! What Go's JSON decoder says of a text that is no JSON: clients and their tests read it.
//!
//! Looks only at texts that our own decoder has refused already; finds the first byte at which Go's scanner stops and
//! words it as `encoding/json` does. What is not here: mistyped values (the kinds' `strict` words those).

/// Deepest nesting that Go's scanner follows.
const DEPTH_MAX: usize = 10_000;

/// Why the text is no JSON value. Linear in time; memory by the nesting only.
pub(crate) fn complaint(text: &[u8]) -> String {
    found(Scanner { text, at: 0, depth_max: DEPTH_MAX }.document())
}

/// What it says of a text that nests deeper than `most`, as if that were its own limit.
pub(crate) fn too_deep(text: &[u8], most: usize) -> String {
    found(Scanner { text, at: 0, depth_max: most }.document())
}

fn found(scanned: Result<(), Stop>) -> String {
    match scanned {
        Err(Stop::End) => "unexpected end of JSON input".to_owned(),
        Err(Stop::Byte(byte, context)) => format!("invalid character {} {context}", quoted(byte)),
        Err(Stop::Depth(byte)) => format!("invalid character {} exceeded max depth", quoted(byte)),
        // Go takes what our decoder does not (numbers beyond any range).
        Ok(()) => "invalid JSON".to_owned(),
    }
}

enum Stop {
    End,
    Byte(u8, String),
    Depth(u8),
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    depth_max: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Result<u8, Stop> {
        self.text.get(self.at).copied().ok_or(Stop::End)
    }

    fn stop<T>(&self, context: &str) -> Result<T, Stop> {
        Err(Stop::Byte(self.peek()?, context.to_owned()))
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn document(&mut self) -> Result<(), Stop> {
        // The closing bracket of each list and object that is open.
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    self.space();
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    if self.peek()? == close {
                        self.at += 1;
                    } else {
                        if open.len() == self.depth_max {
                            return Err(Stop::Depth(bracket));
                        }
                        open.push(close);
                        self.key(close)?;
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            if self.after_value(&mut open)? {
                return Ok(());
            }
        }
    }

    /// In an object, the key and the colon before a value.
    fn key(&mut self, close: u8) -> Result<(), Stop> {
        if close != b'}' {
            return Ok(());
        }
        self.space();
        if self.peek()? != b'"' {
            return self.stop("looking for beginning of object key string");
        }
        self.string()?;
        self.space();
        if self.peek()? != b':' {
            return self.stop("after object key");
        }
        self.at += 1;
        Ok(())
    }

    /// Closes what ends behind a value; true at the end of the document.
    fn after_value(&mut self, open: &mut Vec<u8>) -> Result<bool, Stop> {
        while let Some(close) = open.last().copied() {
            self.space();
            match self.peek()? {
                b',' => {
                    self.at += 1;
                    self.key(close)?;
                    return Ok(false);
                }
                byte if byte == close => {
                    self.at += 1;
                    open.pop();
                }
                _ if close == b'}' => return self.stop("after object key:value pair"),
                _ => return self.stop("after array element"),
            }
        }
        self.space();
        if self.at < self.text.len() { self.stop("after top-level value") } else { Ok(true) }
    }

    fn scalar(&mut self) -> Result<(), Stop> {
        match self.peek()? {
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.stop("looking for beginning of value"),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Stop> {
        for expected in word.bytes() {
            if self.peek()? != expected {
                return self.stop(&format!("in literal {word} (expecting {})", quoted(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Stop> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?;
                }
                0..=0x1f => return self.stop("in string literal"),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        match self.peek()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek()?.is_ascii_hexdigit() {
                        return self.stop("in \\u hexadecimal character escape");
                    }
                    self.at += 1;
                }
            }
            _ => return self.stop("in string escape code"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Stop> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return self.stop("in numeric literal"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.must_be_digit("after decimal point in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.must_be_digit("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn must_be_digit(&mut self, context: &str) -> Result<(), Stop> {
        if !self.peek()?.is_ascii_digit() {
            return self.stop(context);
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

/// A byte as Go shows it: in single quotes.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        0..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0x9f | 0xad => format!("'\\u{byte:04x}'"),
        0xa0 => r"'\u00a0'".to_owned(),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_told_in_gos_words() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("{\"a\": [1, 2", "unexpected end of JSON input"),
            ("invalid", "invalid character 'i' looking for beginning of value"),
            ("{a: 1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\": 1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("trie", "invalid character 'i' in literal true (expecting 'u')"),
            ("'", "invalid character '\\'' looking for beginning of value"),
            ("\u{1}", "invalid character '\\x01' looking for beginning of value"),
        ] {
            assert_eq!(complaint(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(complaint("[".repeat(20_000).as_bytes()), "invalid character '[' exceeded max depth");
    }
}
