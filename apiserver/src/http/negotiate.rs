//! Which form an answer takes: from the `Accept` header, as Kubernetes reads it.
//!
//! Source: Kubernetes, "API concepts", sections "Alternate representations of resources" and "Receiving resources as
//! Tables"; the order of clauses is that of the Go library `goautoneg`, which sorts by insertion.

use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, USER_AGENT};

use super::protobuf;
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
    Protobuf,
}

impl Encoding {
    /// What the answer is called.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::Pretty => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
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
    /// Only their metadata, in a list of their own kind.
    PartialList,
    /// A table made by the server.
    Table(Include),
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) encoding: Encoding,
    pub(crate) view: View,
    /// `apiVersion` of tables and metadata: `meta.k8s.io/v1`, or what older clients ask for.
    pub(crate) meta_version: &'static str,
    /// Whether the client takes gzip.
    pub(crate) gzip: bool,
}

/// What an endpoint can answer besides JSON and YAML of its objects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// The objects have a protobuf form.
    pub(crate) protobuf: bool,
    /// They can be shown as a table.
    pub(crate) table: bool,
    /// They can be shown as metadata.
    pub(crate) metadata: bool,
}

impl Offer {
    /// What has metadata by its type only: reviews.
    pub(crate) const REVIEW: Self = Self { protobuf: true, table: false, metadata: true };

    /// What has one form only: errors, discovery.
    pub(crate) const PLAIN: Self = Self { protobuf: true, table: false, metadata: false };
}

/// One media range: `application/json;as=Table;v=v1;g=meta.k8s.io;q=0.8`.
#[derive(Debug, Default)]
pub(crate) struct MediaRange<'h> {
    main: &'h str,
    sub: &'h str,
    parameters: Vec<(&'h str, &'h str)>,
    quality: f64,
}

/// The ranges of an `Accept` header, the most wanted first.
fn ranges(header: &str) -> Vec<MediaRange<'_>> {
    let mut ranges: Vec<_> = header.split(',').take(RANGES_MAX).filter_map(MediaRange::parse).collect();
    // By insertion: the order is no total one, and which range wins is what clients see.
    for end in 1..ranges.len() {
        for at in (1..=end).rev() {
            let is_before = matches!(ranges.get(at - 1..=at), Some([before, own]) if own.is_before(before));
            if !is_before {
                break;
            }
            ranges.swap(at - 1, at);
        }
    }
    ranges
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The ranges of a request's `Accept` header, the most wanted first; without the header, any.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<MediaRange<'_>> {
    let header = text(headers, ACCEPT);
    ranges(if header.is_empty() { "*/*" } else { header })
}

impl<'h> MediaRange<'h> {
    fn parse(text: &'h str) -> Option<Self> {
        let mut words = text.trim_matches(' ').split(';');
        let (main, sub) = match words.next().unwrap_or_default().split_once('/') {
            Some((main, sub)) if !sub.is_empty() && !sub.contains('/') => {
                (main.trim_matches(' '), sub.trim_matches(' '))
            }
            Some((main, "")) if main.trim_matches(' ') == "*" => ("*", "*"),
            None if text.split(';').next().unwrap_or_default().trim_matches(' ') == "*" => ("*", "*"),
            _ => return None,
        };
        let mut range = Self { main, sub, quality: 1.0, parameters: Vec::new() };
        for word in words {
            let Some((name, value)) = word.split_once('=').filter(|(_, value)| !value.is_empty()) else { continue };
            if value.trim_end_matches('=').contains('=') {
                continue;
            }
            match name.trim_matches(' ') {
                "q" => range.quality = value.parse().unwrap_or(0.0),
                name => range.parameters.push((name, value.trim_end_matches('=').trim_matches(' '))),
            }
        }
        Some(range)
    }

    fn is_before(&self, other: &Self) -> bool {
        self.quality > other.quality || (self.main != "*" && other.main == "*") || (self.sub != "*" && other.sub == "*")
    }

    /// Whether the range takes a media type.
    pub(crate) fn takes(&self, media_type: &str) -> bool {
        let (main, sub) = media_type.split_once('/').unwrap_or((media_type, ""));
        (self.main == main && (self.sub == sub || self.sub == "*")) || (self.main == "*" && self.sub == "*")
    }

    /// The last value of a parameter; empty when it is not there.
    pub(crate) fn parameter(&self, name: &str) -> &'h str {
        self.parameters.iter().rev().find(|(own, _)| *own == name).map_or("", |(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(own, _)| *own == name)
    }

