//! File patterns: those of COPY and ADD, and `.dockerignore`. Pure.
//!
//! Source: Dockerfile reference, "COPY" and ".dockerignore file"; Go's `path/filepath.Match` for the syntax.

use regex::Regex;

/// A pattern over slash-separated paths. `**` stands for any number of folders.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

/// What `.dockerignore` says.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    /// `!pattern` takes back in.
    includes: bool,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("syntax error in pattern {text:?}");
        let mut regex = "^".to_owned();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    let slash = chars.next_if_eq(&'/').is_some();
                    regex.push_str(if slash || chars.peek().is_some() { "(?:.*/)?" } else { ".*" });
                }
                '*' => regex.push_str("[^/]*"),
                '?' => regex.push_str("[^/]"),
                '[' => regex.push_str(&class(&mut chars).ok_or_else(bad)?),
                '\\' => regex.push_str(&regex::escape(&chars.next().ok_or_else(bad)?.to_string())),
                c => regex.push_str(&regex::escape(&c.to_string())),
            }
        }
        regex.push('$');
        let regex = regex::RegexBuilder::new(&regex).dot_matches_new_line(true).build();
        Ok(Self(regex.map_err(|_| bad())?))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// `[a-z]`, `[^a]`: the same as a regular expression's but for what needs escaping.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut class = "[".to_owned();
    if chars.next_if_eq(&'^').is_some() {
        class.push('^');
    }
    let mut empty = true;
    loop {
        match chars.next()? {
            ']' if !empty => break,
            '\\' => class.push_str(&regex::escape(&chars.next()?.to_string())),
            '-' if !empty => class.push('-'),
            c => class.push_str(&regex::escape(&c.to_string())),
        }
        empty = false;
    }
    class.push(']');
    Some(class)
}

impl Ignore {
    /// Parses a whole file. The error names the line.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            // A comment begins with the line, as with Docker.
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (pattern, includes) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim_start(), true),
                None => (line, false),
            };
            if pattern.is_empty() {
                return Err((index + 1, "illegal exclusion pattern: \"!\"".to_owned()));
            }
            // What stands for the context itself or for something outside of it fits no file in it.
            let Some(pattern) = clean(pattern).ok().filter(|pattern| !pattern.is_empty()) else { continue };
            let pattern = Pattern::parse(&pattern).map_err(|message| (index + 1, message))?;
            rules.push(Rule { pattern, includes });
        }
        Ok(Self { rules })
    }

    /// Whether a file is left out. The last rule that fits it or a folder above it decides.
    pub(super) fn excludes(&self, path: &str) -> bool {
        let fits = |rule: &&Rule| {
            let parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
            std::iter::once(path).chain(parents).any(|part| rule.pattern.matches(part))
        };
        self.rules.iter().rev().find(fits).is_some_and(|rule| !rule.includes)
    }

    /// Whether nothing is ever left out.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether something below a folder that is left out may still be taken in.
    pub(super) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.includes)
    }
}

/// A path below the context without leading and trailing slashes, `.` and `..`.
pub(super) fn clean(path: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => {
                return Err(format!("forbidden path outside the build context: {path} ()"));
            }
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_gos_do() {
        for (pattern, path, matches) in [
            ("*.rs", "a.rs", true),
            ("*.rs", "a/b.rs", false),
            ("**/*.rs", "a/b/c.rs", true),
            ("**/*.rs", "c.rs", true),
            ("a/**", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[]a]", "]", true),
            ("a.b", "axb", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("(x)+$", "(x)+$", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(path), matches, "{pattern} {path}");
        }
        assert!(Pattern::parse("[a").is_err());
        assert!(Pattern::parse("a\\").is_err());
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let ignore =
            Ignore::parse("# comment\n\n/target/\n*.md\n!README.md\n**/tmp\ndocs\n!docs/keep\ndocs/keep/not\n")
                .unwrap();
        for (path, excluded) in [
            ("target", true),
            ("target/debug/x", true),
            ("src/target", false),
            ("notes.md", true),
            ("README.md", false),
            ("a/b/tmp/x", true),
            ("docs/x", true),
            ("docs/keep/x", false),
            ("docs/keep/not/x", true),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.excludes(path), excluded, "{path}");
        }
        let ignore = Ignore::parse("../b\n.\n/\n./\n#a\n #c\n").unwrap();
        assert!(!ignore.excludes("b") && !ignore.excludes("#a") && ignore.excludes("#c"));
        assert_eq!(Ignore::parse("a\n !\n").unwrap_err(), (2, "illegal exclusion pattern: \"!\"".to_owned()));
        assert!(!Ignore::parse("a\n").unwrap().has_exceptions());
    }
}
