//! The formats of values that are checked (`format: date-time`).
//!
//! Names and rules are those of `k8s.io/kube-openapi/pkg/validation/strfmt`; others are ignored. Dashes in names do
//! not count. What looks odd (a number for a duration, any text for a password) is so in Kubernetes too.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use jiff::civil::Date;
use reeve_api::names;
use regex::Regex;

use super::schema::Type;

/// A format that means something for the type it stands with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Format {
    /// As it was written.
    pub(crate) name: String,
    rule: Option<&'static str>,
}

/// The formats of texts, without dashes.
const TEXTS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

impl Format {
    /// The format, if values of that type have it.
    pub(crate) fn of(name: &str, kind: Option<Type>) -> Option<Self> {
        let rule = match kind {
            _ if name.is_empty() => return None,
            None | Some(Type::String | Type::IntOrString) => {
                let plain = name.replace('-', "");
                Some(*TEXTS.iter().find(|text| **text == plain)?)
            }
            Some(Type::Integer) if matches!(name, "int32" | "int64") => None,
            Some(Type::Number) if matches!(name, "float" | "double") => None,
            _ => return None,
        };
        Some(Self { name: name.to_owned(), rule })
    }

    /// Whether a text has the format; formats of numbers do not concern texts.
    pub(crate) fn allows(&self, text: &str) -> bool {
        self.rule.is_none_or(|rule| holds(rule, text))
    }
}

fn holds(rule: &str, text: &str) -> bool {
    match rule {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "byte" => base64(text),
        "cidr" => cidr(text),
        "creditcard" => credit_card(text),
        "date" => date(text),
        "datetime" => date_time(text),
        "duration" => duration(text),
        "email" => email(text),
        "hexcolor" => hex_color(text),
        "hostname" => hostname(text),
        "ipv4" => text.contains('.') && names::sloppy_ip(text).is_some(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(short_name),
        "k8sshortname" => text.len() <= 63 && short_name(text),
        "mac" => mac(text),
        "rgbcolor" => rgb_color(text),
        "ssn" => ssn(text),
        "uri" => request_uri(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid(text, rule.as_bytes().get(4).copied()),
        _ => true,
    }
}

/// Standard base64 with padding, at least one group.
fn base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    !text.is_empty() && text.len().is_multiple_of(4) && text.len() - body.len() <= 2 && body.bytes().all(plain)
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Some(address) = names::sloppy_ip(address) else { return false };
    let digits = !length.is_empty() && length.len() <= 3 && length.bytes().all(|b| b.is_ascii_digit());
    digits && length.parse::<u8>().is_ok_and(|length| length <= if address.is_ipv4() { 32 } else { 128 })
}

fn credit_card(text: &str) -> bool {
    static CARD: OnceLock<Option<Regex>> = OnceLock::new();
    const PATTERN: &str = "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|\
                           3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !CARD.get_or_init(|| Regex::new(PATTERN).ok()).as_ref().is_some_and(|regex| regex.is_match(&digits)) {
        return false;
    }
    let luhn = |(index, digit): (usize, u8)| {
        let digit = u32::from(digit - b'0');
        if index % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
    };
    digits.bytes().rev().enumerate().map(luhn).sum::<u32>().is_multiple_of(10)
}

/// `2006-01-02`
pub(crate) fn date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let number = |from: usize, to: usize| -> Option<i16> {
        Some(&text.get(from..to)?).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
    };
    let (Some(year), Some(month), Some(day)) = (number(0, 4), number(5, 7), number(8, 10)) else { return false };
    let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day)) else { return false };
    Date::new(year, month, day).is_ok()
}

/// `2006-01-02T15:04:05.000Z`; what follows a second `t` is not looked at.
pub(crate) fn date_time(text: &str) -> bool {
    static TIME: OnceLock<Option<Regex>> = OnceLock::new();
    const PATTERN: &str = "^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(day), Some(time)) = (parts.next(), parts.next()) else { return false };
    let Some(regex) = TIME.get_or_init(|| Regex::new(PATTERN).ok()).as_ref() else { return false };
    date(day) && regex.captures(time).is_some_and(|found| &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59")
}

/// A Go duration, or numbers with units anywhere in the text (`22 ns`, `1 day`).
pub(crate) fn duration(text: &str) -> bool {
    go_duration(text) || loose_duration(text)
}

fn go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number = &rest[..digits];
        if number.matches('.').count() > 1 || !number.bytes().any(|b| b.is_ascii_digit()) {
            return false;
        }
        rest = &rest[digits..];
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        if !units.contains(&&rest[..unit_end]) {
            return false;
        }
        rest = &rest[unit_end..];
    }
    true
}

