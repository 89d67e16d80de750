//! `/statusz` and `/flagz`: what this process is, and how it was set up, for people who look for a fault.
//!
//! As text for people, or as an object of `config.k8s.io` when the client names one; both pages are of one shape. Flags
//! bear kube-apiserver's names, with the values that are in effect here. Source: KEP-4827 and KEP-4828;
//! `pkg/server/statusz` and `pkg/server/flagz` of k8s.io/apiserver.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{ACCEPT, HeaderMap};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::metrics::process_start;
use super::negotiate::{self, Encoding, MediaRange};
use super::response::{self, Answer};
use super::{Api, encode, version};
use crate::registry::meta::time;
use crate::status::ApiError;

/// What other paths lead to on their own: not for debugging.
const NOT_LISTED: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// The encodings of a page, in the order in which a range without preference gets them.
const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", "text/plain"];

/// One of the two pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zpage {
    Status,
    Flags,
}

/// The form a client asks for: text, or an object of that version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    media_type: &'static str,
    version: &'static str,
}

impl Zpage {
    /// The page of that name.
    pub(super) fn at(segment: &str) -> Self {
        if segment == "flagz" { Self::Flags } else { Self::Status }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Status => "statusz",
            Self::Flags => "flagz",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Status => "Statusz",
            Self::Flags => "Flagz",
        }
    }

    /// Text for who says nothing; an object only for who names its kind, group and version.
    fn form(self, headers: &HeaderMap) -> Option<Form> {
        let said = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if said.trim().is_empty() {
            return Some(Form { media_type: "text/plain", version: "" });
        }
        let of_range = |range: &MediaRange<'_>| {
            let version = self.version(range)?;
            let is_text = |media_type: &str| media_type == "text/plain";
            let mut fitting = MEDIA_TYPES.into_iter().filter(|one| is_text(one) == version.is_empty());
            let media_type = fitting.find(|one| range.takes(one))?;
            Some(Form { media_type, version })
        };
        negotiate::accepted(headers).iter().find_map(of_range)
    }

    /// The version a range names, empty when it names no kind; `None` for what there is not.
    fn version(self, range: &MediaRange<'_>) -> Option<&'static str> {
        if !range.parameter("stream").is_empty() || !range.parameter("sv").is_empty() {
            return None;
        }
        match [range.parameter("as"), range.parameter("g"), range.parameter("v")] {
            ["", "", ""] => Some(""),
            [kind, "config.k8s.io", "v1beta1"] if kind == self.kind() => Some("v1beta1"),
            [kind, "config.k8s.io", "v1alpha1"] if kind == self.kind() => Some("v1alpha1"),
            _ => None,
        }
    }
}

impl Api {
    /// Answers one of the pages; 406 when the client takes nothing that there is.
    pub(super) fn serve_zpage(&self, page: Zpage, headers: &HeaderMap) -> Result<Answer, ApiError> {
        let form = page.form(headers).ok_or_else(|| ApiError::not_acceptable(&MEDIA_TYPES.join(", ")))?;
        if form.version.is_empty() {
            let text = match page {
                Zpage::Status => self.status().text(self.clock.now()),
                Zpage::Flags => flags_text(&self.flags),
            };
            return Ok(response::text(StatusCode::OK, text));
        }
        let mut object = json!({
            "kind": page.kind(),
            "apiVersion": format!("config.k8s.io/{}", form.version),
            "metadata": {"name": "kube-apiserver"},
        });
        match page {
            Zpage::Status => self.status().put(&mut object, self.clock.now()),
            Zpage::Flags => object["flags"] = json!(self.flags),
        }
        let encoding = if form.media_type == "application/yaml" { Encoding::Yaml } else { Encoding::Json };
        let mut answer = encode::value_as(StatusCode::OK, &object, encoding);
        if form.version == "v1alpha1" {
            let path = page.path();
            let warning = format!("This version of the {path} endpoint is deprecated. Please use a newer version.");
            response::warn(&mut answer, &[warning]);
        }
        Ok(answer)
    }

    fn status(&self) -> Status {
        Status { started: started().unwrap_or_else(|| self.clock.now()), paths: folders(&self.paths()) }
    }
}

