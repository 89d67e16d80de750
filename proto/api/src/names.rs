//! The syntax of names: DNS labels, label keys and values, ports, config keys; and what is wrong with a bad one.
//!
//! The rules and sentences are those of `k8s.io/apimachinery/pkg/util/validation`. Every check returns the
//! complaints, empty when the text is good. What is not here: which field needs which check (`reeve-kinds`).

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY: &str = "[-._a-zA-Z0-9]+";

/// Longest DNS label and longest name part of a label.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// `must be no more than 63 characters`
#[must_use]
pub fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

/// As [`too_long`], in the words of keys and values of labels.
fn too_many_bytes(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// The rule, examples and the regular expression, in Kubernetes' sentence.
fn regex_complaint(rule: &str, regex: &str, examples: &[&str]) -> String {
    let mut text = format!("{rule} (e.g. ");
    for (index, example) in examples.iter().enumerate() {
        if index > 0 {
            text.push_str(" or ");
        }
        text.push_str(&format!("'{example}', "));
    }
    text.push_str(&format!("regex used for validation is '{regex}')"));
    text
}

fn is_lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_dns_label_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            is_lower_or_digit(first)
                && is_lower_or_digit(last)
                && bytes.iter().all(|&byte| is_lower_or_digit(byte) || byte == b'-')
        }
        _ => false,
    }
}

fn is_subdomain_form(text: &str) -> bool {
    text.split('.').all(is_dns_label_form)
}

fn is_qualified_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        }
        _ => false,
    }
}