fn loose_duration(text: &str) -> bool {
    static MATCHER: OnceLock<Option<Regex>> = OnceLock::new();
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    let Some(regex) = MATCHER.get_or_init(|| Regex::new(r"([0-9]+)\s*([A-Za-zµ]+)").ok()).as_ref() else {
        return false;
    };
    let mut found = false;
    for captures in regex.captures_iter(text) {
        if captures[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = captures[2].to_lowercase();
        found |= UNITS.iter().any(|variants| {
            let last = variants[variants.len() - 1];
            unit.starts_with(last) || variants.contains(&unit.as_str())
        });
    }
    found
}

/// An address as Go's `mail.ParseAddress` takes it, in its usual forms: `a@b`, `Name <a@b>`.
fn email(text: &str) -> bool {
    let text = text.trim();
    let address = match (text.find('<'), text.strip_suffix('>')) {
        (Some(start), Some(inner)) => &inner[start + 1..],
        (None, None) => text,
        _ => return false,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        let plain = |c: char| c.is_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        !part.is_empty() && part.chars().all(plain)
    };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let domain_good = match literal {
        Some(address) => {
            address.parse::<Ipv4Addr>().is_ok() || address.trim_start_matches("IPv6:").parse::<Ipv6Addr>().is_ok()
        }
        None => domain.split('.').all(atom),
    };
    (quoted || local.split('.').all(atom)) && domain_good
}

fn hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A host name; signs and letters of any script count as letters.
fn hostname(text: &str) -> bool {
    // Unicode's general category S is not at hand: everything above ASCII that is no space or control passes.
    let sign = |c: char| {
        c.is_ascii_alphanumeric() || "$+<=>^`|~".contains(c) || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
    };
    let letter = |c: char| c.is_alphabetic();
    let parts: Vec<_> = text.split('.').collect();
    if text.is_empty() || text.len() > 255 || parts.iter().any(|part| part.len() > 63) {
        return false;
    }
    let segment = |part: &&str| {
        let inner = |c: char| sign(c) || c == '-';
        part.chars().all(inner) && part.starts_with(sign) && part.ends_with(sign)
    };
    match parts.as_slice() {
        [one] => {
            let (first, rest) = one.split_at(one.chars().next().map_or(0, char::len_utf8));
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            first.chars().all(sign) && rest.chars().all(sign)
        }
        [domains @ .., top] => {
            let count = top.chars().count();
            domains.iter().all(segment) && (2..=63).contains(&count) && top.chars().all(letter)
        }
        [] => false,
    }
}

fn isbn_digits(text: &str) -> Vec<u32> {
    let digit = |c: char| if c == 'X' { Some(10) } else { c.to_digit(10) };
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| digit(c).unwrap_or(99)).collect()
}

fn isbn10(text: &str) -> bool {
    let digits = isbn_digits(text);
    let good = digits.len() == 10 && digits[..9].iter().all(|digit| *digit < 10) && digits[9] <= 10;
    good && digits.iter().zip(1..).map(|(digit, weight): (&u32, u32)| digit * weight).sum::<u32>().is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let digits = isbn_digits(text);
    if digits.len() != 13 || digits.iter().any(|digit| *digit > 9) {
        return false;
    }
    let sum: u32 =
        digits[..12].iter().enumerate().map(|(index, digit)| digit * if index % 2 == 0 { 1 } else { 3 }).sum();
    digits[12] == (10 - sum % 10) % 10
}

/// A segment of a Kubernetes name.
pub(crate) fn short_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
    ends && bytes.iter().all(|b| plain(*b) || *b == b'-')
}

/// Pairs of hexadecimal digits with `:` or `-`, or groups of four with `.`; 6, 8 or 20 bytes.
fn mac(text: &str) -> bool {
    let groups = |separator: char, size: usize| {
        let parts: Vec<_> = text.split(separator).collect();
        let bytes = parts.len() * size / 2;
        let hex = |part: &&str| part.len() == size && part.bytes().all(|b| b.is_ascii_hexdigit());
        matches!(bytes, 6 | 8 | 20) && parts.iter().all(hex)
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

fn rgb_color(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let part = |part: &str| {
        let digits = part.trim_matches([' ', '\t', '\n', '\r', '\u{c}']);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain && (digits == "0" || !digits.starts_with('0')) && digits.parse::<u8>().is_ok()
    };
    inner.split(',').count() == 3 && inner.split(',').all(part)
}

/// Eleven characters: three, two and four digits with a dash or a space between.
fn ssn(text: &str) -> bool {
    let bytes = text.as_bytes();
    let sign = |index: usize| bytes[index] == b'-' || bytes[index] == b' ';
    bytes.len() == 11
        && sign(3)
        && sign(6)
        && bytes.iter().enumerate().all(|(index, b)| index == 3 || index == 6 || b.is_ascii_digit())
}

/// What Go's `url.ParseRequestURI` takes: a scheme with something behind it, or an absolute path.
pub(crate) fn request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) || !percent_escapes_good(text) {
        return false;
    }
    if text.starts_with('/') {
        return !text.starts_with("//") || authority_good(text[2..].split('/').next().unwrap_or_default());
    }
    let Some((scheme, rest)) = text.split_once(':') else { return text == "*" };
    let mut letters = scheme.bytes();
    let first = letters.next().is_some_and(|b| b.is_ascii_alphabetic());
    if !first || !letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) {
        return false;
    }
    match rest.strip_prefix("//") {
        Some(after) => authority_good(after.split(['/', '?']).next().unwrap_or_default()),
        None => true,
    }
}

