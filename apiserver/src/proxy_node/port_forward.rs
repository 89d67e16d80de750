//! What `portforward` asks for. Pure.

use serde_json::{Value, json};

use crate::http::Query;
use crate::registry::Request;
use crate::status::ApiError;

/// The ports that channels of a WebSocket are for; with SPDY each stream says its own.
pub(super) fn ports(query: &Query) -> Result<Vec<i32>, ApiError> {
    let mut ports = Vec::new();
    for value in query.all("ports").flat_map(|list| list.split(',')).filter(|port| !port.is_empty()) {
        let wrong = |_| ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"));
        ports.push(value.parse().map_err(wrong)?);
    }
    Ok(ports)
}

/// As admission sees them.
pub(super) fn options(ports: &[i32]) -> Value {
    let mut options = json!({ "kind": "PodPortForwardOptions", "apiVersion": "v1" });
    if !ports.is_empty() {
        options["ports"] = json!(ports);
    }
    options
}

/// What is asked of the kubelet.
pub(super) fn uri(request: &Request, ports: &[i32]) -> String {
    let mut uri = format!("/portForward/{}/{}", request.namespace, request.name);
    if !ports.is_empty() {
        let ports: Vec<String> = ports.iter().map(i32::to_string).collect();
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("port", &ports.join(",")).finish();
        uri.push_str(&format!("?{query}"));
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_or_repeated() {
        let read = |query| ports(&Query::parse(query).unwrap());
        assert_eq!(read("ports=80%2C443&ports=8080"), Ok(vec![80, 443, 8080]));
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("ports=x").unwrap_err().code, 400);
    }
}
