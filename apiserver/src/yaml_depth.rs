//! How deep the collections of a YAML text nest, found out before it is parsed.
//!
//! The parser looks at every open bracket again at every word: a body of nothing but brackets would keep it busy for
//! hours. This follows the text word by word as the parser's scanner does (libyaml's `scanner.c`), in one pass and
//! without building anything, and stops where that would: at an error, the parser refuses what follows unread. The same
//! for tag directives, which are compared with each other one by one.

/// Most `%TAG` lines that are taken: nobody writes any in an object.
const DIRECTIVES_MAX: usize = 64;

/// Longest text before a `:` that makes it a key, in characters.
const KEY_LEN_MAX: usize = 1024;

/// Whether brackets, or collections by indentation, nest deeper than `most`, or there are too many directives.
pub(crate) fn is_too_deep(text: &[u8], most: usize) -> bool {
    let mut scanner = Scanner { text, most, simple_keys_allowed: true, ..Scanner::default() };
    if let Some(rest) = text.strip_prefix(b"\xef\xbb\xbf") {
        scanner.text = rest;
    }
    loop {
        match scanner.next() {
            Ok(()) => {}
            Err(Stop::TooDeep) => return true,
            Err(Stop::End) => return false,
        }
    }
}

enum Stop {
    /// The end of the text, or an error in it.
    End,
    TooDeep,
}

/// What may turn out to be a key, should a `:` follow.
#[derive(Clone, Copy)]
struct SimpleKey {
    at: usize,
    line: usize,
    column: isize,
}