/// A DNS label of RFC 1123: `my-name`.
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_MAX {
        complaints.push(too_long(LABEL_MAX));
    }
    if !is_dns_label_form(text) {
        complaints.push(if is_subdomain_form(text) {
            "must not contain dots".to_owned()
        } else {
            regex_complaint(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    complaints
}

/// A DNS subdomain of RFC 1123: `example.com`.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        complaints.push(too_long(SUBDOMAIN_MAX));
    }
    if !is_subdomain_form(text) {
        complaints.push(regex_complaint(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    complaints
}

/// A DNS subdomain whose first label is `*`: `*.example.com`.
#[must_use]
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        complaints.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain_form) {
        complaints.push(regex_complaint(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    complaints
}

/// As [`dns1123_subdomain`], with underscores allowed: what a resolver looks names up in.
#[must_use]
pub fn dns1123_subdomain_with_underscore(text: &str) -> Vec<String> {
    const LABEL: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        complaints.push(too_long(SUBDOMAIN_MAX));
    }
    let is_label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        !label.starts_with('_') && !label.ends_with('_') && is_dns_label_form(&label.replace('_', "-"))
    };
    if !text.split('.').all(is_label) {
        complaints.push(regex_complaint(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character",
            &format!("{LABEL}(\\.{LABEL})*"),
            &["example.com"],
        ));
    }
    complaints
}

/// A DNS label of RFC 1035, which starts with a letter: `my-name`.
#[must_use]
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_MAX {
        complaints.push(too_long(LABEL_MAX));
    }
    if !is_dns_label_form(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        complaints.push(regex_complaint(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            DNS1035_LABEL,
            &["my-name", "abc-123"],
        ));
    }
    complaints
}

/// A qualified name: the key of a label, an annotation, a resource (`example.com/MyName`).
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    const RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut complaints = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            let complaint = regex_complaint(RULE, QUALIFIED_NAME, EXAMPLES);
            return vec![format!(
                "a valid label key {complaint} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            complaints.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            let told = dns1123_subdomain(prefix);
            let told = told
                .iter()
                .map(|complaint| complaint.replace(&too_long(SUBDOMAIN_MAX), &too_many_bytes(SUBDOMAIN_MAX)));
            complaints.extend(told.map(|complaint| format!("prefix part {complaint}")));
            name
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        complaints.push(format!("name part {}", too_many_bytes(LABEL_MAX)));
    }
    if !is_qualified_form(name) {
        complaints.push(format!("name part {}", regex_complaint(RULE, QUALIFIED_NAME, EXAMPLES)));
    }
    complaints
}

/// The value of a label.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_MAX {
        complaints.push(too_many_bytes(LABEL_MAX));
    }
    if !text.is_empty() && !is_qualified_form(text) {
        complaints.push(regex_complaint(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            LABEL_VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    complaints
}

/// The name of a port of a container: an IANA service name.
#[must_use]
pub fn port_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 15 {
        complaints.push(too_long(15));
    }
    if text.is_empty() || !text.bytes().all(|byte| is_lower_or_digit(byte) || byte == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// The number of a port.
#[must_use]
pub fn port_number(number: i64) -> Vec<String> {
    if (1..=65535).contains(&number) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

/// The name of an environment variable, as Kubernetes allows it since 1.34.
#[must_use]
pub fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if text.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The key of a ConfigMap or Secret.
#[must_use]
pub fn config_key(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        complaints.push(too_long(SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        complaints.push(regex_complaint(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            CONFIG_KEY,
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => complaints.push("must not be '.'".to_owned()),
        ".." => complaints.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => complaints.push("must not start with '..'".to_owned()),
        _ => {}
    }
    complaints
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    vec![regex_complaint(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// An address, also one with zeros before its numbers, `010.1.1.1`: not good, but readable.
#[must_use]
pub fn sloppy_ip(text: &str) -> Option<std::net::IpAddr> {
    let number = |part: &str| {
        let digits = part.trim_start_matches('0');
        let digits = if digits.is_empty() && !part.is_empty() { "0" } else { digits };
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?.parse::<u8>().ok()
    };
    text.parse().ok().or_else(|| {
        let parts: Option<Vec<u8>> = text.split('.').map(number).collect();
        <[u8; 4]>::try_from(parts?).ok().map(std::net::IpAddr::from)
    })
}

fn is_mapped(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(six) if six.to_ipv4_mapped().is_some())
}

/// An IP address, not necessarily in its canonical form.
#[must_use]
pub fn ip(text: &str) -> Vec<String> {
    let complaint = match sloppy_ip(text) {
        None => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        Some(_) if text.parse::<std::net::IpAddr>().is_err() => "must not have leading 0s",
        Some(address) if is_mapped(address) => "must not be an IPv4-mapped IPv6 address",
        Some(_) => return Vec::new(),
    };
    vec![complaint.to_owned()]
}

/// An IP address in its canonical form.
#[must_use]
pub fn canonical_ip(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) if !is_mapped(address) && address.to_string() != text => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        _ => ip(text),
    }
}

/// A range of IP addresses, `10.9.8.0/24`.
#[must_use]
pub fn cidr(text: &str) -> Vec<String> {
    let Some((address, bits)) = parse_cidr(text) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    let (start, plain) = text.split_once('/').unwrap_or_default();
    if start.parse::<std::net::IpAddr>().is_err() || (plain.len() > 1 && plain.starts_with('0')) {
        return vec!["must not have leading 0s in IP or prefix length".to_owned()];
    }
    if is_mapped(address) {
        return vec!["must not have an IPv4-mapped IPv6 address".to_owned()];
    }
    if !is_network(address, width(address) - bits) {
        return vec!["must not have bits set beyond the prefix length".to_owned()];
    }
    Vec::new()
}

/// A range of IP addresses in its canonical form.
#[must_use]
pub fn canonical_cidr(text: &str) -> Vec<String> {
    let complaints = cidr(text);
    match cidr_in_canonical_form(text) {
        Some(canonical) if complaints.is_empty() && canonical != text => {
            vec![format!("must be in canonical form (\"{canonical}\")")]
        }
        _ => complaints,
    }
}

/// The address of an interface with the length of its network's prefix, `10.9.8.7/24`, in its canonical form.
#[must_use]
pub fn interface_address(text: &str) -> Vec<String> {
    match cidr_in_canonical_form(text) {
        None => vec!["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned()],
        Some(canonical) if canonical != text => vec![format!("must be in canonical form (\"{canonical}\")")],
        Some(_) => Vec::new(),
    }
}

/// What to say of a range that is taken but not in the form it should have.
#[must_use]
pub fn cidr_warning(text: &str) -> Option<String> {
    let canonical = cidr_in_canonical_form(text).filter(|canonical| canonical != text && canonical.contains(':'))?;
    Some(format!("IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{canonical}\")"))
}

fn cidr_in_canonical_form(text: &str) -> Option<String> {
    parse_cidr(text).map(|(address, bits)| format!("{address}/{bits}"))
}

/// The address and the length of the prefix of a range, also one with zeros before its numbers.
#[must_use]
pub fn parse_cidr(text: &str) -> Option<(std::net::IpAddr, u32)> {
    let (start, bits) = text.split_once('/')?;
    let address = sloppy_ip(start)?;
    let plain = bits.bytes().all(|byte| byte.is_ascii_digit()).then_some(bits)?;
    Some((address, plain.parse().ok().filter(|bits| *bits <= width(address))?))
}

/// Whether `inner` is a part of `outer`, and smaller. Both are ranges as [`parse_cidr`] gives them.
#[must_use]
pub fn is_strict_subset(inner: (std::net::IpAddr, u32), outer: (std::net::IpAddr, u32)) -> bool {
    let ((inner, bits), (outer, shorter)) = (inner, outer);
    if inner.is_ipv4() != outer.is_ipv4() || shorter >= bits {
        return false;
    }
    let free = width(outer) - shorter;
    let start = |address| if free >= 128 { 0 } else { number(address) >> free };
    start(inner) == start(outer)
}

/// How many bits an address has.
fn width(address: std::net::IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(four) => u128::from(u32::from(four)),
        std::net::IpAddr::V6(six) => u128::from(six),
    }
}

/// Whether the last `free` bits of an address are zero.
fn is_network(address: std::net::IpAddr, free: u32) -> bool {
    free == 0 || number(address) & (u128::MAX >> (128 - free)) == 0
}

/// What to say of an address that is taken but not in the form it should have.
#[must_use]
pub fn ip_warning(text: &str) -> Option<String> {
    let address = sloppy_ip(text)?;
    if text.parse::<std::net::IpAddr>().is_err() || is_mapped(address) {
        return Some(format!("non-standard IP address \"{text}\" is invalid: use \"{}\"", address.to_canonical()));
    }
    (address.is_ipv6() && address.to_string() != text)
        .then(|| format!("IPv6 address \"{text}\" should be in RFC 5952 canonical format (\"{address}\")"))
}

/// A cron-like percentage, `25%`; gives the number.
#[must_use]
pub fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_form_and_their_parts() {
        assert_eq!(canonical_cidr("2001:DB8::/64"), ["must be in canonical form (\"2001:db8::/64\")"]);
        assert!(canonical_cidr("10.0.0.0/8").is_empty());
        assert_eq!(canonical_cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert!(cidr_warning("10.0.0.0/8").is_none() && cidr_warning("2001:DB8::/64").is_some());
        let subset = |inner, outer| is_strict_subset(parse_cidr(inner).unwrap(), parse_cidr(outer).unwrap());
        assert!(subset("10.1.0.0/16", "10.0.0.0/8") && subset("2001:db8::/65", "2001:db8::/64"));
        assert!(!subset("10.0.0.0/8", "10.0.0.0/8") && !subset("11.0.0.0/16", "10.0.0.0/8"));
        assert!(subset("::/1", "::/0") && !subset("::/64", "0.0.0.0/0"));
        assert!(wildcard_subdomain("*.a.b").is_empty() && !wildcard_subdomain("*a.b").is_empty());
    }

    #[test]
    fn good_names_have_no_complaints() {
        assert!(dns1123_label("a-1").is_empty());
        assert!(dns1123_subdomain("a.b-c.d1").is_empty());
        assert!(dns1035_label("web").is_empty());
        assert!(qualified_name("app.kubernetes.io/Name_x").is_empty());
        assert!(label_value("").is_empty());
        assert!(label_value("v1.2_x").is_empty());
        assert!(port_name("http-2").is_empty());
        assert!(config_key("app.conf").is_empty());
        assert!(env_name("my.odd-name").is_empty());
    }

    #[test]
    fn bad_names_are_refused_in_kubernetes_words() {
        assert_eq!(
            dns1123_subdomain("Web"),
            ["a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
              must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            qualified_name("-x"),
            ["name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
              alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
              '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"]
        );
        assert_eq!(port_name("1"), ["must contain at least one letter (a-z)"]);
        assert_eq!(config_key("..x"), ["must not start with '..'"]);
        assert!(!dns1035_label("1web").is_empty());
    }
}
