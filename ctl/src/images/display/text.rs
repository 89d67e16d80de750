//! What others have written, made fit for a place on a terminal that is drawn anew: nothing in it moves the cursor,
//! changes colours or takes more columns than there are. Pure.

/// Columns between the stops of a terminal's tabulator.
const TAB: usize = 8;

/// Where a sequence for the terminal stands that is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// None: this is text.
    No,
    /// After the escape character.
    Begun,
    /// A control sequence, which ends with a letter or the like.
    Control,
    /// A title, a link or the like, which ends with a bell or a string terminator.
    Text,
    /// In such a one, after an escape character.
    EndBegun,
}

/// The line as it would stand there: without sequences for the terminal, and what was written over what.
pub(in crate::images) fn clean(line: &str) -> String {
    let (mut shown, mut columns) = (String::new(), 0);
    let (mut escape, mut returned) = (Escape::No, false);
    for c in line.chars() {
        if escape != Escape::No {
            escape = after(escape, c);
            continue;
        }
        match c {
            '\x1b' => escape = Escape::Begun,
            '\u{9b}' => escape = Escape::Control,
            '\r' => returned = true,
            _ if c != '\t' && is_left_out(c) => {}
            _ => {
                if std::mem::take(&mut returned) {
                    shown.clear();
                    columns = 0;
                }
                let wide = if c == '\t' { TAB - columns % TAB } else { width(c) };
                columns += wide;
                if c == '\t' { shown.push_str(&" ".repeat(wide)) } else { shown.push(c) }
            }
        }
    }
    shown
}

fn after(escape: Escape, c: char) -> Escape {
    match (escape, c) {
        (Escape::Begun, '[') => Escape::Control,
        (Escape::Begun, ']' | 'P' | 'X' | '^' | '_') => Escape::Text,
        // Two characters, or more with such in between.
        (Escape::Begun, ' '..='/') => Escape::Begun,
        (Escape::Control, '@'..='~') => Escape::No,
        (Escape::Control, _) => Escape::Control,
        (Escape::Text | Escape::EndBegun, '\x07' | '\u{9c}') | (Escape::EndBegun, '\\') => Escape::No,
        (Escape::Text | Escape::EndBegun, '\x1b') => Escape::EndBegun,
        (Escape::Text | Escape::EndBegun, _) => Escape::Text,
        (Escape::Begun | Escape::No, _) => Escape::No,
    }
}

/// The beginning of a text that takes so many columns at most, and how many it takes.
pub(super) fn cut(text: &str, columns: usize) -> (&str, usize) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        if used + width(c) > columns {
            return (text.get(..at).unwrap_or_default(), used);
        }
        used += width(c);
    }
    (text, used)
}

/// What does something and shows nothing: control characters, and what turns the direction of writing.
fn is_left_out(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// How many columns a character takes. Rather too many where terminals differ: a line that is cut early does no harm,
/// one that is too long moves all others.
fn width(c: char) -> usize {
    match c {
        _ if is_left_out(c) => 0,
        // Accents upon the one before, and variants of it.
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        // Scripts of East Asia, and pictures.
        '\u{1100}'..='\u{115f}' | '\u{231a}'..='\u{231b}' | '\u{23e9}'..='\u{23fa}' => 2,
        '\u{2600}'..='\u{27bf}' | '\u{2b1b}'..='\u{2b55}' | '\u{2e80}'..='\u{303e}' | '\u{3041}'..='\u{a4cf}' => 2,
        '\u{a960}'..='\u{a97c}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe10}'..='\u{fe6f}' => 2,
        '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{16fe0}'..='\u{1b2ff}' => 2,
        '\u{1f000}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_the_cursor_or_colour_the_terminal_is_left_out() {
        for (line, shown) in [
            ("plain", "plain"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b[2J\x1b[Hgone", "gone"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bP1;2|41\x1b\\a", "a"),
            ("\x1b(Ba\x1b7b\x1bcc", "abc"),
            ("a\u{9b}31mb", "ab"),
            ("a\x07\x08\x00\u{85}b", "ab"),
            ("never closed \x1b]0;title", "never closed "),
            ("never closed \x1b[12;", "never closed "),
            ("left\u{202e}right\u{200b}", "leftright"),
        ] {
            assert_eq!(clean(line), shown, "{line:?}");
        }
    }

    #[test]
    fn a_line_that_is_written_over_shows_what_was_written_last() {
        assert_eq!(clean("10%\r20%\r30%"), "30%");
        assert_eq!(clean("done\r"), "done");
        assert_eq!(clean("10%\r\x1b[K\r"), "10%");
    }

    #[test]
    fn a_tabulator_goes_to_its_stop() {
        assert_eq!(clean("a\tb\t\tc"), "a       b               c");
        assert_eq!(clean("界\tb"), "界      b");
    }

    #[test]
    fn a_text_is_cut_where_its_columns_end() {
        assert_eq!(cut("abc", 3), ("abc", 3));
        assert_eq!(cut("abcd", 3), ("abc", 3));
        assert_eq!(cut("界界", 3), ("界", 2));
        assert_eq!(cut("é", 0), ("", 0));
        assert_eq!(cut(&clean("e\u{301}e\u{301}e"), 2), ("e\u{301}e\u{301}", 2));
    }
}
