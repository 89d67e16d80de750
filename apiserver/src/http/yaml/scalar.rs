//! How one text is written in YAML: as it is, in quotes, or as lines of its own. What is chosen is what Go's writer
//! (`yaml.v2`) chooses, which follows YAML 1.1: clients compare files that Kubernetes has written.

use super::Out;

/// A line that is longer is broken at its next single space.
const WIDTH: usize = 80;

/// Texts that YAML 1.1 reads as a truth value, nothing or infinity.
const RESERVED: &[&str] = &[
    "", "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N", "no", "No", "NO", "false",
    "False", "FALSE", "off", "Off", "OFF", "~", "null", "Null", "NULL", ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF",
    "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
];

/// Characters that begin something else than a text.
const INDICATORS: &str = "#,[]{}&*!|>'\"%@`";

/// Where a text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the key of an object: on one line, whatever its length.
    Key,
    /// It is a value; its further lines begin behind so many spaces.
    Value(usize),
}

/// What characters a text has, as far as the ways to write it depend on them.
#[derive(Default)]
struct Traits {
    /// It would be read as something else, or ends another thing.
    indicator: bool,
    /// It has characters that must be escaped.
    special: bool,
    breaks: bool,
    space_at_edge: bool,
    space_at_end: bool,
    space_after_break: bool,
    space_before_break: bool,
}

/// Writes a text.
pub(super) fn write(text: &str, place: Place, out: &mut Out) {
    let traits = traits(text);
    let unquotable = traits.special || traits.space_before_break;
    if text.contains('\n') {
        match place {
            Place::Value(indent) if !unquotable && !traits.space_at_end => literal(text, indent, out),
            _ => double_quoted(text, place, out),
        }
    } else if is_something_else(text) || unquotable {
        double_quoted(text, place, out);
    } else if !traits.indicator && !traits.space_at_edge && !traits.breaks {
        plain(text, place, out);
    } else if traits.space_after_break {
        double_quoted(text, place, out);
    } else {
        single_quoted(text, place, out);
    }
}

/// Whether a text without quotes would be read as a number, a time, a truth value or nothing.
fn is_something_else(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return true };
    if RESERVED.contains(&text) {
        return true;
    }
    match first {
        '0'..='9' | '+' | '-' => is_time(text) || is_number(&text.replace('_', "")) || is_base60(text),
        '.' => is_go_float(text),
        _ => false,
    }
}

fn is_go_float(text: &str) -> bool {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    plain.starts_with(|first: char| first == '.' || first.is_ascii_digit())
        && plain.contains(|letter: char| letter.is_ascii_digit())
        && text.parse::<f64>().is_ok()
}

fn is_number(plain: &str) -> bool {
    let digits = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    let all = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|letter| letter.is_digit(radix));
    let (head, rest) = digits.split_at_checked(2).unwrap_or((digits, ""));
    match head {
        "0x" | "0X" => all(rest, 16),
        "0o" | "0O" => all(rest, 8),
        "0b" | "0B" => all(rest, 2),
        _ => is_go_float(plain),
    }
}

/// `12:30:45`: YAML 1.1 counts so.
fn is_base60(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = text.split('.').next().unwrap_or_default();
    let mut parts = whole.split(':');
    let is_first = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
    let digits = |part: &str| part.chars().all(|letter| letter.is_ascii_digit() || letter == '_');
    let fits = parts.next().is_some_and(|part| is_first(part) && digits(part));
    let mut more = parts.peekable();
    fits && more.peek().is_some()
        && more.all(|part| part.len() <= 2 && part.parse::<u8>().is_ok_and(|number| number < 60))
}

/// `2020-01-01`, with a time of day or without.
fn is_time(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: &str, lengths: &[usize]| {
        lengths.contains(&part.len()) && part.chars().all(|letter| letter.is_ascii_digit())
    };
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (day, time) = rest.split_at(end);
    let clock = time.get(1..).unwrap_or_default();
    let is_clock = clock.contains(':') && clock.starts_with(|first: char| first.is_ascii_digit());
    digits(year, &[4])
        && digits(month, &[1, 2])
        && digits(day, &[1, 2])
        && (time.is_empty() || (time.starts_with(['T', 't', ' ']) && is_clock))
}