#[derive(Default)]
struct Scanner<'t> {
    text: &'t [u8],
    most: usize,
    at: usize,
    line: usize,
    column: isize,
    /// Open brackets.
    flow: usize,
    /// Columns of the block collections that are open.
    indents: Vec<isize>,
    simple_keys_allowed: bool,
    simple_key: Option<SimpleKey>,
    directives: usize,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn is_blank(&self, ahead: usize) -> bool {
        matches!(self.peek(ahead), None | Some(b' ' | b'\t' | b'\r' | b'\n'))
    }

    fn is_break(&self) -> bool {
        matches!(self.peek(0), Some(b'\r' | b'\n'))
    }

    /// The column of the innermost block collection; -1 outside all.
    fn indent(&self) -> isize {
        self.indents.last().copied().unwrap_or(-1)
    }

    fn skip(&mut self) {
        let Some(byte) = self.peek(0) else { return };
        self.at += 1;
        match byte {
            b'\r' if self.peek(0) == Some(b'\n') => {}
            b'\r' | b'\n' => (self.line, self.column) = (self.line + 1, 0),
            // Columns count letters, not bytes.
            _ => self.column += isize::from(byte & 0xc0 != 0x80),
        }
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some() && !self.is_break() {
            self.skip();
        }
    }

    fn next(&mut self) -> Result<(), Stop> {
        self.skip_to_next_word();
        if self.flow == 0 {
            while self.indent() > self.column {
                self.indents.pop();
            }
        }
        let byte = self.peek(0).ok_or(Stop::End)?;
        if self.column == 0 && self.flow == 0 && byte == b'%' {
            return self.directive();
        }
        if self.is_document_mark() {
            self.indents.clear();
            (self.simple_key, self.simple_keys_allowed) = (None, false);
            (0..3).for_each(|_| self.skip());
            return Ok(());
        }
        match byte {
            b'[' | b'{' => self.open(),
            b']' | b'}' => self.close(),
            b',' => self.separator(),
            b'-' if self.is_blank(1) => self.entry(),
            b'?' if self.flow > 0 || self.is_blank(1) => self.entry(),
            b':' if self.flow > 0 || self.is_blank(1) => self.value(),
            b'*' | b'&' | b'!' => self.property(),
            b'|' | b'>' if self.flow == 0 => self.block_text(),
            b'\'' | b'"' => self.quoted(byte),
            b'#' | b'|' | b'>' | b'%' | b'@' | b'`' => Err(Stop::End),
            _ => self.plain(),
        }
    }

    fn skip_to_next_word(&mut self) {
        loop {
            while matches!(self.peek(0), Some(b' ' | b'\t')) {
                self.skip();
            }
            if self.peek(0) == Some(b'#') {
                self.skip_line();
            }
            if !self.is_break() {
                return;
            }
            self.skip();
            self.simple_keys_allowed |= self.flow == 0;
        }
    }

    fn is_document_mark(&self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.column == 0 && (rest.starts_with(b"---") || rest.starts_with(b"...")) && self.is_blank(3)
    }

    fn directive(&mut self) -> Result<(), Stop> {
        self.directives += 1;
        self.indents.clear();
        (self.simple_key, self.simple_keys_allowed) = (None, false);
        self.skip_line();
        if self.directives > DIRECTIVES_MAX { Err(Stop::TooDeep) } else { Ok(()) }
    }

    /// Here begins what may be a key.
    fn may_be_key(&mut self) {
        if self.simple_keys_allowed && self.flow == 0 {
            self.simple_key = Some(SimpleKey { at: self.at, line: self.line, column: self.column });
        }
    }

    fn open(&mut self) -> Result<(), Stop> {
        self.may_be_key();
        self.simple_keys_allowed = true;
        self.flow += 1;
        self.skip();
        if self.flow > self.most { Err(Stop::TooDeep) } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), Stop> {
        // One that closes nothing is an error, but not of the scanner.
        self.flow = self.flow.saturating_sub(1);
        self.simple_keys_allowed = false;
        self.skip();
        Ok(())
    }

    fn separator(&mut self) -> Result<(), Stop> {
        self.simple_keys_allowed = true;
        self.skip();
        Ok(())
    }

    /// Begins a block collection in this column, if that is deeper than the one around it.
    fn roll(&mut self, column: isize) -> Result<(), Stop> {
        if self.flow == 0 && self.indent() < column {
            self.indents.push(column);
        }
        if self.indents.len() > self.most { Err(Stop::TooDeep) } else { Ok(()) }
    }

    /// `- ` or `? `.
    fn entry(&mut self) -> Result<(), Stop> {
        if self.flow == 0 && !self.simple_keys_allowed {
            return Err(Stop::End);
        }
        self.roll(self.column)?;
        self.simple_key = self.simple_key.filter(|_| self.flow > 0);
        self.simple_keys_allowed = true;
        self.skip();
        Ok(())
    }

    fn value(&mut self) -> Result<(), Stop> {
        let is_near = |key: &SimpleKey| key.line == self.line && self.at - key.at <= 4 * KEY_LEN_MAX;
        match self.simple_key.filter(|key| self.flow == 0 && is_near(key)) {
            Some(key) => {
                self.roll(key.column)?;
                self.simple_keys_allowed = false;
            }
            None if self.flow == 0 => {
                if !self.simple_keys_allowed {
                    return Err(Stop::End);
                }
                self.roll(self.column)?;
                self.simple_keys_allowed = true;
            }
            None => self.simple_keys_allowed = false,
        }
        self.simple_key = self.simple_key.filter(|_| self.flow > 0);
        self.skip();
        Ok(())
    }

    /// An anchor, an alias or a tag.
    fn property(&mut self) -> Result<(), Stop> {
        self.may_be_key();
        self.simple_keys_allowed = false;
        let is_tag = self.peek(0) == Some(b'!');
        self.skip();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_uri = |byte: u8| is_name(byte) || b";/?:@&=+$.!~*'()%<>".contains(&byte);
        while self.peek(0).is_some_and(|byte| if is_tag { is_uri(byte) } else { is_name(byte) }) {
            self.skip();
        }
        Ok(())
    }

    fn quoted(&mut self, quote: u8) -> Result<(), Stop> {
        self.may_be_key();
        self.simple_keys_allowed = false;
        self.skip();
        loop {
            match self.peek(0).ok_or(Stop::End)? {
                b'\\' if quote == b'"' => {
                    self.skip();
                    self.skip();
                }
                b'\'' if quote == b'\'' && self.peek(1) == Some(b'\'') => {
                    self.skip();
                    self.skip();
                }
                byte if byte == quote => {
                    self.skip();
                    return Ok(());
                }
                _ if self.is_document_mark() => return Err(Stop::End),
                _ => self.skip(),
            }
        }
    }

    fn plain(&mut self) -> Result<(), Stop> {
        self.may_be_key();
        self.simple_keys_allowed = false;
        let least = self.indent() + 1;
        loop {
            if self.is_document_mark() || self.peek(0) == Some(b'#') {
                return Ok(());
            }
            while let Some(byte) = self.peek(0).filter(|_| !self.is_blank(0)) {
                let ends_flow = self.flow > 0 && matches!(byte, b',' | b'[' | b']' | b'{' | b'}');
                if ends_flow || (byte == b':' && (self.is_blank(1) || self.ends_key_in_flow())) {
                    return Ok(());
                }
                self.skip();
            }
            if self.peek(0).is_none() {
                return Err(Stop::End);
            }
            while self.peek(0).is_some() && self.is_blank(0) {
                self.simple_keys_allowed |= self.is_break();
                self.skip();
            }
            if self.flow == 0 && self.column < least {
                return Ok(());
            }
        }
    }

    fn ends_key_in_flow(&self) -> bool {
        self.flow > 0 && matches!(self.peek(1), Some(b',' | b'?' | b'[' | b']' | b'{' | b'}'))
    }

    /// A text behind `|` or `>`: all lines that are indented enough.
    fn block_text(&mut self) -> Result<(), Stop> {
        (self.simple_key, self.simple_keys_allowed) = (None, true);
        self.skip();
        let mut given = None;
        while let Some(byte) = self.peek(0).filter(|byte| matches!(byte, b'+' | b'-' | b'1'..=b'9')) {
            given = if byte.is_ascii_digit() { Some(isize::from(byte - b'0')) } else { given };
            self.skip();
        }
        self.skip_line();
        self.skip();
        let around = self.indent().max(0);
        let mut indent = given.map(|given| around + given);
        loop {
            let mut widest = 0;
            // Lines of nothing but spaces belong to it, however many there are.
            while self.peek(0).is_some() {
                while self.peek(0) == Some(b' ') && indent.is_none_or(|indent| self.column < indent) {
                    self.skip();
                }
                widest = widest.max(self.column);
                if !self.is_break() {
                    break;
                }
                self.skip();
            }
            let indent = *indent.get_or_insert(widest.max(self.indent() + 1).max(1));
            if self.column != indent || self.peek(0).is_none() {
                return Ok(());
            }
            self.skip_line();
            self.skip();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        assert_eq!(is_too_deep(text.as_bytes(), 5), expected, "{text}");
    }

    #[test]
    fn brackets_count_where_they_are_brackets() {
        check("a: [[[[[1]]]]]", false);
        check("a: [[[[[[1]]]]]]", true);
        check("a: {b: {c: [{d: {e: {f: 1}}}]}}", true);
        check("- - - {a: [\n {b: [[\n [", true);
        check("? [[[\n[[[", true);
        check("&a !t [[[[[[", true);
        check("--- [[[[[[", true);
        check("a: 'x' # [[[[[[[\nb: \"[[[[[[[[\"\nc: 'it''s [[[[[[['\nd: x[[[[[[[[[\n", false);
    }

    #[test]
    fn closing_brackets_in_texts_close_nothing() {
        check("[']', [\"]\\\"]\", [x, # ]]]\n [ ']]', [ ']', [", true);
    }

    #[test]
    fn texts_of_many_lines_are_texts_as_long_as_they_are_indented() {
        let script = "\x1b[0;31m [[[[[[[\n";
        check(&format!("a: |\n  {script}  {script}\n   [[[[[[\nb: 1\n"), false);
        check(&format!("- k: |-2\n     {script}    l: [[[[[["), false);
        check(&format!("- k: |\n     {script}  l: [[[[[["), true);
        check(&format!("- >\n {script}\n\n {script}"), false);
        check("a: x\n  ['\n  [[[[[[[\nb: 1", false);
        check("a: x\n  ['\nb: [[[[[[[", true);
        check("a:\n  b: |\n    [[[[\n  c: [[[[[[\n", true);
        check("a:\n- |\n  [[[[[[\n- [[[[[[", true);
        check("é: |\n  [[[[[[\nb: [[[[[[", true);
    }

    #[test]
    fn what_follows_an_error_is_not_looked_at() {
        check("a: b: [[[[[[", false);
        check("@ [[[[[[", false);
    }

    #[test]
    fn collections_by_indentation_count_too() {
        check(&"- ".repeat(5), false);
        check(&"- ".repeat(6), true);
        check("a:\n b:\n  c:\n   d:\n    e: 1\n", false);
        check("a:\n b:\n  c:\n   d:\n    e:\n     f: 1\n", true);
    }

    #[test]
    fn directives_are_counted() {
        check(&"%TAG !a! b\n".repeat(DIRECTIVES_MAX), false);
        check(&"%TAG !a! b\n".repeat(DIRECTIVES_MAX + 1), true);
    }
}
