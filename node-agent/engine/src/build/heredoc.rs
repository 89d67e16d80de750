//! Lines of a Dockerfile and the here-documents between them. Pure.
//!
//! Source: Dockerfile reference, "Format" and "Here-Documents".

use super::words;

/// Text that stands in the Dockerfile itself, from behind an instruction to a line that ends it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heredoc {
    /// The word that begins it, as it stands in the instruction: `<<EOF`.
    pub(super) word: String,
    /// The word that ends it.
    pub(super) name: String,
    /// Its name was not quoted: COPY and ADD put in the values of variables.
    pub(super) expands: bool,
    /// `<<-`: tabs at the beginning of lines do not count.
    pub(super) strips_tabs: bool,
    /// Its lines, as written.
    pub(super) text: String,
}

impl Heredoc {
    /// The content that is meant.
    pub(super) fn content(&self) -> String {
        if !self.strips_tabs {
            return self.text.clone();
        }
        self.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Reads logical lines: continuations are joined, comments and empty lines are gone.
pub(super) struct Lines<'a> {
    lines: Vec<&'a str>,
    at: usize,
    escape: char,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, escape: char) -> Self {
        Self { lines: text.lines().collect(), at: 0, escape }
    }

    /// The next logical line, with the number at which it begins.
    pub(super) fn next(&mut self) -> Option<(usize, String)> {
        let mut current: Option<(usize, String)> = None;
        while let Some(line) = self.lines.get(self.at) {
            self.at += 1;
            let trimmed = line.trim_start();
            // Comments and empty lines do not end a continuation either.
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let (body, continues) = match continued(line, self.escape) {
                Some(body) => (body, true),
                None => (*line, false),
            };
            let (start, mut joined) = current.take().unwrap_or((self.at, String::new()));
            joined.push_str(if joined.is_empty() { body.trim_start() } else { body });
            if continues {
                current = Some((start, joined));
                continue;
            }
            let joined = joined.trim_end();
            if !joined.is_empty() {
                return Some((start, joined.to_owned()));
            }
        }
        current.map(|(start, joined)| (start, joined.trim_end().to_owned())).filter(|(_, joined)| !joined.is_empty())
    }

    /// The here-documents that a logical line begins: they stand right behind it.
    pub(super) fn heredocs(&mut self, line: &str) -> Result<Vec<Heredoc>, String> {
        if !takes_heredocs(line) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for word in words::split(line, self.escape) {
            let Some(mut heredoc) = begun(&word) else { continue };
            loop {
                let Some(line) = self.lines.get(self.at) else {
                    return Err(format!("unterminated heredoc: {}", heredoc.word));
                };
                self.at += 1;
                let bare = if heredoc.strips_tabs { line.trim_start_matches('\t') } else { line };
                if bare == heredoc.name {
                    break;
                }
                heredoc.text.push_str(line);
                heredoc.text.push('\n');
            }
            found.push(heredoc);
        }
        Ok(found)
    }
}

/// The line without its trailing escape, if that is one: an escaped escape is not.
fn continued(line: &str, escape: char) -> Option<&str> {
    let body = line.trim_end().strip_suffix(escape)?;
    if body.ends_with(escape) { None } else { Some(body) }
}

fn takes_heredocs(line: &str) -> bool {
    let mut keywords = line.split_whitespace().map(str::to_ascii_uppercase);
    let mut keyword = keywords.next();
    if keyword.as_deref() == Some("ONBUILD") {
        keyword = keywords.next();
    }
    matches!(keyword.as_deref(), Some("RUN" | "COPY" | "ADD"))
}

/// `<<EOF`, `3<<-"EOF"`: the here-document that a word begins.
fn begun(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strips_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let unquoted = ['"', '\''].iter().find_map(|quote| rest.strip_prefix(*quote)?.strip_suffix(*quote));
    let name = unquoted.unwrap_or(rest);
    let fine = !name.is_empty() && !name.contains(['<', '"', '\'']);
    fine.then(|| Heredoc {
        word: word.to_owned(),
        name: name.to_owned(),
        expands: unquoted.is_none(),
        strips_tabs,
        text: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, Vec<Heredoc>)> {
        let mut lines = Lines::new(text, '\\');
        let mut read = Vec::new();
        while let Some((number, line)) = lines.next() {
            let heredocs = lines.heredocs(&line).unwrap();
            read.push((number, line, heredocs));
        }
        read
    }

    #[test]
    fn a_heredoc_ends_at_its_word_and_the_next_instruction_follows() {
        let read = read(
            "RUN <<EOF cat >x\n# kept\n  a \\\nEOF \nEOF\nCOPY <<-'a' 2<<b /d/\n\t\t$x\n\ta\nb1\nb\nRUN echo \"<<no\" 1<2\n",
        );
        assert_eq!(read.len(), 3);
        let (number, line, heredocs) = &read[0];
        assert_eq!((*number, line.as_str(), heredocs.len()), (1, "RUN <<EOF cat >x", 1));
        assert_eq!(heredocs[0].content(), "# kept\n  a \\\nEOF \n");
        let (number, _, heredocs) = &read[1];
        assert_eq!((*number, heredocs.len()), (6, 2));
        assert_eq!((heredocs[0].content().as_str(), heredocs[0].expands), ("$x\n", false));
        assert_eq!((heredocs[1].content().as_str(), heredocs[1].expands), ("b1\n", true));
        assert!(read[2].2.is_empty());
    }

    #[test]
    fn only_instructions_that_take_heredocs_have_them() {
        assert_eq!(read("ENV a=<<EOF\nEOF x\n").len(), 2);
        let mut lines = Lines::new("RUN <<EOF\nnever ends\n", '\\');
        let (_, line) = lines.next().unwrap();
        assert_eq!(lines.heredocs(&line).unwrap_err(), "unterminated heredoc: <<EOF");
    }
}