fn traits(text: &str) -> Traits {
    let mut traits = Traits {
        indicator: text.starts_with("---") || text.starts_with("..."),
        space_at_end: text.ends_with(' '),
        space_at_edge: text.starts_with([' ', '\n']) || text.ends_with([' ', '\n']),
        ..Traits::default()
    };
    let mut before = ' ';
    let mut letters = text.chars().peekable();
    let mut is_first = true;
    while let Some(letter) = letters.next() {
        let next_is_blank = letters.peek().is_none_or(|next| [' ', '\t', '\n', '\r'].contains(next));
        traits.indicator |= match letter {
            '?' | '-' if is_first => next_is_blank,
            letter if is_first && INDICATORS.contains(letter) => true,
            ':' => next_is_blank,
            '#' => before.is_whitespace(),
            _ => false,
        };
        traits.special |= !is_printable(letter);
        traits.breaks |= letter == '\n';
        traits.space_after_break |= letter == ' ' && before == '\n';
        traits.space_before_break |= letter == '\n' && before == ' ' && !is_first;
        (before, is_first) = (letter, false);
    }
    traits
}

fn is_printable(letter: char) -> bool {
    matches!(letter, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && letter != '\u{feff}'
}

fn plain(text: &str, place: Place, out: &mut Out) {
    folded(text, place, out, |letter, out| out.push(letter), |before, rest| before != ' ' && !rest.starts_with(' '));
}

fn single_quoted(text: &str, place: Place, out: &mut Out) {
    out.push('\'');
    let end = text.len();
    let mut is_first = true;
    folded(
        text,
        place,
        out,
        |letter, out| {
            if letter == '\'' {
                out.push('\'');
            }
            out.push(letter);
        },
        |before, rest| {
            let inside = !std::mem::take(&mut is_first) || rest.len() + 1 < end;
            inside && before != ' ' && !rest.starts_with(' ') && !rest.is_empty()
        },
    );
    out.push('\'');
}

/// Writes letter by letter, and breaks lines that are too long at the spaces that may be broken: asked is the letter
/// before the space and what comes behind it.
fn folded(
    text: &str,
    place: Place,
    out: &mut Out,
    mut put: impl FnMut(char, &mut Out),
    mut may_break: impl FnMut(char, &str) -> bool,
) {
    let mut before = '\0';
    for (at, letter) in text.char_indices() {
        match place {
            Place::Value(indent) if letter == ' ' && out.column > WIDTH && may_break(before, &text[at + 1..]) => {
                out.line(indent);
            }
            _ => put(letter, out),
        }
        before = letter;
    }
}

fn double_quoted(text: &str, place: Place, out: &mut Out) {
    out.push('"');
    let mut before = '\0';
    for (at, letter) in text.char_indices() {
        let rest = &text[at + letter.len_utf8()..];
        match place {
            Place::Value(indent)
                if letter == ' ' && before != ' ' && at > 0 && !rest.is_empty() && out.column > WIDTH =>
            {
                out.line(indent);
                if rest.starts_with(' ') {
                    out.push('\\');
                }
            }
            _ => escaped(letter, out),
        }
        before = letter;
    }
    out.push('"');
}

fn escaped(letter: char, out: &mut Out) {
    let short = match letter {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        _ if is_printable(letter) => return out.push(letter),
        _ => {
            let code = u32::from(letter);
            let text = match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
            return out.put(&text);
        }
    };
    out.push('\\');
    out.push(short);
}

/// As lines of its own behind `|`, with what says how they begin and end.
fn literal(text: &str, indent: usize, out: &mut Out) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text == "\n" || text.ends_with("\n\n") {
        out.push('+');
    }
    out.push('\n');
    let lines = text.strip_suffix('\n').unwrap_or(text);
    for (index, line) in lines.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if !line.is_empty() {
            out.put(&" ".repeat(indent));
            out.put(line);
        }
    }
}
