//! Whether another API server can be used: what its Service looks like (pure), and whether it answers.
//!
//! Source of order and words: the availability controllers of `kube-aggregator`.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::proxy;
use super::table::{Backend, Target};
use crate::http::full;
use crate::outbound::CallError;
use crate::registry::{UserInfo, meta};

/// How long a server may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// So many questions are asked at once; one answer will do.
const ATTEMPTS: usize = 5;

/// What is said in the condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    /// This server serves it itself.
    pub(super) fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { status: "True", reason: "Local", message }
    }

    fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }

    /// Of a server that does not answer as it should.
    fn failed(message: String) -> Self {
        Self::no("FailedDiscoveryCheck", message)
    }

    /// Whether it is worth to try again although nothing changes in the cluster.
    pub(super) fn is_about_an_answer(&self) -> bool {
        self.reason == "FailedDiscoveryCheck"
    }

    /// Writes the condition into an APIService; whether that changes it.
    pub(super) fn put(&self, object: &mut Value, now: Timestamp) -> bool {
        let (old, time) = (object["status"].clone(), meta::time(now));
        let mut new = json!({
            "type": "Available", "status": self.status, "reason": self.reason, "message": self.message,
            "lastTransitionTime": time,
        });
        if !object["status"].is_object() {
            object["status"] = json!({});
        }
        if !object["status"]["conditions"].is_array() {
            object["status"]["conditions"] = json!([]);
        }
        if let Some(all) = object["status"]["conditions"].as_array_mut() {
            match all.iter_mut().find(|one| one["type"] == "Available") {
                Some(one) => {
                    if one["status"] == self.status {
                        new["lastTransitionTime"] = one["lastTransitionTime"].clone();
                    }
                    *one = new;
                }
                None => all.push(new),
            }
        }
        object["status"] != old
    }
}

/// What the cluster knows of a server's Service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    /// Its spec; `None`: there is no such Service.
    pub(super) service: Option<Value>,
    /// Its EndpointSlices.
    pub(super) slices: Vec<Value>,
}

/// Where the server is to be asked (`ADDRESS:PORT`), or why it need not be asked.
pub(super) fn judge(target: &Target, facts: &Facts) -> Result<String, Verdict> {
    let Target { namespace, service: name, port, .. } = target;
    let shown = format!("service/{name} in {namespace:?}");
    let Some(spec) = &facts.service else {
        return Err(Verdict::no("ServiceNotFound", format!("{shown} is not present")));
    };
    let mut ports = spec["ports"].as_array().into_iter().flatten();
    let found = ports.find(|own| own["port"].as_u64() == Some(u64::from(*port)));
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    if kind == "ClusterIP" {
        let found =
            found.ok_or_else(|| Verdict::no("ServicePortError", format!("{shown} is not listening on port {port}")))?;
        if facts.slices.is_empty() {
            let message = format!("cannot find endpointslices for {shown}");
            return Err(Verdict::no("EndpointsNotFound", message));
        }
        let port = found["name"].as_str().unwrap_or_default();
        if !facts.slices.iter().any(|slice| has_endpoint(slice, port)) {
            let message = format!("endpointslices for {shown} have no addresses with port name {port:?}");
            return Err(Verdict::no("MissingEndpoints", message));
        }
    }
    let address = match kind {
        "ExternalName" => spec["externalName"].as_str().unwrap_or_default(),
        _ if spec["clusterIP"] == "None" => {
            return Err(Verdict::failed("cannot route to service with ClusterIP \"None\"".to_owned()));
        }
        _ if found.is_none() => {
            return Err(Verdict::failed(format!("no service port {port} found for service {name:?}")));
        }
        _ => spec["clusterIP"].as_str().unwrap_or_default(),
    };
    Ok(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

fn has_endpoint(slice: &Value, port: &str) -> bool {
    let all = |field: &str| slice[field].as_array().into_iter().flatten();
    all("endpoints").any(|one| one["conditions"]["ready"] != Value::Bool(false))
        && all("ports").any(|one| one["name"].as_str().unwrap_or_default() == port && one["port"].is_u64())
}

/// Asks the server for what it must be able to tell. `None`: it cannot even be tried, which is told to nobody.
pub(super) async fn ask(backend: &Backend, authority: &str) -> Option<Verdict> {
    let caller = backend.caller.as_ref().ok()?;
    let path = match backend.group.as_str() {
        "" => format!("/api/{}", backend.version),
        group => format!("/apis/{group}/{}", backend.version),
    };
    let url = format!("https://{authority}{path}");
    let attempt = || async {
        let mut request = http::Request::get(&path).body(full("")).map_err(|error| error.to_string())?;
        proxy::name(request.headers_mut(), &UserInfo::new("system:kube-aggregator", &["system:masters"]));
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, caller.send(request)).await;
        let told = |error: CallError| format!("failing or missing response from {url}: Get \"{url}\": {error}");
        let answer = answer.unwrap_or_else(|_| Err(CallError::deadline())).map_err(told)?;
        let code = answer.status();
        if code.is_success() {
            return Ok(());
        }
        Err(format!("failing or missing response from {url}: bad status from {url}: {}", code.as_u16()))
    };
    let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS).map(|_| attempt()).collect();
    let mut verdict = Verdict::passed();
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(()) => return Some(Verdict::passed()),
            Err(message) => verdict = Verdict::failed(message),
        }
    }
    Some(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregator::table::tests_target;

    fn told(facts: &Facts) -> String {
        match judge(&tests_target("n", "s", 443), facts) {
            Ok(place) => place,
            Err(verdict) => format!("{} {}: {}", verdict.status, verdict.reason, verdict.message),
        }
    }

    #[test]
    fn what_is_missing_of_a_service_is_told_in_kubernetes_words() {
        let mut facts = Facts::default();
        assert_eq!(told(&facts), "False ServiceNotFound: service/s in \"n\" is not present");
        facts.service = Some(json!({"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"port": 80}]}));
        assert_eq!(told(&facts), "False ServicePortError: service/s in \"n\" is not listening on port 443");
        facts.service = Some(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 443, "name": "https"}]}));
        assert_eq!(told(&facts), "False EndpointsNotFound: cannot find endpointslices for service/s in \"n\"");
        let ports = json!([{"name": "https", "port": 8443}]);
        facts.slices = vec![json!({"ports": ports, "endpoints": [{"conditions": {"ready": false}}]})];
        let text = "endpointslices for service/s in \"n\" have no addresses with port name \"https\"";
        assert_eq!(told(&facts), format!("False MissingEndpoints: {text}"));
        facts.slices.push(json!({"ports": ports, "endpoints": [{"conditions": {}}]}));
        assert_eq!(told(&facts), "10.96.0.7:443");
        facts.service = Some(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(told(&facts), "example.com:443");
    }

    #[test]
    fn a_condition_keeps_its_time_and_its_neighbours() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut object = json!({"status": {"conditions": [{"type": "Other", "status": "True"}]}});
        assert!(Verdict::failed("a".to_owned()).put(&mut object, at(10)));
        assert!(Verdict::failed("b".to_owned()).put(&mut object, at(20)));
        assert!(!Verdict::failed("b".to_owned()).put(&mut object, at(30)));
        let all = object["status"]["conditions"].as_array().unwrap();
        assert_eq!((all.len(), &all[1]["message"]), (2, &json!("b")));
        assert_eq!(all[1]["lastTransitionTime"], "1970-01-01T00:00:10Z");
        assert!(Verdict::passed().put(&mut object, at(40)));
        assert_eq!(object["status"]["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:40Z");
    }
}
