//! Words of a Dockerfile: splitting at blanks, quotes, escapes, `$variables`. Pure.
//!
//! Source: Dockerfile reference, "Environment replacement" and "Escape".

use regex::Regex;

/// How deep `${a:-${b:-…}}` may nest.
const DEPTH_MAX: u32 = 32;
/// Longest text an expansion may yield: `${a}${a}…` doubles with every line.
const EXPANDED_LEN_MAX: usize = 1 << 20;
const TOO_DEEP: &str = "variables nested too deep";
const TOO_LONG: &str = "the value grows too long";

/// Splits at blanks outside quotes. Quotes and escapes stay, for [`expand`] to take away.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '"' | '\'') {
            quote = Some(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and escapes away and replaces variables by what `lookup` says; unset ones by nothing.
pub(super) fn expand(text: &str, escape: char, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expander = Expander { chars: text.chars().peekable(), escape, lookup };
    expander.run(None, 0)
}

/// Replaces variables and takes escapes away, which are always backslashes here; quotes stay: the text of
/// here-documents.
pub(super) fn expand_text(text: &str, _: char, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expander = Expander { chars: text.chars().peekable(), escape: '\\', lookup };
    let mut out = String::new();
    while let Some(c) = expander.chars.next() {
        match c {
            '$' => out.push_str(&expander.variable(0)?),
            '\\' => out.extend(expander.chars.next()),
            c => out.push(c),
        }
        if out.len() > EXPANDED_LEN_MAX {
            return Err(TOO_LONG.to_owned());
        }
    }
    Ok(out)
}

struct Expander<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    /// Up to `stop` (which is taken) or the end.
    fn run(&mut self, stop: Option<char>, depth: u32) -> Result<String, String> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP.to_owned());
        }
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out, depth)?,
                '$' => out.push_str(&self.variable(depth)?),
                c if c == self.escape => out.extend(self.chars.next()),
                c => out.push(c),
            }
            if out.len() > EXPANDED_LEN_MAX {
                return Err(TOO_LONG.to_owned());
            }
        }
        match stop {
            None => Ok(out),
            Some(stop) => Err(format!("syntax error: missing '{stop}'")),
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".to_owned())
    }

    /// Only quote, dollar and the escape itself can be escaped here.
    fn double_quoted(&mut self, out: &mut String, depth: u32) -> Result<(), String> {
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.variable(depth)?),
                c if c == self.escape => match self.chars.next() {
                    Some(next) if matches!(next, '"' | '$') || next == self.escape => out.push(next),
                    next => {
                        out.push(c);
                        out.extend(next);
                    }
                },
                c => out.push(c),
            }
            if out.len() > EXPANDED_LEN_MAX {
                return Err(TOO_LONG.to_owned());
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".to_owned())
    }

    fn variable(&mut self, depth: u32) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braced(depth);
        }
        let name = self.name();
        if name.is_empty() { Ok("$".to_owned()) } else { Ok((self.lookup)(&name).unwrap_or_default()) }
    }

    /// A name; or a positional parameter, or a special one: those are never set here.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(special) = self.chars.next_if(|c| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')) {
            return special.to_string();
        }
        let positional = self.chars.peek().is_some_and(char::is_ascii_digit);
        let belongs = |c: &char| if positional { c.is_ascii_digit() } else { c.is_ascii_alphanumeric() || *c == '_' };
        while let Some(c) = self.chars.next_if(belongs) {
            name.push(c);
        }
        name
    }

    /// `${name}`; `${name:-word}`, `${name:+word}`, `${name:?word}`, each also without the colon; `${name#pattern}`,
    /// `${name##pattern}`, `${name%pattern}`, `${name%%pattern}`; `${name/pattern/text}`, `${name//pattern/text}`.
    fn braced(&mut self, depth: u32) -> Result<String, String> {
        match self.chars.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let value = (self.lookup)(&name);
        let colon = self.chars.next_if_eq(&':').is_some();
        let modifier = self.chars.next();
        match modifier {
            Some('}') if !colon => return Ok(value.unwrap_or_default()),
            Some('-' | '+' | '?') => {}
            Some(end @ ('#' | '%')) if !colon => return self.trimmed(end, &value.unwrap_or_default(), depth),
            Some('/') if !colon => return self.replaced(&value.unwrap_or_default(), depth),
            Some(other) => {
                let colon = if colon { ":" } else { "" };
                return Err(format!("unsupported modifier ({colon}{other}) in substitution"));
            }
            None => return Err("syntax error: missing '}'".to_owned()),
        }
        let word = self.run(Some('}'), depth + 1)?;
        let full = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
        match (modifier, full) {
            (Some('-'), false) | (Some('+'), true) => Ok(word),
            (Some('+'), false) => Ok(String::new()),
            (Some('?'), false) if !word.is_empty() => Err(format!("{name}: {word}")),
            (Some('?'), false) if value.is_none() => Err(format!("{name}: is not allowed to be unset")),
            (Some('?'), false) => Err(format!("{name}: is not allowed to be empty")),
            _ => Ok(value.unwrap_or_default()),
        }
    }

    /// Without its beginning or end, as far as the pattern fits; the doubled sign takes as much as it can.
    fn trimmed(&mut self, end: char, value: &str, depth: u32) -> Result<String, String> {
        let greedy = self.chars.next_if_eq(&end).is_some();
        let pattern = self.pattern('}', depth + 1)?;
        let tokens = tokens(&pattern)?;
        if end == '#' {
            let fits = regex(tokens.into_iter(), true, greedy)?;
            return Ok(fits.find(value).and_then(|found| value.get(found.end()..)).unwrap_or(value).to_owned());
        }
        // The end of a text is the beginning of the reversed one.
        let reversed: String = value.chars().rev().collect();
        let fits = regex(tokens.into_iter().rev(), true, greedy)?;
        let left = fits.find(&reversed).and_then(|found| reversed.get(found.end()..)).unwrap_or(&reversed);
        Ok(left.chars().rev().collect())
    }

    /// With the first longest fit of the pattern replaced, or all of them.
    fn replaced(&mut self, value: &str, depth: u32) -> Result<String, String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.pattern('/', depth + 1)?;
        let text = self.run(Some('}'), depth + 1)?;
        let fits = regex(tokens(&pattern)?.into_iter(), false, true)?;
        let (mut out, mut kept) = (String::new(), 0);
        for found in fits.find_iter(value).take(if all { usize::MAX } else { 1 }) {
            out.push_str(value.get(kept..found.start()).unwrap_or_default());
            out.push_str(&text);
            kept = found.end();
            if out.len() > EXPANDED_LEN_MAX {
                return Err(TOO_LONG.to_owned());
            }
        }
        out.push_str(value.get(kept..).unwrap_or_default());
        Ok(out)
    }

    /// A pattern up to `stop`, its variables put in. Escapes stay, but for those of `}` and `/`.
    fn pattern(&mut self, stop: char, depth: u32) -> Result<String, String> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP.to_owned());
        }
        let mut pattern = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if c == stop => return Ok(pattern),
                '\'' => self.single_quoted(&mut pattern)?,
                '"' => self.double_quoted(&mut pattern, depth)?,
                '$' => pattern.push_str(&self.variable(depth)?),
                c if c == self.escape => match self.chars.next() {
                    Some(next @ ('}' | '/')) => pattern.push(next),
                    next => {
                        pattern.push('\\');
                        pattern.extend(next);
                    }
                },
                c => pattern.push(c),
            }
            if pattern.len() > EXPANDED_LEN_MAX {
                return Err(TOO_LONG.to_owned());
            }
        }
        let missing = if stop == '/' { "'/' in ${}" } else { "'}'" };
        Err(format!("syntax error: missing {missing}"))
    }
}

