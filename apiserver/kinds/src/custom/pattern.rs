//! Go's regular expressions (RE2) on top of the crate `regex`.
//!
//! Both know almost the same language. What differs is translated: in Go `\d`, `\s`, `\w` and `\b` mean ASCII, a `[`
//! inside brackets is itself, `{` that starts no repetition is itself, and `\Q…\E` quotes. What Go refuses is
//! refused with its words.

use regex::{Regex, RegexBuilder};

/// Most bytes of memory for one compiled pattern.
const SIZE_MAX: usize = 4 << 20;
/// Highest count in a repetition that Go takes.
const REPEAT_MAX: u32 = 1000;

/// A pattern, compiled once.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// As it was written.
    pub(crate) source: String,
    /// Compiled, or why not, in Go's words.
    pub(crate) compiled: Result<Regex, String>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// Compiles a pattern; one that is no good is kept with the reason.
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), compiled: compile(source) }
    }
}

/// Compiles a pattern of Go's.
///
/// # Errors
/// What Go's `regexp.Compile` says: `` error parsing regexp: missing closing ): `(a` ``.
pub(crate) fn compile(source: &str) -> Result<Regex, String> {
    let translated = translate(source).map_err(|(what, part)| format!("error parsing regexp: {what}: `{part}`"))?;
    RegexBuilder::new(&translated)
        .size_limit(SIZE_MAX)
        .build()
        .map_err(|_| format!("error parsing regexp: expression too large or not supported: `{source}`"))
}

/// What is wrong, and the part of the pattern that is.
type Refusal = (&'static str, String);

/// The pattern in the language of the crate `regex`.
fn translate(source: &str) -> Result<String, Refusal> {
    let mut walk =
        Translator { rest: source, out: String::with_capacity(source.len() + 8), depth: 0, repeatable: None };
    while let Some(next) = walk.rest.chars().next() {
        walk.step(next, source)?;
    }
    if walk.depth > 0 {
        return Err(("missing closing )", source.to_owned()));
    }
    Ok(walk.out)
}

/// What stands before the place where the translation is.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    /// Something that may be repeated.
    Item,
    /// A repetition, perhaps to be made lazy by `?`; where it began in the rest of the pattern.
    Repetition { left: usize, lazy: bool },
}

struct Translator<'p> {
    rest: &'p str,
    out: String,
    depth: usize,
    repeatable: Option<Before>,
}

impl<'p> Translator<'p> {
    fn step(&mut self, next: char, source: &str) -> Result<(), Refusal> {
        match next {
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => {
                self.depth += usize::from(self.group()?);
                self.repeatable = None;
                return Ok(());
            }
            ')' => {
                if self.depth == 0 {
                    return Err(("unexpected )", source.to_owned()));
                }
                self.depth -= 1;
                self.copy(1);
            }
            '|' => {
                self.copy(1);
                self.repeatable = None;
                return Ok(());
            }
            '*' | '+' | '?' => return self.repeat(1),
            '{' => match repetition(self.rest) {
                Some((length, true)) => return self.repeat(length),
                Some((length, false)) => return Err(("invalid repeat count", self.rest[..length].to_owned())),
                None => self.literal("\\{", 1),
            },
            '}' | ']' => {
                self.out.push('\\');
                self.copy(1);
            }
            other => {
                self.copy(other.len_utf8());
            }
        }
        self.repeatable = Some(Before::Item);
        Ok(())
    }

