//! Lines of a description, and how values are written in them.

use jiff::Timestamp;
use reeve_api::clock::Clock as _;
use serde_json::Value;

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// The text at a pointer; empty when there is none.
pub(super) fn at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items at a pointer.
pub(super) fn items<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A value in a line: texts without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `a=b, c=d`, or `<none>`.
pub(super) fn pairs(value: Option<&Value>, separator: &str) -> String {
    let map = value.and_then(Value::as_object);
    let all: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", plain(value))).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(separator) }
}

impl Text {
    /// The finished text.
    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Text as it is.
    pub(super) fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// `Title:  value`, indented by so many levels.
    pub(super) fn line(&mut self, level: usize, title: &str, value: &str) {
        self.0.push_str(&format!("{}{title}:\t{value}\n", "  ".repeat(level)));
    }

    /// The line, unless the value is empty.
    pub(super) fn line_if(&mut self, level: usize, title: &str, value: &str) {
        if !value.is_empty() {
            self.line(level, title, value);
        }
    }

    /// A title over lines of a deeper level.
    pub(super) fn title(&mut self, level: usize, title: &str) {
        self.0.push_str(&format!("{}{title}:\n", "  ".repeat(level)));
    }

    /// `Labels:` and their like: one pair per line, the title before the first.
    pub(super) fn pairs(&mut self, level: usize, title: &str, value: Option<&Value>, separator: &str) {
        let map = value.and_then(Value::as_object).filter(|map| !map.is_empty());
        let Some(map) = map else { return self.line(level, title, "<none>") };
        for (index, (key, value)) in map.iter().enumerate() {
            let title = if index == 0 { format!("{title}:") } else { String::new() };
            let value = plain(value).trim_end().replace('\n', " ");
            self.0.push_str(&format!("{}{title}\t{key}{separator}{value}\n", "  ".repeat(level)));
        }
    }

    /// Name, namespace, labels and annotations.
    pub(super) fn meta(&mut self, object: &Value) {
        self.line(0, "Name", at(object, "/metadata/name"));
        self.line_if(0, "Namespace", at(object, "/metadata/namespace"));
        self.pairs(0, "Labels", object.pointer("/metadata/labels"), "=");
        self.annotations(object);
    }

    /// Annotations, without the one that repeats the whole object.
    pub(super) fn annotations(&mut self, object: &Value) {
        let mut shown = object.pointer("/metadata/annotations").cloned().unwrap_or_default();
        if let Some(map) = shown.as_object_mut() {
            map.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        self.pairs(0, "Annotations", Some(&shown), ": ");
    }

    /// A table of conditions with these fields.
    pub(super) fn conditions(&mut self, object: &Value, fields: &[&str]) {
        let conditions = items(object, "/status/conditions");
        if conditions.is_empty() {
            return;
        }
        let heading = |field: &&str| {
            let mut chars = field.chars();
            chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect::<String>())
        };
        let rule = |field: &&str| "-".repeat(field.len());
        let row = |cells: Vec<String>| format!("  {}\n", cells.join("\t"));
        self.title(0, "Conditions");
        self.raw(&row(fields.iter().map(heading).collect()));
        self.raw(&row(fields.iter().map(rule).collect()));
        for condition in conditions {
            let cell = |field: &&str| match *field {
                time if time.ends_with("Time") => date(at(condition, &format!("/{time}"))),
                field => at(condition, &format!("/{field}")).to_owned(),
            };
            self.raw(&row(fields.iter().map(cell).collect()));
        }
    }
}

/// `Fri, 20 Nov 2026 14:05:00 +0000`
pub(super) fn date(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// `5m`, `3h20m`: as ages are shown in tables.
pub(super) fn age(text: &str) -> String {
    let Ok(then) = text.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = reeve_api::clock::RealClock::new().now().duration_since(then).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..=10799 => format!("{minutes}m"),
        10800..=28799 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10800..=172_799 => format!("{hours}h"),
        172_800..=691_199 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// When an event was seen last.
pub(crate) fn time_of_event(event: &Value) -> String {
    let times =
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp", "/metadata/creationTimestamp"];
    times.iter().map(|pointer| at(event, pointer)).find(|time| !time.is_empty()).unwrap_or_default().to_owned()
}

/// `5s (x3 over 2m)`
pub(crate) fn age_of_event(event: &Value) -> String {
    let last = age(&time_of_event(event));
    let count = event.pointer("/count").and_then(Value::as_i64).unwrap_or(1);
    let first = at(event, "/firstTimestamp");
    if count > 1 && !first.is_empty() { format!("{last} (x{count} over {})", age(first)) } else { last }
}
