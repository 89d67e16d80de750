//! JSON indented for people, in the order in which it stands: as Go's `json.MarshalIndent` writes it.

/// What stands before a line, per level.
const INDENT: &[u8] = b"  ";

/// Indents a text that is JSON. No line break stands at the end.
pub(crate) fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                out.push(byte);
                let mut escaped = false;
                for inner in bytes.by_ref() {
                    out.push(inner);
                    match inner {
                        b'"' if !escaped => break,
                        b'\\' => escaped = !escaped,
                        _ => escaped = false,
                    }
                }
            }
            b'{' | b'[' => {
                out.push(byte);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                match bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(depth, &mut out);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(depth, &mut out);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(depth, &mut out);
            }
            b':' => out.extend_from_slice(b": "),
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(byte),
        }
    }
    out
}

fn line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    for _ in 0..depth {
        out.extend_from_slice(INDENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_space_between_words_changes() {
        let text = br#"{"a":[1,2,{"b":"x, {\"y\\\": [z]}"}],"c":{},"d":[ ],"e":null}"#;
        let expected = "{\n  \"a\": [\n    1,\n    2,\n    {\n      \"b\": \"x, {\\\"y\\\\\\\": [z]}\"\n    }\n  ],\n  \"c\": {},\n  \"d\": [],\n  \"e\": null\n}";
        assert_eq!(String::from_utf8(indent(text)).unwrap(), expected);
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_slice(text).unwrap(), serde_json::from_slice(&indent(text)).unwrap());
        assert_eq!(before, after);
    }
}