    /// Copies bytes as they are.
    fn copy(&mut self, bytes: usize) -> &'p str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.out.push_str(taken);
        self.rest = rest;
        taken
    }

    /// Writes something else for so many bytes.
    fn literal(&mut self, text: &str, bytes: usize) {
        self.out.push_str(text);
        self.rest = &self.rest[bytes..];
    }

    fn repeat(&mut self, length: usize) -> Result<(), Refusal> {
        let operator = &self.rest[..length];
        let left = self.rest.len();
        self.repeatable = match self.repeatable {
            None => return Err(("missing argument to repetition operator", operator.to_owned())),
            Some(Before::Item) => Some(Before::Repetition { left, lazy: false }),
            Some(Before::Repetition { left, lazy: false }) if operator == "?" => {
                Some(Before::Repetition { left, lazy: true })
            }
            Some(Before::Repetition { left, .. }) => {
                let whole = left - self.rest.len() + length;
                return Err(("invalid nested repetition operator", self.tail(whole, length)));
            }
        };
        self.copy(length);
        Ok(())
    }

    /// The last `whole` bytes of the pattern up to `length` bytes from here; repetitions are copied unchanged.
    fn tail(&self, whole: usize, length: usize) -> String {
        let before = &self.out[self.out.len() - (whole - length)..];
        format!("{before}{}", &self.rest[..length])
    }

    /// Copies what begins a group; says whether one is open then, which `(?i)` is not.
    fn group(&mut self) -> Result<bool, Refusal> {
        let Some(flags) = self.rest.strip_prefix("(?") else {
            self.copy(1);
            return Ok(true);
        };
        if flags.starts_with("P<") || flags.starts_with('<') {
            let Some(end) = flags.find('>') else {
                return Err(("invalid named capture", self.rest.to_owned()));
            };
            let name = flags[..end].trim_start_matches("P").trim_start_matches('<');
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(("invalid named capture", self.rest[..end + 3].to_owned()));
            }
            self.copy(end + 3);
            return Ok(true);
        }
        let known = flags.find(|c| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')).unwrap_or(flags.len());
        match flags[known..].chars().next() {
            Some(end @ (':' | ')')) => {
                self.copy(known + 3);
                Ok(end == ':')
            }
            other => {
                let length = known + other.map_or(0, char::len_utf8) + 2;
                Err(("invalid or unsupported Perl syntax", self.rest[..length].to_owned()))
            }
        }
    }

    fn escape(&mut self) -> Result<(), Refusal> {
        let Some(next) = self.rest[1..].chars().next() else {
            return Err(("trailing backslash at end of expression", String::new()));
        };
        if next == 'Q' {
            let quoted = &self.rest[2..];
            let (text, length) = match quoted.split_once("\\E") {
                Some((text, _)) => (text, text.len() + 4),
                None => (quoted, self.rest.len()),
            };
            self.literal(&regex::escape(text), length);
            return Ok(());
        }
        match next {
            'b' => self.literal("(?-u:\\b)", 2),
            'B' => self.literal("(?-u:\\B)", 2),
            'C' => return Err(("invalid escape sequence", "\\C".to_owned())),
            'A' | 'z' => {
                self.copy(2);
            }
            _ => {
                let (text, length) = escaped(self.rest)?;
                self.literal(&text, length);
            }
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), Refusal> {
        let whole = self.rest;
        let missing = || ("missing closing ]", whole.to_owned());
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut first = true;
        loop {
            let next = self.rest.chars().next().ok_or_else(missing)?;
            match next {
                ']' if !first => {
                    self.copy(1);
                    return Ok(());
                }
                '[' if self.rest.starts_with("[:") && self.rest.contains(":]") => {
                    let end = self.rest.find(":]").unwrap_or_default() + 2;
                    self.copy(end);
                }
                '\\' => {
                    if self.rest.len() < 2 {
                        return Err(missing());
                    }
                    let (text, length) = escaped(self.rest)?;
                    self.literal(&text, length);
                }
                '[' | ']' | '&' | '~' => {
                    self.out.push('\\');
                    self.copy(1);
                }
                '-' if first || self.rest.starts_with("-]") => self.literal("\\-", 1),
                other => {
                    self.copy(other.len_utf8());
                }
            }
            first = false;
        }
    }
}

/// The length of `{2}`, `{2,}` or `{2,5}` at the beginning, and whether the counts are good; nothing when it is none.
fn repetition(text: &str) -> Option<(usize, bool)> {
    let inner = &text[1..text.find('}')?];
    let (least, most) = inner.split_once(',').map_or((inner, None), |(least, most)| (least, Some(most)));
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty();
    if !number(least) || most.is_some_and(|most| !most.is_empty() && !number(most)) {
        return None;
    }
    let count = |digits: &str| digits.parse::<u32>().ok().filter(|count| *count <= REPEAT_MAX);
    let good = match (count(least), most) {
        (None, _) => false,
        (Some(_), None | Some("")) => true,
        (Some(least), Some(most)) => count(most).is_some_and(|most| least <= most),
    };
    Some((inner.len() + 2, good))
}

