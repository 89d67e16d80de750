//! Splits an expression into tokens.
//!
//! Where no token fits, the text up to and with the letter that does not fit is skipped and reported, as the
//! lexer of cel-go does it.

use crate::issue::Issues;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An operator, a bracket or one of `in`, `true`, `false`, `null`.
    Symbol(&'static str),
    Ident,
    /// `` `a-b/c` ``: a field name that is no identifier.
    EscapedIdent,
    Int,
    Uint,
    Float,
    String,
    Bytes,
    End,
}

#[derive(Debug, Clone)]
pub(crate) struct Token<'s> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'s str,
    /// In code points.
    pub(crate) offset: u32,
}

impl Token<'_> {
    pub(crate) fn is(&self, symbol: &str) -> bool {
        matches!(self.kind, TokenKind::Symbol(own) if own == symbol)
    }

    /// As messages show it.
    pub(crate) fn shown(&self) -> String {
        match self.kind {
            TokenKind::End => "<EOF>".to_owned(),
            _ => self.text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t"),
        }
    }
}

const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

struct Lexer<'s> {
    text: &'s str,
    /// Where each code point starts, in bytes; the end of the text at the end.
    starts: Vec<usize>,
    letters: Vec<char>,
    at: usize,
}

pub(crate) fn tokens<'s>(text: &'s str, issues: &mut Issues) -> Vec<Token<'s>> {
    let mut starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
    starts.push(text.len());
    let mut lexer = Lexer { text, starts, letters: text.chars().collect(), at: 0 };
    let mut found = Vec::new();
    while let Some(token) = lexer.next(issues) {
        found.push(token);
    }
    found.push(Token { kind: TokenKind::End, text: "", offset: offset(lexer.letters.len()) });
    found
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl<'s> Lexer<'s> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.letters.get(self.at + ahead).copied()
    }

    fn slice(&self, from: usize, to: usize) -> &'s str {
        let at = |index: usize| self.starts.get(index).copied().unwrap_or(self.text.len());
        self.text.get(at(from)..at(to)).unwrap_or_default()
    }

    fn next(&mut self, issues: &mut Issues) -> Option<Token<'s>> {
        loop {
            self.skip_space();
            self.peek(0)?;
            let start = self.at;
            match self.token() {
                Ok((kind, end)) => {
                    self.at = end;
                    return Some(Token { kind, text: self.slice(start, end), offset: offset(start) });
                }
                Err(bad) => {
                    let end = (bad + 1).min(self.letters.len());
                    let shown = self.slice(start, end).replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
                    let message = format!("Syntax error: token recognition error at: '{shown}'");
                    issues.report(Some(offset(start)), message);
                    self.at = end.max(start + 1);
                }
            }
        }
    }

    fn skip_space(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('\t' | ' ' | '\r' | '\n' | '\u{c}'), _) => self.at += 1,
                (Some('/'), Some('/')) => {
                    while self.peek(0).is_some_and(|letter| letter != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// The kind and end of the token that starts here, or where it went wrong.
    fn token(&self) -> Result<(TokenKind, usize), usize> {
        let Some(first) = self.peek(0) else { return Err(self.at) };
        if let Some((kind, quote)) = self.string_prefix() {
            return self.string(quote).map(|end| (kind, end));
        }
        match first {
            'a'..='z' | 'A'..='Z' | '_' => Ok(self.word()),
            '0'..='9' => Ok(self.number()),
            '.' if self.peek(1).is_some_and(|letter| letter.is_ascii_digit()) => Ok(self.number()),
            '`' => self.escaped_ident(),
            _ => self.symbol(),
        }
    }

    fn symbol(&self) -> Result<(TokenKind, usize), usize> {
        for symbol in SYMBOLS {
            if symbol.chars().enumerate().all(|(ahead, letter)| self.peek(ahead) == Some(letter)) {
                return Ok((TokenKind::Symbol(symbol), self.at + symbol.len()));
            }
        }
        // `=`, `&` and `|` begin an operator, so it is the letter after them that does not fit.
        Err(if matches!(self.peek(0), Some('=' | '&' | '|')) { self.at + 1 } else { self.at })
    }

    fn word(&self) -> (TokenKind, usize) {
        let mut end = self.at;
        while self.letters.get(end).is_some_and(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
            end += 1;
        }
        let text = self.slice(self.at, end);
        match WORDS.iter().find(|word| **word == text) {
            Some(word) => (TokenKind::Symbol(word), end),
            None => (TokenKind::Ident, end),
        }
    }

    fn escaped_ident(&self) -> Result<(TokenKind, usize), usize> {
        let mut end = self.at + 1;
        while let Some(letter) = self.letters.get(end) {
            match letter {
                '`' if end > self.at + 1 => return Ok((TokenKind::EscapedIdent, end + 1)),
                'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '-' | '/' | ' ' => end += 1,
                _ => return Err(end),
            }
        }
        Err(end)
    }

    fn digits(&self, mut at: usize) -> usize {
        while self.letters.get(at).is_some_and(char::is_ascii_digit) {
            at += 1;
        }
        at
    }

    fn number(&self) -> (TokenKind, usize) {
        let is_u = |at: usize| matches!(self.letters.get(at), Some('u' | 'U'));
        if self.peek(0) == Some('0')
            && self.peek(1) == Some('x')
            && self.peek(2).is_some_and(|letter| letter.is_ascii_hexdigit())
        {
            let mut end = self.at + 2;
            while self.letters.get(end).is_some_and(char::is_ascii_hexdigit) {
                end += 1;
            }
            return if is_u(end) { (TokenKind::Uint, end + 1) } else { (TokenKind::Int, end) };
        }
        let whole = self.digits(self.at);
        let mut end = whole;
        if self.letters.get(end) == Some(&'.') && self.letters.get(end + 1).is_some_and(char::is_ascii_digit) {
            end = self.digits(end + 1);
        }
        if matches!(self.letters.get(end), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.letters.get(end + 1), Some('+' | '-')));
            let exponent = self.digits(end + 1 + sign);
            if exponent > end + 1 + sign {
                end = exponent;
            }
        }
        match end > whole {
            true => (TokenKind::Float, end),
            false if is_u(whole) => (TokenKind::Uint, whole + 1),
            false => (TokenKind::Int, whole),
        }
    }

    /// Whether a string starts here: its kind and how many letters stand before the quote.
    fn string_prefix(&self) -> Option<(TokenKind, usize)> {
        let quote = |ahead: usize| matches!(self.peek(ahead), Some('"' | '\''));
        let raw = |ahead: usize| matches!(self.peek(ahead), Some('r' | 'R'));
        let bytes = matches!(self.peek(0), Some('b' | 'B'));
        match () {
            () if quote(0) => Some((TokenKind::String, 0)),
            () if raw(0) && quote(1) => Some((TokenKind::String, 1)),
            () if bytes && quote(1) => Some((TokenKind::Bytes, 1)),
            () if bytes && raw(1) && quote(2) => Some((TokenKind::Bytes, 2)),
            () => None,
        }
    }

    /// The end of the string whose quote is `prefix` letters ahead, or the letter that does not fit.
    fn string(&self, prefix: usize) -> Result<usize, usize> {
        let raw = (0..prefix).any(|ahead| matches!(self.peek(ahead), Some('r' | 'R')));
        let Some(quote) = self.peek(prefix) else { return Err(self.at) };
        let long = self.peek(prefix + 1) == Some(quote) && self.peek(prefix + 2) == Some(quote);
        let mut at = self.at + prefix + if long { 3 } else { 1 };
        loop {
            let Some(letter) = self.letters.get(at).copied() else {
                // `""` followed by `"` and no end is an empty string all the same.
                return if long { Ok(self.at + prefix + 2) } else { Err(at) };
            };
            match letter {
                _ if letter == quote && !long => return Ok(at + 1),
                _ if letter == quote && (1..3).all(|ahead| self.letters.get(at + ahead) == Some(&quote)) => {
                    return Ok(at + 3);
                }
                '\n' | '\r' if !long => return Err(at),
                '\\' if !raw => match self.escape(at) {
                    Ok(end) => at = end,
                    Err(_) if long => return Ok(self.at + prefix + 2),
                    Err(bad) => return Err(bad),
                },
                _ => at += 1,
            }
        }
    }

    /// The end of the escape sequence that starts at `at`, or the letter that does not fit.
    fn escape(&self, at: usize) -> Result<usize, usize> {
        let hex = |count: usize| -> Result<usize, usize> {
            for index in at + 2..at + 2 + count {
                if !self.letters.get(index).is_some_and(char::is_ascii_hexdigit) {
                    return Err(index);
                }
            }
            Ok(at + 2 + count)
        };
        match self.letters.get(at + 1) {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => Ok(at + 2),
            Some('x' | 'X') => hex(2),
            Some('u') => hex(4),
            Some('U') => hex(8),
            Some('0'..='3') => {
                for index in at + 2..at + 4 {
                    if !matches!(self.letters.get(index), Some('0'..='7')) {
                        return Err(index);
                    }
                }
                Ok(at + 4)
            }
            _ => Err(at + 1),
        }
    }
}
