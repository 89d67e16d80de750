//! Links in HTML, rewritten piece by piece while it passes. Pure.
//!
//! What is a tag and what is an attribute follows the tokenizer of `golang.org/x/net/html`, which Kubernetes uses;
//! which attributes hold links follows `k8s.io/apimachinery/pkg/util/proxy`. Unlike there, nothing but the tag at hand
//! is kept in memory.

use std::fmt::Write as _;

/// Longest tag that is understood; a longer one passes as it is.
const TAG_BYTES_MAX: usize = 64 * 1024;

/// Tags and those of their attributes that hold a URL.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text, whatever it looks like.
const RAW: [&str; 10] =
    ["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// The characters that Go escapes in attributes, with the names they are known by.
const ENTITIES: [(&str, char); 5] = [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\'')];

/// Where in the text the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Text,
    /// Behind `<`.
    Open,
    /// Behind `</`.
    OpenEnd,
    /// Behind `<!`, with so many dashes seen.
    Declaration(u8),
    /// In a comment, with so many dashes seen.
    Comment(u8),
    /// Up to the next `>`, whatever comes.
    Bogus,
    /// In an element whose content is text; so many bytes of its end tag have been seen.
    Raw(usize),
    Tag(InTag),
}

/// Where in a start tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InTag {
    Name,
    Before,
    Key,
    AfterKey,
    BeforeValue,
    Quoted(u8),
    Unquoted,
    /// Too long to be understood; the quote it is in, or 0.
    TooLong(u8),
}

/// An attribute as it is written.
#[derive(Debug, Default)]
struct Attribute {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A start tag as far as it has been read.
#[derive(Debug, Default)]
struct Tag {
    raw: Vec<u8>,
    name: Vec<u8>,
    attributes: Vec<Attribute>,
    is_closed: bool,
}

/// Rewrites links with `F`, which gives `None` for what stays as it is.
pub(super) struct Rewriter<F> {
    rewrite: F,
    at: At,
    tag: Tag,
    /// Lower-case name of the element whose content is text.
    raw: String,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x0c)
}

impl<F: Fn(&str) -> Option<String>> Rewriter<F> {
    pub(super) fn new(rewrite: F) -> Self {
        Self { rewrite, at: At::Text, tag: Tag::default(), raw: String::new() }
    }

