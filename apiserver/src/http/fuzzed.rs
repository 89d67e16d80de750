//! What `crate::fuzz` asks of the parsers of this module. Tests only.

use http::header::HeaderMap;
use serde_json::Value;

use super::negotiate::{self, Offer};
use super::query::{self, Query};
use super::{duration, pretty, protobuf, route, yaml};

/// A protobuf body: what it is read as can be written and read again.
pub(crate) fn protobuf(bytes: &[u8]) {
    let Ok(value) = protobuf::decode(bytes) else { return };
    let Ok(again) = protobuf::object(value.to_string().as_bytes()) else { return };
    let settled = protobuf::decode(&again).expect("what was written can be read");
    let third = protobuf::object(settled.to_string().as_bytes()).expect("what was read can be written");
    assert_eq!(protobuf::decode(&third).expect("and read again"), settled);
}

/// Indentation changes nothing but space.
pub(crate) fn indented(json: &[u8], value: &Value) {
    let text = pretty::indent(json);
    let read = crate::decode::json(&text, "ConfigMap").expect("indented JSON is JSON");
    assert_eq!(read.value, *value, "digits are kept as they are");
}

/// A value as YAML.
pub(crate) fn yaml(value: &Value) -> String {
    yaml::write(value)
}

/// An `Accept` header, asked of every kind of endpoint.
pub(crate) fn accept(headers: &HeaderMap) {
    let all = Offer { protobuf: true, table: true, metadata: true };
    for offer in [all, Offer::PLAIN, Offer::REVIEW] {
        let _ = negotiate::format(headers, &Query::default(), offer);
        let _ = negotiate::stream_format(headers, &Query::default(), offer);
    }
    let _ = negotiate::aggregated(headers);
}

/// A text as a query string, a path and a span of time.
pub(crate) fn query(text: &str) {
    let _ = duration::parse(text);
    if let Ok(query) = Query::parse(text) {
        let _ = query.timeout();
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
            let _ = query::options(&query, verb);
        }
    }
    let path = route::segments(text).unwrap_or_default();
    if let Some(path) = route::resource(&path) {
        let _ = route::verb(&http::Method::GET, &path, &Query::default());
    }
}
