//! Small parts of the server; the streams are tested with real containers.

use super::*;

#[test]
fn queries_are_decoded() {
    let pairs = query(Some("command=sh&command=-c&command=echo+a%26b%20c&tty=1&x"));
    let values: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    assert_eq!(values, ["command:sh", "command:-c", "command:echo a&b c", "tty:1", "x:"]);
}