    /// Takes the next piece and appends what can be said already.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for &byte in piece {
            match self.at {
                At::Tag(at) => self.in_tag(at, byte, out),
                _ => self.outside(byte, out),
            }
        }
    }

    /// What is left when there is nothing more: a tag without an end is dropped, as Go's tokenizer drops it.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self.at {
            At::Open => out.push(b'<'),
            At::OpenEnd => out.extend_from_slice(b"</"),
            _ => {}
        }
        self.at = At::Text;
        self.tag = Tag::default();
    }

    fn outside(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.at = match (self.at, byte) {
            (At::Text, b'<') => return self.at = At::Open,
            (At::Open, b'a'..=b'z' | b'A'..=b'Z') => {
                self.tag = Tag { raw: vec![b'<', byte], name: vec![byte], ..Tag::default() };
                return self.at = At::Tag(InTag::Name);
            }
            (At::Open, b'/') => return self.at = At::OpenEnd,
            (At::Open, b'!') => {
                out.push(b'<');
                At::Declaration(0)
            }
            (At::Open, b'?') => {
                out.push(b'<');
                At::Bogus
            }
            (At::Open, b'<') => {
                out.push(b'<');
                return;
            }
            (At::Open, _) => {
                out.push(b'<');
                At::Text
            }
            (At::OpenEnd, b'>') => {
                out.extend_from_slice(b"</");
                At::Text
            }
            (At::OpenEnd, _) => {
                out.extend_from_slice(b"</");
                At::Bogus
            }
            (At::Declaration(0), b'-') => At::Declaration(1),
            // `<!-->` is a whole comment.
            (At::Declaration(1), b'-') => At::Comment(2),
            (At::Declaration(_) | At::Bogus, b'>') => At::Text,
            (At::Declaration(_), _) => At::Bogus,
            (At::Comment(dashes), b'-') => At::Comment(dashes.saturating_add(1)),
            (At::Comment(2..), b'>') => At::Text,
            (At::Comment(2..), b'!') => At::Comment(2),
            (At::Comment(_), _) => At::Comment(0),
            (At::Raw(seen), _) => self.in_raw(seen, byte),
            (at, _) => at,
        };
        out.push(byte);
    }

    /// Looks for the end tag of an element whose content is text.
    fn in_raw(&self, seen: usize, byte: u8) -> At {
        let name = self.raw.as_bytes();
        let wanted = match seen {
            0 => Some(b'<'),
            1 => Some(b'/'),
            _ => name.get(seen - 2).copied(),
        };
        match wanted {
            Some(wanted) if byte.to_ascii_lowercase() == wanted => At::Raw(seen + 1),
            None if byte == b'>' => At::Text,
            None if is_space(byte) || byte == b'/' => At::Bogus,
            _ if byte == b'<' => At::Raw(1),
            _ => At::Raw(0),
        }
    }

    fn in_tag(&mut self, at: InTag, byte: u8, out: &mut Vec<u8>) {
        if let InTag::TooLong(quote) = at {
            out.push(byte);
            self.at = match (quote, byte) {
                (0, b'>') => At::Text,
                (0, b'"' | b'\'') => At::Tag(InTag::TooLong(byte)),
                (quote, byte) if quote == byte => At::Tag(InTag::TooLong(0)),
                _ => self.at,
            };
            return;
        }
        self.tag.raw.push(byte);
        let next = self.tag.step(at, byte);
        match next {
            Some(_) if self.tag.raw.len() > TAG_BYTES_MAX => {
                out.append(&mut self.tag.raw);
                let quote = if let Some(InTag::Quoted(quote)) = next { quote } else { 0 };
                self.at = At::Tag(InTag::TooLong(quote));
                self.tag = Tag::default();
            }
            Some(next) => self.at = At::Tag(next),
            None => self.end_tag(out),
        }
    }

    fn end_tag(&mut self, out: &mut Vec<u8>) {
        let tag = std::mem::take(&mut self.tag);
        let name = String::from_utf8_lossy(&tag.name).to_ascii_lowercase();
        let links = LINKS.iter().find(|(own, _)| *own == name).map_or(&[][..], |(_, keys)| keys);
        let mut text = format!("<{name}");
        for attribute in tag.attributes.iter().filter(|attribute| !attribute.key.is_empty()) {
            let key = String::from_utf8_lossy(&attribute.key).to_ascii_lowercase();
            let value = self.value(&attribute.value, links.contains(&key.as_str()));
            let _ = write!(text, " {key}=\"{value}\"");
        }
        text.push_str(if tag.is_closed { "/>" } else { ">" });
        out.extend_from_slice(text.as_bytes());
        self.at = At::Text;
        if RAW.contains(&name.as_str()) {
            self.raw = name;
            self.at = At::Raw(0);
        }
    }

    /// An attribute's value as it is written behind the rewriting.
    fn value(&self, raw: &[u8], is_link: bool) -> String {
        let raw = String::from_utf8_lossy(raw).replace("\r\n", "\n").replace('\r', "\n");
        let meant = unescape(&raw);
        let text = meant.as_deref().unwrap_or(&raw);
        let new = if is_link { (self.rewrite)(text) } else { None };
        escape(new.as_deref().unwrap_or(text), meant.is_some())
    }
}

impl Tag {
    /// The place behind `byte`; `None` when the tag is complete.
    fn step(&mut self, at: InTag, byte: u8) -> Option<InTag> {
        let was_closed = std::mem::take(&mut self.is_closed);
        let next = match (at, byte) {
            (InTag::Quoted(quote), byte) if quote == byte => InTag::Before,
            (InTag::Quoted(_), _) => {
                self.add_to_value(byte);
                at
            }
            (InTag::Unquoted, byte) if is_space(byte) => InTag::Before,
            (_, b'>') => {
                // `<br/>` is closed in itself; `<br / x>` is not.
                self.is_closed = was_closed;
                return None;
            }
            (InTag::Unquoted, _) => {
                self.add_to_value(byte);
                at
            }
            (InTag::BeforeValue, b'"' | b'\'') => InTag::Quoted(byte),
            (InTag::BeforeValue, byte) if is_space(byte) => at,
            (InTag::BeforeValue, _) => {
                self.add_to_value(byte);
                InTag::Unquoted
            }
            (InTag::Name | InTag::Before | InTag::Key | InTag::AfterKey, b'/') => {
                self.is_closed = true;
                InTag::Before
            }
            (InTag::Key | InTag::AfterKey, b'=') => InTag::BeforeValue,
            (InTag::Name, byte) if is_space(byte) => InTag::Before,
            (InTag::Key, byte) if is_space(byte) => InTag::AfterKey,
            (InTag::Before | InTag::AfterKey, byte) if is_space(byte) => at,
            (InTag::Before | InTag::AfterKey, _) => {
                self.attributes.push(Attribute { key: vec![byte], value: Vec::new() });
                InTag::Key
            }
            (InTag::Name, _) => {
                self.name.push(byte);
                at
            }
            (InTag::Key, _) => {
                if let Some(last) = self.attributes.last_mut() {
                    last.key.push(byte);
                }
                at
            }
            (InTag::TooLong(_), _) => at,
        };
        Some(next)
    }

