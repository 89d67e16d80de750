//! From the text of a string or bytes token to what it stands for.

/// The contents of a bytes literal, without the `b`.
///
/// # Errors
/// With cel-go's text, when an escape stands for nothing.
pub(crate) fn bytes(token: &str) -> Result<Vec<u8>, &'static str> {
    unescape(token, true)
}

/// The contents of a string literal.
///
/// # Errors
/// With cel-go's text, when an escape stands for nothing.
pub(crate) fn string(token: &str) -> Result<String, &'static str> {
    String::from_utf8(unescape(token, false)?).map_err(|_| NOT_A_STRING)
}

const NOT_A_STRING: &str = "unable to unescape string";

fn unescape(token: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let token = token.replace("\r\n", "\n").replace('\r', "\n");
    let (raw, quoted) = match token.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, token.as_str()),
    };
    let contents = ["\"\"\"", "'''", "\"", "'"]
        .iter()
        .find_map(|quote| {
            let long_enough = quoted.len() >= 2 * quote.len();
            quoted.strip_prefix(quote).filter(|_| long_enough)?.strip_suffix(quote)
        })
        .ok_or(NOT_A_STRING)?;
    if raw || !contents.contains('\\') {
        return Ok(contents.as_bytes().to_vec());
    }
    let mut result = Vec::with_capacity(contents.len());
    let mut letters = contents.chars();
    while let Some(letter) = letters.next() {
        if letter == '\\' {
            escape(&mut letters, bytes, &mut result)?;
        } else {
            push(&mut result, letter);
        }
    }
    Ok(result)
}

fn push(result: &mut Vec<u8>, letter: char) {
    result.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
}

fn escape(letters: &mut std::str::Chars<'_>, bytes: bool, result: &mut Vec<u8>) -> Result<(), &'static str> {
    let kind = letters.next().ok_or("unable to unescape string, found '\\' as last character")?;
    let plain = match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        '\\' | '\'' | '"' | '`' | '?' => u8::try_from(kind).unwrap_or_default(),
        'x' | 'X' => return code(digits(letters, 2, 16, NOT_A_STRING)?, bytes, result),
        'u' | 'U' if bytes => return Err(NOT_A_STRING),
        'u' => return code(digits(letters, 4, 16, NOT_A_STRING)?, false, result),
        'U' => return code(digits(letters, 8, 16, NOT_A_STRING)?, false, result),
        '0'..='3' => {
            let first = kind.to_digit(8).unwrap_or_default();
            let rest = digits(letters, 2, 8, "unable to unescape octal sequence in string")?;
            return code(first * 64 + rest, bytes, result);
        }
        _ => return Err(NOT_A_STRING),
    };
    result.push(plain);
    Ok(())
}

fn digits(
    letters: &mut std::str::Chars<'_>,
    count: usize,
    base: u32,
    error: &'static str,
) -> Result<u32, &'static str> {
    let mut number = 0_u32;
    for _ in 0..count {
        let digit = letters.next().and_then(|letter| letter.to_digit(base)).ok_or(error)?;
        number = number.wrapping_mul(base).wrapping_add(digit);
    }
    Ok(number)
}

/// In bytes an escape is a byte, in strings a code point.
fn code(number: u32, bytes: bool, result: &mut Vec<u8>) -> Result<(), &'static str> {
    if bytes {
        result.push(u8::try_from(number).map_err(|_| NOT_A_STRING)?);
    } else {
        push(result, char::from_u32(number).ok_or("invalid unicode code point")?);
    }
    Ok(())
}
