//! What is wrong with an expression and where: the texts users read in `compilation failed: …`.
//!
//! Form and wording are cel-go's, including the excerpt of the line and the mark under the place.

use std::fmt::Write as _;

/// More issues than this are counted, not told.
const ISSUES_MAX: usize = 100;
/// A longer line is not shown.
const EXCERPT_BYTES_MAX: usize = 16_384;

/// One thing wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// What is wrong, without the place.
    pub message: String,
    /// Where, in code points from the start; none when it concerns the whole expression.
    pub offset: Option<u32>,
}

/// Issues of one expression, in the order they were found.
#[derive(Debug, Default)]
pub(crate) struct Issues {
    found: Vec<Issue>,
    /// How many there were in all.
    total: usize,
}

impl Issues {
    pub(crate) fn report(&mut self, offset: Option<u32>, message: impl Into<String>) {
        self.total += 1;
        if self.total <= ISSUES_MAX {
            self.found.push(Issue { message: message.into(), offset });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(crate) fn into_error(mut self, source: &Source) -> CompileError {
        // In the order of the text; what has no place comes first.
        self.found.sort_by_key(|issue| issue.offset.map_or((0, 0), |offset| source.line_and_column(offset)));
        CompileError { text: source.text.clone(), issues: self.found, total: self.total, program: None }
    }
}

/// Why an expression does not compile. Shown, it is what cel-go prints: one block per issue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.display())]
pub struct CompileError {
    text: String,
    issues: Vec<Issue>,
    total: usize,
    /// Why a well-formed expression can never run (a constant pattern that is none); then there are no issues.
    program: Option<String>,
}

impl CompileError {
    pub(crate) fn program(reason: String) -> Self {
        Self { text: String::new(), issues: Vec::new(), total: 0, program: Some(reason) }
    }

    /// What Kubernetes tells the user who wrote the expression: `compilation failed: …`.
    #[must_use]
    pub fn detail(&self) -> String {
        match &self.program {
            Some(reason) => format!("program instantiation failed: {reason}"),
            None => format!("compilation failed: {self}"),
        }
    }

    /// The issues, in the order of the text; at most 100.
    #[must_use]
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    fn display(&self) -> String {
        if let Some(reason) = &self.program {
            return reason.clone();
        }
        let source = Source::new(&self.text);
        let mut shown: Vec<String> = self.issues.iter().map(|issue| source.show(issue)).collect();
        if self.total > ISSUES_MAX {
            shown.push(format!("{} more errors were truncated", self.total - ISSUES_MAX));
        }
        shown.join("\n")
    }
}

/// The text of an expression with the starts of its lines.
#[derive(Debug)]
pub(crate) struct Source {
    text: String,
    /// Offset in code points at which each line starts.
    lines: Vec<u32>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let mut lines = vec![0];
        let mut offset = 0_u32;
        for letter in text.chars() {
            offset = offset.saturating_add(1);
            if letter == '\n' {
                lines.push(offset);
            }
        }
        Self { text: text.to_owned(), lines }
    }

    /// Line from 1 and column from 0.
    fn line_and_column(&self, offset: u32) -> (usize, u32) {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        (line, offset - start)
    }

    fn show(&self, issue: &Issue) -> String {
        let Some(offset) = issue.offset else {
            return format!("ERROR: <input>:-1:0: {}", issue.message);
        };
        let (line, column) = self.line_and_column(offset);
        let mut shown = format!("ERROR: <input>:{line}:{}: {}", column + 1, issue.message);
        let excerpt = self.text.split('\n').nth(line - 1).unwrap_or_default();
        if excerpt.len() > EXCERPT_BYTES_MAX {
            return shown;
        }
        let excerpt = excerpt.replace('\t', " ");
        let mut mark = String::new();
        let mut letters = excerpt.chars();
        for letter in letters.by_ref().take(column as usize) {
            mark.push(if letter.len_utf8() > 1 { '\u{ff0e}' } else { '.' });
        }
        mark.push(if letters.next().is_some_and(|letter| letter.len_utf8() > 1) { '\u{ff3e}' } else { '^' });
        let _ = write!(shown, "\n | {excerpt}\n | {mark}");
        shown
    }
}
