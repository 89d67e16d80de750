//! Which form an answer takes: from the `Accept` header, as Kubernetes reads it.
//!
//! Source: Kubernetes, "API concepts", sections "Alternate representations" and "Receiving resources as Tables".

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap};

use super::query::Query;
use crate::status::ApiError;

/// Longest list of media ranges that is looked at.
const RANGES_MAX: usize = 32;

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    /// Indented, for people.
    Pretty,
    Yaml,
}

/// How much of each object a table row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// What is shown of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// The objects themselves.
    Whole,
    /// Only their metadata.
    Partial,
    /// A table made by the server.
    Table(Include),
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) encoding: Encoding,
    pub(crate) view: View,
    /// Whether the client takes gzip.
    pub(crate) gzip: bool,
}

/// One media range: `application/json;as=Table;v=v1;g=meta.k8s.io;q=0.8`.
#[derive(Debug, Default)]
pub(crate) struct MediaRange<'h> {
    pub(crate) media_type: &'h str,
    pub(crate) kind: &'h str,
    pub(crate) group: &'h str,
    pub(crate) version: &'h str,
    quality: f32,
}

/// The ranges of the `Accept` header, the most wanted first.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<MediaRange<'_>> {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let header = if header.trim().is_empty() { "*/*" } else { header };
    let mut ranges: Vec<_> = header.split(',').take(RANGES_MAX).map(MediaRange::parse).collect();
    // Stable: among equals the first one counts.
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

impl<'h> MediaRange<'h> {
    fn parse(text: &'h str) -> Self {
        let mut words = text.split(';').map(str::trim);
        let mut range = Self { media_type: words.next().unwrap_or_default(), quality: 1.0, ..Self::default() };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "as" => range.kind = value,
                "g" => range.group = value,
                "v" => range.version = value,
                "q" => range.quality = value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        range
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }

    fn view(&self, include: Include) -> Option<View> {
        match (self.kind, self.group, self.version) {
            ("", ..) => Some(View::Whole),
            ("Table", "meta.k8s.io", "v1") => Some(View::Table(include)),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(View::Partial),
            _ => None,
        }
    }
}

/// Chooses the form; 406 when the client takes nothing that there is.
pub(crate) fn format(headers: &HeaderMap, query: &Query) -> Result<Format, ApiError> {
    let include = include(query)?;
    let found = accepted(headers).iter().find_map(|range| Some((range.encoding()?, range.view(include)?)));
    let (encoding, view) = found.ok_or_else(not_acceptable)?;
    let encoding = if encoding == Encoding::Json && wants_pretty(headers, query) { Encoding::Pretty } else { encoding };
    Ok(Format { encoding, view, gzip: takes_gzip(headers) })
}

fn include(query: &Query) -> Result<Include, ApiError> {
    match query.get("includeObject").unwrap_or_default() {
        "" | "Metadata" => Ok(Include::Metadata),
        "None" => Ok(Include::None),
        "Object" => Ok(Include::Object),
        other => Err(ApiError::bad_request(format!("unrecognized includeObject value: \"{other}\""))),
    }
}

fn not_acceptable() -> ApiError {
    let message = "only the following media types are accepted: application/json, application/yaml";
    ApiError::new(406, "NotAcceptable", message)
}

/// `?pretty=1`, or a person behind curl, Wget or a browser.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.get("pretty").is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
}

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let header = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(',').any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && parameters.trim() != "q=0"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Option<(Encoding, View)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let found = format(&headers, &Query::default()).ok().map(|format| (format.encoding, format.view));
        assert_eq!(found, expected, "{accept}");
    }

    #[test]
    fn the_first_form_that_there_is_wins() {
        use Encoding::{Json, Yaml};
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(kubectl, Some((Json, View::Table(Include::Metadata))));
        check("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Some((Json, View::Whole)));
        check("application/vnd.kubernetes.protobuf,application/json", Some((Json, View::Whole)));
        check("application/json;q=0.5, application/yaml", Some((Yaml, View::Whole)));
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some((Json, View::Partial)));
        check("*/*", Some((Json, View::Whole)));
        check("application/vnd.kubernetes.protobuf", None);
        check("text/html", None);
    }
}