/// When the process began.
fn started() -> Option<Timestamp> {
    let since = Duration::try_from_secs_f64(process_start()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)?.try_into().ok()
}

/// What `/statusz` tells.
struct Status {
    started: Timestamp,
    paths: Vec<String>,
}

impl Status {
    fn up_seconds(&self, now: Timestamp) -> i64 {
        (now.as_second() - self.started.as_second()).max(0)
    }

    /// The words of `/version` without the quotes.
    fn word(name: &str) -> String {
        version()[name].as_str().unwrap_or_default().to_owned()
    }

    fn emulated() -> String {
        format!("{}.{}", Self::word("emulationMajor"), Self::word("emulationMinor"))
    }

    fn binary() -> String {
        let version = Self::word("gitVersion");
        let release = version.split(['+', '-']).next().unwrap_or_default();
        release.trim_start_matches('v').to_owned()
    }

    fn put(&self, object: &mut Value, now: Timestamp) {
        object["startTime"] = json!(time(self.started));
        object["uptimeSeconds"] = json!(self.up_seconds(now));
        object["goVersion"] = json!(Self::word("goVersion"));
        object["binaryVersion"] = json!(Self::binary());
        object["emulationVersion"] = json!(Self::emulated());
        object["paths"] = json!(self.paths);
    }

    fn text(&self, now: Timestamp) -> String {
        let up = self.up_seconds(now);
        let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
        let started = self.started.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S UTC %Y");
        let mut text = heading(Zpage::Status);
        let lines = [
            ("Started", started.to_string()),
            ("Up", format!("{hours} hr {minutes:02} min {seconds:02} sec")),
            ("Go version", Self::word("goVersion")),
            ("Binary version", Self::binary()),
            ("Emulation version", Self::emulated()),
            ("Paths", self.paths.join(" ")),
        ];
        text.push('\n');
        for (name, value) in lines {
            // A String takes everything.
            let _ = writeln!(text, "{name}: {value}");
        }
        text
    }
}

fn heading(page: Zpage) -> String {
    format!(
        "\nkube-apiserver {}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n",
        page.path()
    )
}

fn flags_text(flags: &BTreeMap<&'static str, String>) -> String {
    let mut text = heading(Zpage::Flags);
    for (name, value) in flags {
        // A String takes everything.
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// The first folders of paths, each once and in order, without those of the API itself.
fn folders(paths: &[String]) -> Vec<String> {
    let first = |path: &String| path.split('/').nth(1).filter(|word| !word.is_empty()).map(|word| format!("/{word}"));
    let mut folders: Vec<String> = paths.iter().filter_map(first).collect();
    folders.retain(|folder| !NOT_LISTED.contains(&folder.as_str()));
    folders.sort();
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Option<(&str, &str)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let found = Zpage::Status.form(&headers);
        assert_eq!(found.map(|form| (form.media_type, form.version)), expected, "{accept}");
    }

    #[test]
    fn an_object_is_given_to_who_names_it_and_text_to_everybody_else() {
        check("", Some(("text/plain", "")));
        check("*/*", Some(("text/plain", "")));
        check("text/plain", Some(("text/plain", "")));
        check("application/json;as=Statusz;v=v1beta1;g=config.k8s.io", Some(("application/json", "v1beta1")));
        check("application/yaml;as=Statusz;v=v1alpha1;g=config.k8s.io", Some(("application/yaml", "v1alpha1")));
        check("*/*;as=Statusz;v=v1beta1;g=config.k8s.io", Some(("application/json", "v1beta1")));
        check("application/json;as=Flagz;v=v1beta1;g=config.k8s.io, text/plain", Some(("text/plain", "")));
        check("application/json", None);
        check("application/json;as=Statusz;v=v1;g=config.k8s.io", None);
        check("text/plain;as=Statusz;v=v1beta1;g=config.k8s.io", None);
        check("application/vnd.kubernetes.protobuf;as=Statusz;v=v1beta1;g=config.k8s.io", None);
    }

    #[test]
    fn folders_for_debugging_are_listed_once() {
        let paths = ["/api", "/apis/apps/v1", "/livez", "/livez/ping", "/metrics", "/metrics/slis", "/openapi/v2", "/"];
        assert_eq!(folders(&paths.map(str::to_owned)), ["/livez", "/metrics"]);
    }
}
