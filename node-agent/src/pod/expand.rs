//! `$(VAR)` in commands, arguments and variables. Source: Kubernetes `third_party/forked/golang/expansion`.

/// Longest result: the kernel takes no longer argument or variable (`MAX_ARG_STRLEN`, execve(2)). Without a limit a
/// few variables that name each other would grow beyond all memory.
const LEN_MAX: usize = 128 << 10;

/// A text that names variables is too long with their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than {LEN_MAX} bytes with the values of its variables")]
pub(crate) struct TooLong;

/// Replaces every `$(NAME)` that `lookup` knows; `$$` is one `$`; what is unknown stays as it is.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        if out.len() > LEN_MAX {
            return Err(TooLong);
        }
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    if out.len() > LEN_MAX { Err(TooLong) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_everything_else_stays() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("price: 5$", "price: 5$"),
            ("", ""),
        ] {
            assert_eq!(expand(text, lookup).unwrap(), expanded, "{text}");
        }
    }

    #[test]
    fn variables_that_multiply_are_stopped_in_time() {
        let mut value = "x".repeat(1000);
        for _ in 0..64 {
            let known = value.clone();
            match expand("$(A)$(A)", |_| Some(known.clone())) {
                Ok(longer) => value = longer,
                Err(TooLong) => return,
            }
        }
        panic!("{} bytes", value.len());
    }
}
