//! Names of fields as identifiers: `a-b` is written `a__dash__b`, `namespace` is written `__namespace__`.

/// Words that have a meaning of their own.
const KEYWORDS: [&str; 4] = ["true", "false", "null", "in"];

/// Words that are fields, but never variables or functions.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether a variable may be called so.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic());
    starts && name.chars().all(|one| one == '_' || one.is_ascii_alphanumeric()) && !is_reserved(name)
}

/// How a field called `name` is written in an expression; none when it cannot be.
#[must_use]
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            escaped.push_str("__underscores__");
            rest = after;
            continue;
        }
        match letter {
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            letter if letter.is_ascii_alphanumeric() || letter == '_' => escaped.push(letter),
            _ => return None,
        }
        rest = rest.get(letter.len_utf8()..).unwrap_or_default();
    }
    Some(escaped)
}

/// The field an identifier stands for; none when it holds an escape that stands for nothing.
#[must_use]
pub fn unescape(escaped: &str) -> Option<String> {
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while !rest.is_empty() {
        let sequence = rest.strip_prefix("__").and_then(|after| {
            let end = after.find('_').filter(|end| *end > 0)?;
            let tail = after.get(end..)?.strip_prefix("__")?;
            Some((after.get(..end)?, tail))
        });
        let Some((contents, tail)) = sequence else {
            let letter = rest.chars().next()?;
            name.push(letter);
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
            continue;
        };
        match contents {
            "underscores" => name.push_str("__"),
            "dot" => name.push('.'),
            "dash" => name.push('-'),
            "slash" => name.push('/'),
            word if is_reserved(word) && word.len() + 4 == escaped.len() => name.push_str(word),
            _ => return None,
        }
        rest = tail;
    }
    Some(name)
}

/// Whether `word` can be a field's name but no identifier.
pub(crate) fn is_reserved(word: &str) -> bool {
    KEYWORDS.contains(&word) || RESERVED.contains(&word)
}
