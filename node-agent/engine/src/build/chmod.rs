//! `--chmod` of COPY and ADD: an octal mode, or changes as chmod(1) takes them. Pure.
//!
//! Source: Dockerfile reference, "COPY --chown --chmod"; POSIX, "chmod".

/// What files and new folders get.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Chmod {
    /// `0755`
    To(u32),
    /// `u=rwX,go-w`
    By(Vec<Change>),
}

/// `go+rX`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// Of whom: all bits of user, group, others.
    who: u32,
    op: char,
    bits: u32,
    /// `X`: execution, of folders and of what somebody may execute.
    conditional: bool,
    /// `g=u`: as somebody else has it; three bits of the mode, shifted down by so many.
    like: Option<u32>,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;
const EXECUTE: u32 = 0o111;

impl Chmod {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let octal = || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => return Ok(Self::To(mode)),
            Ok(_) => return Err(octal()),
            Err(_) if text.starts_with(|c: char| c.is_ascii_digit()) || text.is_empty() => return Err(octal()),
            Err(_) => {}
        }
        let mut changes = Vec::new();
        for part in text.split(',') {
            parse_part(part, &mut changes).ok_or_else(|| format!("invalid chmod parameter: '{text}'"))?;
        }
        Ok(Self::By(changes))
    }

    /// What a mode becomes.
    pub(super) fn apply(&self, mode: u32, folder: bool) -> u32 {
        match self {
            Self::To(mode) => *mode,
            Self::By(changes) => changes.iter().fold(mode & 0o7777, |mode, change| change.apply(mode, folder)),
        }
    }
}

impl Change {
    fn apply(&self, mode: u32, folder: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional && (folder || mode & EXECUTE != 0) {
            bits |= EXECUTE;
        }
        if let Some(shift) = self.like {
            bits |= ((mode >> shift) & 7) * 0o111;
        }
        let bits = bits & self.who;
        match self.op {
            '+' => mode | bits,
            '-' => mode & !bits,
            // Of a folder, "set the user or group id" stays unless it is named.
            _ if folder => (mode & (!self.who | 0o6000)) | bits,
            _ => (mode & !self.who) | bits,
        }
    }
}

/// Whom, then one or more times an operator and what.
fn parse_part(part: &str, changes: &mut Vec<Change>) -> Option<()> {
    let ops = part.find(['+', '-', '='])?;
    let (whom, mut rest) = part.split_at_checked(ops)?;
    let mut who = 0;
    for c in whom.chars() {
        who |= match c {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHERS,
            'a' => USER | GROUP | OTHERS,
            _ => return None,
        };
    }
    if whom.is_empty() {
        who = USER | GROUP | OTHERS;
    }
    while let Some(op) = rest.chars().next() {
        let after = rest.get(1..)?;
        let end = after.find(['+', '-', '=']).unwrap_or(after.len());
        let (what, next) = after.split_at_checked(end)?;
        changes.push(parse_what(who, op, what)?);
        rest = next;
    }
    Some(())
}

fn parse_what(who: u32, op: char, what: &str) -> Option<Change> {
    let mut change = Change { who, op, bits: 0, conditional: false, like: None };
    match what {
        "u" => change.like = Some(6),
        "g" => change.like = Some(3),
        "o" => change.like = Some(0),
        permissions => {
            for c in permissions.chars() {
                match c {
                    'r' => change.bits |= 0o444,
                    'w' => change.bits |= 0o222,
                    'x' => change.bits |= EXECUTE,
                    'X' => change.conditional = true,
                    's' => change.bits |= 0o6000,
                    't' => change.bits |= 0o1000,
                    _ => return None,
                }
            }
        }
    }
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_set_or_changed_as_chmod_does() {
        for (text, mode, folder, changed) in [
            ("755", 0o600, false, 0o755),
            ("0", 0o600, false, 0),
            ("04755", 0o600, false, 0o4755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o664, false, 0o444),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("g=u", 0o750, false, 0o770),
            ("o=g-w", 0o660, false, 0o664),
            ("u+s,o+t", 0o755, false, 0o5755),
            ("g+s", 0o755, false, 0o2755),
            ("u=rx", 0o4777, false, 0o577),
            ("a=rx", 0o2777, true, 0o2555),
            ("g=", 0o777, false, 0o707),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, folder), changed, "{text} of {mode:o}");
        }
        for text in ["64a", "10000", "", "9"] {
            let error = Chmod::parse(text).unwrap_err();
            assert!(error.ends_with("it should be octal string and between 0 and 07777"), "{text}: {error}");
        }
        for text in ["x", "z+x", "u+q", "u", "u+x,", "ü+x", "u+ü"] {
            assert_eq!(Chmod::parse(text), Err(format!("invalid chmod parameter: '{text}'")));
        }
    }
}