/// A part of a shell pattern.
enum Token {
    /// `*`
    Anything,
    /// `?`
    One,
    Char(char),
}

fn tokens(pattern: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Anything,
            '?' => Token::One,
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\')) => Token::Char(c),
                other => {
                    let c = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid pattern ({pattern}) in substitution: invalid escape '\\{c}'"));
                }
            },
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

/// What fits a pattern, at the beginning only or anywhere: as little of a text as possible, or as much.
fn regex(tokens: impl Iterator<Item = Token>, at_beginning: bool, greedy: bool) -> Result<Regex, String> {
    let mut text = if at_beginning { "^".to_owned() } else { String::new() };
    for token in tokens {
        match token {
            Token::Anything => text.push_str(if greedy { ".*" } else { ".*?" }),
            Token::One => text.push('.'),
            Token::Char(c) => text.push_str(&regex::escape(&c.to_string())),
        }
    }
    let regex = regex::RegexBuilder::new(&text).dot_matches_new_line(true).build();
    regex.map_err(|error| format!("invalid pattern in substitution: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("alpha".to_owned()),
            "EMPTY" => Some(String::new()),
            "V" => Some("v1.2.3".to_owned()),
            "BIG" => Some("x".repeat(10_000)),
            _ => None,
        }
    }

    #[test]
    fn variables_quotes_and_escapes_are_those_of_docker() {
        for (text, expanded) in [
            ("plain", "plain"),
            ("$A-${A}-$NONE-", "alpha-alpha--"),
            ("\\$A '$A' \"$A\" \"\\$A\" \"\\n\"", "$A $A alpha $A \\n"),
            ("${NONE:-d} ${EMPTY:-d} ${EMPTY-d} ${A:-d}", "d d  alpha"),
            ("${A:+y} ${NONE:+y} ${EMPTY:+y} ${EMPTY+y}", "y   y"),
            ("${NONE:-${A}x}", "alphax"),
            ("${NONE:-'}'}", "}"),
            ("a$ $-. $1x $12x $$", "a$ . x x "),
            ("${A#al} ${A#*l} ${A##*p} ${A#x} ${A%a} ${A%%p*} ${A%p?a} ${NONE#x}", "pha pha ha alpha alph al al "),
            ("${A/a/o} ${A//a/o} ${A//[/o} ${A/p*/.} ${A//a/} ${A/l/\\/}", "olpha olpho alpha al. lph a/pha"),
            ("${V#v} ${V%%.*} ${V%.*} ${V//./_} ${V#\\*}", "1.2.3 v1 v1.2 v1_2_3 v1.2.3"),
        ] {
            assert_eq!(expand(text, '\\', &lookup).as_deref(), Ok(expanded), "{text}");
        }
        for (text, error) in [
            ("${A", "syntax error: missing '}'"),
            ("${A^}", "unsupported modifier (^) in substitution"),
            ("${A:%x}", "unsupported modifier (:%) in substitution"),
            ("${A:-x", "syntax error: missing '}'"),
            ("${A%x", "syntax error: missing '}'"),
            ("${A/x}", "syntax error: missing '/' in ${}"),
            ("${A#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
            ("${NONE?}", "NONE: is not allowed to be unset"),
            ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
            ("${}", "syntax error: bad substitution"),
            ("'open", "unexpected end of statement while looking for matching single-quote"),
            ("\"open", "unexpected end of statement while looking for matching double-quote"),
            ("${NONE:?must be set}", "NONE: must be set"),
            (&"${X:-".repeat(40), "variables nested too deep"),
            (&"${X#".repeat(100_000), "variables nested too deep"),
            (&format!("\"{}\"", "${BIG}".repeat(100_000)), "the value grows too long"),
            ("${BIG//?/$BIG}", "the value grows too long"),
        ] {
            assert_eq!(expand(text, '\\', &lookup), Err(error.to_owned()), "{text}");
        }
        assert_eq!(expand("`$A C:\\x", '`', &lookup).as_deref(), Ok("$A C:\\x"));
    }

    #[test]
    fn in_a_text_quotes_stay_and_escapes_do_not() {
        let text = "\"$A\" '$A' \\$A \\\\ \\\nproxy \\\"x\\\" ${V%%.*}";
        let expanded = "\"alpha\" 'alpha' $A \\ \nproxy \"x\" v1";
        assert_eq!(expand_text(text, '`', &lookup).as_deref(), Ok(expanded));
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(split("a=1  b='x y' c=\"z \\\" w\" d=\\ e", '\\'), ["a=1", "b='x y'", "c=\"z \\\" w\"", "d=\\ e"]);
        assert!(split("  ", '\\').is_empty());
    }
}