fn percent_escapes_good(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or_default().as_bytes();
    let hex = |index: usize| path.get(index).is_some_and(u8::is_ascii_hexdigit);
    path.iter().enumerate().all(|(index, b)| *b != b'%' || (hex(index + 1) && hex(index + 2)))
}

fn authority_good(authority: &str) -> bool {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port),
        None if host.starts_with('[') => return false,
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port_good = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    port_good && !name.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '}', '|'])
}

/// A UUID; `version` is the digit that marks its version.
fn uuid(text: &str, version: Option<u8>) -> bool {
    let mut rest = text;
    for (index, size) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((group, after)) = rest.split_at_checked(size) else { return false };
        let first = group.as_bytes()[0].to_ascii_lowercase();
        let marked = match (index, version) {
            (2, Some(version)) => first == version,
            (3, Some(b'4' | b'5')) => matches!(first, b'8' | b'9' | b'a' | b'b'),
            _ => true,
        };
        if !marked || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_and_refuse_what_kubernetes_does() {
        for (rule, good, bad) in [
            ("uri", vec!["http://a.b/#c", "mailto:x@y.z", "/abs", "xyz://a"], vec!["", "foobar.com", "./rel", "a b"]),
            ("email", vec!["a@b", "A <a@b.c>"], vec!["a", "@b", "a@b@"]),
            ("hostname", vec!["a", "a-b.example", "1.example"], vec!["a..b", "-a", "a.1", "a_b"]),
            ("ipv4", vec!["1.2.3.4", "001.2.3.4"], vec!["1.2.3", "::1"]),
            ("ipv6", vec!["::1"], vec!["1.2.3.4", ":::1"]),
            ("cidr", vec!["10.0.0.0/8", "::/0"], vec!["10.0.0.0", "10.0.0.0/33"]),
            ("mac", vec!["01:23:45:67:89:ab", "0123.4567.89ab"], vec!["01:23"]),
            (
                "uuid",
                vec!["A8098C1A-F86E-11DA-BD1A-00112444BE1E", "a8098c1af86e11dabd1a00112444be1e"],
                vec!["a8098c1a"],
            ),
            ("uuid4", vec!["025b0d74-00a2-4048-bf57-227c5111bb34"], vec!["a8098c1a-f86e-11da-bd1a-00112444be1e"]),
            ("isbn10", vec!["3836221195", "3 401 01319 X"], vec!["3423214121"]),
            ("isbn13", vec!["978-3-8362-2119-1"], vec!["978-3836221190"]),
            ("creditcard", vec!["4220855426222389", "5139288802098206"], vec!["4220855426213389", ""]),
            ("ssn", vec!["111-11-1111", "111 11 1111"], vec!["111111111"]),
            ("hexcolor", vec!["#FFF", "cccccc"], vec!["#ff"]),
            ("rgbcolor", vec!["rgb(0,  31, 255)"], vec!["rgb(1,349,275)", "rgb(01,31,255)"]),
            ("byte", vec!["YQ==", "YWI="], vec!["", "YQ", "a*=="]),
            ("date", vec!["2024-02-29"], vec!["2023-02-29", "2024-2-1"]),
            (
                "datetime",
                vec!["2024-02-29T23:59:59Z", "2024-01-01t00:00:00.1+01:00"],
                vec!["2024-01-01", "2024-01-01T24:00:00Z"],
            ),
            ("duration", vec!["1h30m", "22 ns", "3 days", "0"], vec!["", "abc", "1"]),
            ("k8sshortname", vec!["a-b"], vec!["a.b", "-a"]),
            ("k8slongname", vec!["a-b.c"], vec!["a..b"]),
        ] {
            for text in good {
                assert!(holds(rule, text), "{text:?} is a {rule}");
            }
            for text in bad {
                assert!(!holds(rule, text), "{text:?} is no {rule}");
            }
        }
    }

    #[test]
    fn a_format_counts_only_for_its_type() {
        assert!(Format::of("date-time", Some(Type::String)).is_some());
        assert!(Format::of("int32", Some(Type::Integer)).is_some());
        for (name, kind) in [("int32", Type::String), ("date", Type::Integer), ("cron", Type::String)] {
            assert!(Format::of(name, Some(kind)).is_none(), "{name}");
        }
    }
}
