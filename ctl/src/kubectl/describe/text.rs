//! Lines of a description, and how values are written in them.

use jiff::Timestamp;
use reeve_api::clock::Clock as _;
use serde_json::Value;

/// The annotation in which `apply` keeps the manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// A longer annotation stands below its name.
const ANNOTATION_MAX: usize = 140;

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

/// Texts joined, or `<none>`.
pub(super) fn joined(all: &[String], separator: &str) -> String {
    if all.is_empty() { "<none>".to_owned() } else { all.join(separator) }
}

/// A number; absent is 0.
pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A truth; absent is `false`.
pub(super) fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
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
    pub(super) fn pairs(&mut self, level: usize, title: &str, value: Option<&Value>) {
        let map = value.and_then(Value::as_object);
        let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", plain(value)));
        self.list(level, title, &lines.collect::<Vec<_>>());
    }

    /// Several lines under one title, which stands before the first; `<none>` for none.
    pub(super) fn list(&mut self, level: usize, title: &str, lines: &[String]) {
        if lines.is_empty() {
            return self.line(level, title, "<none>");
        }
        for (index, line) in lines.iter().enumerate() {
            match index {
                0 => self.line(level, title, line),
                _ => self.0.push_str(&format!("\t{line}\n")),
            }
        }
    }

    /// Name, namespace, labels and annotations.
    pub(super) fn meta(&mut self, object: &Value) {
        self.line(0, "Name", at(object, "/metadata/name"));
        self.line_if(0, "Namespace", at(object, "/metadata/namespace"));
        self.pairs(0, "Labels", object.pointer("/metadata/labels"));
        self.annotations(0, object);
    }

    /// Annotations, without the one that repeats the whole object. Long ones and those of several lines stand below
    /// their names, cut at 140 bytes.
    pub(super) fn annotations(&mut self, level: usize, object: &Value) {
        let all = object.pointer("/metadata/annotations").and_then(Value::as_object);
        let shown = all.into_iter().flatten().filter(|(key, _)| *key != LAST_APPLIED);
        let mut lines = Vec::new();
        for (key, value) in shown {
            let value = plain(value);
            let value = value.strip_suffix('\n').unwrap_or(&value);
            if key.len() + value.len() + 2 > ANNOTATION_MAX || value.contains('\n') {
                lines.push(format!("{key}:"));
                lines.extend(value.split('\n').map(|line| format!("  {}", shortened(line, ANNOTATION_MAX - 2))));
            } else {
                lines.push(format!("{key}: {value}"));
            }
        }
        self.list(level, "Annotations", &lines);
    }

    /// What controls the object, if anything does.
    pub(super) fn controller(&mut self, object: &Value) {
        if let Some(owner) = controller_of(object) {
            self.line(0, "Controlled By", &format!("{}/{}", at(owner, "/kind"), at(owner, "/name")));
        }
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

/// The owner that manages an object.
pub(super) fn controller_of(object: &Value) -> Option<&Value> {
    items(object, "/metadata/ownerReferences").iter().find(|own| own.get("controller") == Some(&true.into()))
}

/// The beginning of a text that is longer than so many bytes.
fn shortened(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    if text.len() <= max { text.to_owned() } else { format!("{}...", &text[..end]) }
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
