//! The text format of Prometheus, version 0.0.4.
//!
//! Source: prometheus.io, "Exposition formats". Labels are our own words and need no escapes.

use std::fmt::{Display, Write as _};

/// A page under way.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
    family: &'static str,
    /// What stands above the first sample of the family: a family without samples is left out.
    head: String,
}

impl Page {
    /// Begins a family.
    pub(crate) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        self.head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample of the family.
    pub(crate) fn sample(&mut self, suffix: &str, labels: &str, value: impl Display) {
        self.text.push_str(&std::mem::take(&mut self.head));
        let _ = match labels {
            "" => writeln!(self.text, "{}{suffix} {value}", self.family),
            labels => writeln!(self.text, "{}{suffix}{{{labels}}} {value}", self.family),
        };
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// A number as Go writes it: with an exponent from a million on.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 1e6 {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{digits}e+{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, text) in
            [(0.005, "0.005"), (1.0, "1"), (60.0, "60"), (131_072.0, "131072"), (1e6, "1e+06"), (1.5e10, "1.5e+10")]
        {
            assert_eq!(number(value), text);
        }
    }
}