    fn add_to_value(&mut self, byte: u8) {
        if let Some(last) = self.attributes.last_mut() {
            last.value.push(byte);
        }
    }
}

/// The text that an attribute's value stands for; `None` when it holds a named character that is not known here, and
/// is better left as it is.
fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        out.push_str(rest.get(..at)?);
        let behind = rest.get(at + 1..)?;
        let end = behind.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '#').unwrap_or(behind.len());
        let (name, after) = behind.split_at(end);
        let entity = if after.starts_with(';') { character(name) } else { None };
        match entity {
            Some(letter) => {
                out.push(letter);
                rest = after.get(1..)?;
            }
            None if name.is_empty() || after.starts_with('=') => {
                out.push('&');
                rest = behind;
            }
            None => return None,
        }
    }
    out.push_str(rest);
    Some(out)
}

fn character(name: &str) -> Option<char> {
    let Some(number) = name.strip_prefix('#') else {
        return ENTITIES.iter().find(|(own, _)| *own == name).map(|(_, letter)| *letter);
    };
    let hex = number.strip_prefix(['x', 'X']);
    let code = hex.map_or_else(|| number.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())?;
    // Below stand controls, and what old pages mean by the codes of Windows' own letters.
    char::from_u32(code).filter(|_| code >= 0xa0 || (0x20..0x7f).contains(&code))
}

fn escape(text: &str, ampersands: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' if ampersands => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\r' => out.push_str("&#13;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &[u8], size: usize) -> String {
        let below = |url: &str| url.starts_with('/').then(|| format!("/proxy{url}"));
        let mut rewriter = Rewriter::new(below);
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            rewriter.push(piece, &mut out);
        }
        rewriter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(given: &str, wanted: &str) {
        for size in [1, 2, 3, 7, 4096] {
            assert_eq!(run(given.as_bytes(), size), wanted, "{given} in pieces of {size}");
        }
    }

    #[test]
    fn links_of_known_tags_are_rewritten_and_nothing_else() {
        check("<a href=\"/rewriteme\">test</a>", "<a href=\"/proxy/rewriteme\">test</a>");
        check("<A HREF='/x' b c=d>/x</A>", "<a href=\"/proxy/x\" b=\"\" c=\"d\">/x</A>");
        check("<img src=/a.png /><br/>", "<img src=\"/proxy/a.png\"/><br/>");
        check("<a href=/x/>", "<a href=\"/proxy/x/\">");
        check("<div href=\"/x\">a < b << c</div>", "<div href=\"/x\">a < b << c</div>");
        check("<input src=/a usemap=\"/b\" value=\"/c\">", "<input src=\"/proxy/a\" usemap=\"/proxy/b\" value=\"/c\">");
    }

    #[test]
    fn what_only_looks_like_a_tag_passes_as_it_is() {
        check("<!-- <a href=\"/x\"> --><a href=/y>", "<!-- <a href=\"/x\"> --><a href=\"/proxy/y\">");
        check("<!--><a href=/y>", "<!--><a href=\"/proxy/y\">");
        check("<!DOCTYPE html><p>", "<!DOCTYPE html><p>");
        check("<?xml <a href=/x ?><b>", "<?xml <a href=/x ?><b>");
        check(
            "<script>'<a href=\"/x\">' </scr </script><a href=/y>",
            "<script>'<a href=\"/x\">' </scr </script><a href=\"/proxy/y\">",
        );
        check("<style><a href=\"/x\"></STYLE ><a href=/y>", "<style><a href=\"/x\"></STYLE ><a href=\"/proxy/y\">");
        check("<script src=\"/s.js\"></script>", "<script src=\"/proxy/s.js\"></script>");
    }

    #[test]
    fn characters_keep_their_meaning() {
        check("<a href=\"/x?a=1&amp;b='2'\">", "<a href=\"/proxy/x?a=1&amp;b=&#39;2&#39;\">");
        check("<a href=\"/x?a=1&b=2\">", "<a href=\"/proxy/x?a=1&amp;b=2\">");
        check("<a href=\"/x?a=&copy;&amp;c\">", "<a href=\"/proxy/x?a=&copy;&amp;c\">");
        check("<a title='\"'>", "<a title=\"&#34;\">");
        check("<a href=\"&#x2F;x\">", "<a href=\"/proxy/x\">");
    }

    #[test]
    fn a_tag_without_an_end_is_neither_kept_for_ever_nor_changed() {
        let long = format!("<a b=\"{}\" href=/x>", "y".repeat(TAG_BYTES_MAX));
        assert_eq!(run(long.as_bytes(), 1000), long);
        check("text<a href=\"/x\"", "text");
        check("text<", "text<");
    }
}