    /// What the range asks of an endpoint in that encoding; `None` when the endpoint does not give it.
    fn choice(&self, encoding: Encoding, offer: Offer) -> Option<(View, &'static str)> {
        let stream = self.parameter("stream");
        if !stream.is_empty() && (stream != "watch" || encoding == Encoding::Yaml) {
            return None;
        }
        let server_version = self.parameter("sv");
        if !server_version.is_empty() && (server_version != "v1" || !offer.metadata) {
            return None;
        }
        if !["as", "g", "v"].iter().any(|name| self.has(name)) {
            return (encoding != Encoding::Protobuf || offer.protobuf).then_some((View::Whole, META_V1));
        }
        let version = match (self.parameter("g"), self.parameter("v")) {
            ("meta.k8s.io", "v1") => META_V1,
            ("meta.k8s.io", "v1beta1") => "meta.k8s.io/v1beta1",
            _ => return None,
        };
        match self.parameter("as") {
            "Table" if offer.table && encoding != Encoding::Protobuf => Some((View::Table(Include::Metadata), version)),
            "PartialObjectMetadata" if offer.metadata => Some((View::Partial, version)),
            "PartialObjectMetadataList" if offer.metadata => Some((View::PartialList, version)),
            _ => None,
        }
    }
}

/// The encoding of an aggregated discovery document, when the client asks for one: Kubernetes gives it to whoever names
/// it, wherever it stands.
pub(crate) fn aggregated(headers: &HeaderMap) -> Option<Encoding> {
    let asks = |range: &MediaRange<'_>| {
        range.parameter("as") == "APIGroupDiscoveryList"
            && range.parameter("g") == "apidiscovery.k8s.io"
            && range.parameter("v") == "v2"
    };
    let asked = ranges(text(headers, ACCEPT)).into_iter().filter(asks);
    asked.flat_map(|range| ENCODINGS.into_iter().filter(move |one| range.takes(one.media_type()))).next()
}

const META_V1: &str = "meta.k8s.io/v1";

/// What there is, in the order in which a range without preference gets it.
const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

/// Refuses a client that takes no media type of a resource's path at all: before anybody looks what it asks for.
pub(crate) fn check_media_types(headers: &HeaderMap, is_collection: bool) -> Result<(), ApiError> {
    let takes_one = |range: &MediaRange<'_>| ENCODINGS.iter().any(|encoding| range.takes(encoding.media_type()));
    let accepted = accepted(headers);
    if accepted.is_empty() || accepted.iter().any(takes_one) {
        return Ok(());
    }
    let streams = if is_collection {
        ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        ""
    };
    let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let message = format!("406: Not Acceptable\n\nAvailable representations: {all}{streams}");
    Err(ApiError { details: Some(Box::default()), ..ApiError::new(406, "NotAcceptable", message) })
}

/// Chooses the form; 406 when the client takes nothing that there is.
pub(crate) fn format(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Format, ApiError> {
    let mut format = chosen(headers, query, offer).ok_or_else(not_acceptable)?;
    if let View::Table(include) = &mut format.view {
        *include = self::include(query)?;
    }
    Ok(format)
}

fn chosen(headers: &HeaderMap, query: &Query, offer: Offer) -> Option<Format> {
    let gzip = takes_gzip(headers);
    let header = text(headers, ACCEPT);
    let (range_pretty, encoding, (view, meta_version)) = if header.is_empty() {
        (false, Encoding::Json, (View::Whole, META_V1))
    } else {
        ranges(header).iter().find_map(|range| {
            let mut taken = ENCODINGS.iter().filter(|encoding| range.takes(encoding.media_type()));
            let choice = |encoding: &Encoding| Some((*encoding, range.choice(*encoding, offer)?));
            let (encoding, view) = taken.find_map(choice)?;
            Some((range.parameter("pretty") == "1", encoding, view))
        })?
    };
    let pretty = encoding == Encoding::Json && (range_pretty || wants_pretty(headers, query));
    Some(Format { encoding: if pretty { Encoding::Pretty } else { encoding }, view, meta_version, gzip })
}

/// Chooses the form of a watch: no YAML.
pub(crate) fn stream_format(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Format, ApiError> {
    let format = format(headers, query, offer)?;
    match format.encoding {
        Encoding::Yaml => Err(ApiError::not_acceptable(
            "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        )),
        // Events are lines: there is nothing to indent.
        Encoding::Pretty => Ok(Format { encoding: Encoding::Json, ..format }),
        _ => Ok(format),
    }
}

fn include(query: &Query) -> Result<Include, ApiError> {
    match query.get("includeObject").unwrap_or_default() {
        "" | "Metadata" => Ok(Include::Metadata),
        "None" => Ok(Include::None),
        "Object" => Ok(Include::Object),
        other => Err(ApiError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: \"{other}\": must be 'Metadata', \
             'Object', 'None', or empty"
        ))),
    }
}

fn not_acceptable() -> ApiError {
    ApiError::not_acceptable("application/json, application/yaml, application/vnd.kubernetes.protobuf")
}

/// `?pretty=1`, or a person behind curl, Wget or a browser.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(asked) = query.get("pretty").filter(|asked| !asked.is_empty()) {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = text(headers, USER_AGENT);
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
}

/// Whether the client takes gzip: named as it is, for a quality behind it is not read.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    text(headers, ACCEPT_ENCODING).split(',').any(|coding| coding.trim() == "gzip")
}

