//! Words of a Dockerfile: splitting at blanks, quotes, escapes, `$variables`. Pure.
//!
//! Source: Dockerfile reference, "Environment replacement" and "Escape".

/// How deep `${a:-${b:-…}}` may nest.
const DEPTH_MAX: u32 = 32;
/// Longest text an expansion may yield: `${a}${a}…` doubles with every line.
const EXPANDED_LEN_MAX: usize = 1 << 20;

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

/// Replaces variables and leaves everything else as it is, quotes and escapes too: the text of here-documents.
pub(super) fn expand_text(text: &str, escape: char, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expander = Expander { chars: text.chars().peekable(), escape, lookup };
    let mut out = String::new();
    while let Some(c) = expander.chars.next() {
        match c {
            '$' => out.push_str(&expander.variable(0)?),
            c => {
                out.push(c);
                if c == escape {
                    out.extend(expander.chars.next());
                }
            }
        }
        if out.len() > EXPANDED_LEN_MAX {
            return Err("the value grows too long".to_owned());
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
            return Err("variables nested too deep".to_owned());
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
                return Err("the value grows too long".to_owned());
            }
        }
        match stop {
            None => Ok(out),
            Some(stop) => Err(format!("unexpected end of statement while looking for {stop:?}")),
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

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            // Positional parameters have one digit and are never set here.
            if name.len() == 1 && c.is_ascii_digit() {
                break;
            }
        }
        name
    }

    /// `${name}`, `${name:-word}`, `${name:+word}`, `${name:?word}`, each also without the colon.
    fn braced(&mut self, depth: u32) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("bad substitution".to_owned());
        }
        let value = (self.lookup)(&name);
        let colon = self.chars.next_if_eq(&':').is_some();
        let set = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
        let modifier = self.chars.next();
        match modifier {
            Some('}') if !colon => return Ok(value.unwrap_or_default()),
            Some('-' | '+' | '?') => {}
            Some(other) => return Err(format!("unsupported modifier ({other}) in substitution")),
            None => return Err("syntax error: missing '}'".to_owned()),
        }
        let word = self.run(Some('}'), depth + 1)?;
        match (modifier, set) {
            (Some('-'), false) | (Some('+'), true) => Ok(word),
            (Some('+'), false) => Ok(String::new()),
            (Some('?'), false) => Err(format!("{name}: {}", if word.is_empty() { "not set" } else { &word })),
            _ => Ok(value.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("alpha".to_owned()),
            "EMPTY" => Some(String::new()),
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
            ("a$ $- $1x", "a$ $- x"),
        ] {
            assert_eq!(expand(text, '\\', &lookup).as_deref(), Ok(expanded), "{text}");
        }
        for (text, error) in [
            ("${A", "syntax error: missing '}'"),
            ("${A%x}", "unsupported modifier (%) in substitution"),
            ("${}", "bad substitution"),
            ("'open", "unexpected end of statement while looking for matching single-quote"),
            ("\"open", "unexpected end of statement while looking for matching double-quote"),
            ("${NONE:?must be set}", "NONE: must be set"),
            (&"${X:-".repeat(40), "variables nested too deep"),
        ] {
            assert_eq!(expand(text, '\\', &lookup), Err(error.to_owned()), "{text}");
        }
        assert_eq!(expand("`$A C:\\x", '`', &lookup).as_deref(), Ok("$A C:\\x"));
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(split("a=1  b='x y' c=\"z \\\" w\" d=\\ e", '\\'), ["a=1", "b='x y'", "c=\"z \\\" w\"", "d=\\ e"]);
        assert!(split("  ", '\\').is_empty());
    }
}
