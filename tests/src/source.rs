//! The project's own source as data, for the tidy test: files, functions, crates and their dependencies.
//!
//! Relies on the tree being formatted by rustfmt (a function ends at the first closing brace of its indentation).

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of the project that git tracks or would track, relative to the root, with this ending.
///
/// # Panics
/// When git does not answer: a test without its subject must not pass.
#[must_use]
#[allow(clippy::expect_used, reason = "called by tests only; without the files there is nothing to test")]
pub fn files(ending: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut files: Vec<PathBuf> = text
        .lines()
        .filter(|line| line.ends_with(ending))
        .map(PathBuf::from)
        .filter(|p| root().join(p).exists())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {ending} files: the test would prove nothing");
    files
}

/// A function's name, first line (from 1) and number of lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its first line, counted from 1.
    pub line: usize,
    /// Its lines, from `fn` to the closing brace.
    pub lines: usize,
}

/// The functions of a source text.
#[must_use]
pub fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let rest = &lines[index..];
        let declared_only = rest.iter().position(|line| line.trim_end().ends_with(';') && line.starts_with(indent));
        let end = rest.iter().position(|line| *line == closing);
        let opened = rest.iter().position(|line| line.trim_end().ends_with('{'));
        let (Some(end), Some(opened)) = (end, opened) else { continue };
        if declared_only.is_some_and(|at| at < opened) || line.trim_end().ends_with('}') {
            continue;
        }
        found.push(Function { name: name.to_owned(), line: index + 1, lines: end + 1 });
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        let word = rest.split([' ', '(']).next()?;
        match word {
            "pub" => rest = rest[3..].trim_start(),
            "const" | "async" | "unsafe" | "extern" | "\"C\"" => rest = rest[word.len()..].trim_start(),
            "fn" => return rest[2..].trim_start().split(['(', '<']).next(),
            _ if rest.starts_with("(crate)") || rest.starts_with("(super)") => rest = rest[7..].trim_start(),
            _ => return None,
        }
    }
}

/// The text without its test modules (`#[cfg(test)] mod … { }` to the end of the file, where rustfmt'd code has them).
#[must_use]
pub fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}