/// What the form of an error depends on, kept aside while the request is served.
#[derive(Debug, Default)]
pub(crate) struct ErrorForm {
    accept: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    uri: http::Uri,
}

impl ErrorForm {
    /// Of a request.
    pub(crate) fn of<B>(request: &http::Request<B>) -> Self {
        let header = |name| request.headers().get(name).cloned();
        Self { accept: header(ACCEPT), agent: header(USER_AGENT), uri: request.uri().clone() }
    }

    /// How the error is written; `None` when the client takes nothing of what there is, and gets it nevertheless.
    pub(crate) fn encoding(self) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ACCEPT, self.accept), (USER_AGENT, self.agent)] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        let query = Query::parse(self.uri.query().unwrap_or_default()).unwrap_or_default();
        chosen(&headers, &query, Offer::PLAIN).map(|format| format.encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Offer = Offer { protobuf: true, table: true, metadata: true };
    const CUSTOM: Offer = Offer { protobuf: false, ..EVERYTHING };

    fn found(accept: &str, offer: Offer) -> Option<(Encoding, View)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        format(&headers, &Query::default(), offer).ok().map(|format| (format.encoding, format.view))
    }

    #[track_caller]
    fn check(accept: &str, expected: Option<(Encoding, View)>) {
        assert_eq!(found(accept, EVERYTHING), expected, "{accept}");
    }

    #[test]
    fn the_first_form_that_there_is_wins() {
        use Encoding::{Json, Protobuf, Yaml};
        let table = View::Table(Include::Metadata);
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(kubectl, Some((Json, table)));
        check("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Some((Json, View::Whole)));
        check("application/vnd.kubernetes.protobuf,application/json", Some((Protobuf, View::Whole)));
        check("application/json;q=0.5, application/yaml", Some((Yaml, View::Whole)));
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some((Json, View::PartialList)));
        check("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1", Some((Json, View::Partial)));
        check("*/*", Some((Json, View::Whole)));
        check("*", Some((Json, View::Whole)));
        check("application/*;as=Table;v=v1;g=meta.k8s.io", Some((Json, table)));
        check("*/*;q=0.9, application/yaml;q=0.1", Some((Yaml, View::Whole)));
        check("application/vnd.kubernetes.protobuf;stream=watch", Some((Protobuf, View::Whole)));
        check("text/html, application/json", Some((Json, View::Whole)));
    }

    #[test]
    fn what_there_is_not_is_not_acceptable() {
        for accept in [
            "text/html",
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=Table;v=v1",
            "application/json;v=v1",
            "application/yaml;stream=watch",
            "application/json;stream=listen",
            "application/json/x",
            "nonsense",
        ] {
            check(accept, None);
        }
    }

    #[test]
    fn a_kind_without_protobuf_is_answered_in_json_if_the_client_takes_it() {
        assert_eq!(found("application/vnd.kubernetes.protobuf", CUSTOM), None);
        let both = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(found(both, CUSTOM), Some((Encoding::Json, View::Whole)));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(found(metadata, CUSTOM), Some((Encoding::Protobuf, View::Partial)));
    }

    #[test]
    fn a_watch_has_no_yaml() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/yaml"));
        let refused = stream_format(&headers, &Query::default(), EVERYTHING).unwrap_err();
        assert_eq!(
            refused.message,
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
    }
}