/// An escape that may also stand in brackets, at the beginning of a text: its translation and its length.
fn escaped(text: &str) -> Result<(String, usize), Refusal> {
    let next = text[1..].chars().next().unwrap_or('\\');
    let length = 1 + next.len_utf8();
    let translated = match next {
        'd' => "[0-9]".to_owned(),
        'D' => "[^0-9]".to_owned(),
        's' => "[\\t\\n\\f\\r ]".to_owned(),
        'S' => "[^\\t\\n\\f\\r ]".to_owned(),
        'w' => "[0-9A-Za-z_]".to_owned(),
        'W' => "[^0-9A-Za-z_]".to_owned(),
        'p' | 'P' => {
            let end = match text[2..].starts_with('{') {
                true => text.find('}').map(|end| end + 1),
                false => text[2..].chars().next().map(|c| 2 + c.len_utf8()),
            };
            let Some(end) = end else { return Err(("invalid character class range", text.to_owned())) };
            return Ok((text[..end].to_owned(), end));
        }
        'x' => {
            let end = match text[2..].starts_with('{') {
                true => text.find('}').map(|end| end + 1),
                false => Some(4).filter(|end| text.is_char_boundary(*end) && text.len() >= *end),
            };
            let Some(end) = end else { return Err(("invalid escape sequence", text.to_owned())) };
            return Ok((text[..end].to_owned(), end));
        }
        'a' | 'f' | 'n' | 'r' | 't' | 'v' => text[..2].to_owned(),
        '0' => {
            let digits = text[1..].bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let code = u32::from_str_radix(&text[1..=digits], 8).unwrap_or_default();
            return Ok((format!("\\x{{{code:x}}}"), 1 + digits));
        }
        _ if next.is_ascii_alphanumeric() || !next.is_ascii() => {
            return Err(("invalid escape sequence", text[..length].to_owned()));
        }
        '<' | '>' | '_' | '"' | '\'' | ':' | ';' | '=' | '!' | '@' | '%' | ',' | '`' => next.to_string(),
        _ => text[..length].to_owned(),
    };
    Ok((translated, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(pattern: &str, yes: &[&str], no: &[&str]) {
        let regex = compile(pattern).unwrap();
        for text in yes {
            assert!(regex.is_match(text), "{pattern} should match {text:?}");
        }
        for text in no {
            assert!(!regex.is_match(text), "{pattern} should not match {text:?}");
        }
    }

    #[test]
    fn patterns_of_well_known_operators_mean_what_they_mean_in_go() {
        matches(r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?)$", &["0", "1y2w"], &["x"]);
        matches(r"^\d+(ms|s)?$", &["12", "12ms"], &["٣", "s"]);
        matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", &["a.b-c"], &["a..b", "-a"]);
        matches(r"^[[a]$", &["[", "a"], &["b"]);
        matches(r"^a{,2}$", &["a{,2}"], &["aa"]);
        matches(r"^[\w.-]+&&[^]]$", &["a-b.c&&d"], &["a&&]"]);
        matches(r"(?i)^abc$", &["ABC"], &["abd"]);
        matches(r"^\Qa.b\E$", &["a.b"], &["acb"]);
        matches(r"^(?P<name>x)\_\-$", &["x_-"], &["x"]);
        matches(r"^[[:alpha:]_]+\x41\s$", &["a_A "], &["1A "]);
    }

    #[test]
    fn what_go_refuses_is_refused_in_its_words() {
        let refused = |pattern: &str| compile(pattern).unwrap_err();
        for (pattern, text) in [
            ("(?!a)b", "invalid or unsupported Perl syntax: `(?!`"),
            ("(?=a)b", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?<=a)b", "invalid named capture: `(?<=a)b`"),
            ("(a)\\1", "invalid escape sequence: `\\1`"),
            ("(a", "missing closing ): `(a`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ] {
            assert_eq!(refused(pattern), format!("error parsing regexp: {text}"));
        }
    }
}
