//! Questions that a server asks another one of the same control plane: over TLS, as the API server itself, which the
//! front-proxy certificate proves. Every server has one, and takes the others'.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::auth::front_proxy;
use crate::http::BoxError;
use crate::outbound::{self, Caller, Place, Services, Trust};
use crate::pki::LiveCertificate;
use crate::registry::{Registry, UserInfo};

/// Longest answer that is read: the records of some members.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// See the module. Keeps its connections.
pub(crate) struct Neighbours {
    trust: Trust,
    services: Option<Arc<Services>>,
    /// By address; few, for few servers ever were members.
    callers: Mutex<BTreeMap<String, Caller>>,
}

impl Neighbours {
    /// `ca_pem` is the cluster CA, `own` what is shown.
    pub(crate) fn new(registry: &Registry, ca_pem: &str, own: Arc<LiveCertificate>) -> Self {
        let find = |group: &str, plural: &str| registry.resource(group, "v1", plural);
        let services = find("", "services").zip(find("discovery.k8s.io", "endpointslices"));
        Self {
            trust: Trust { own: Some(own), ..Trust::in_bundle(ca_pem.as_bytes().to_vec()) },
            services: services.map(|(services, slices)| Arc::new(Services::new(services, slices))),
            callers: Mutex::default(),
        }
    }

    /// What the server at `address` (`IP:PORT`) answers to a `GET`; why there is nothing, in words for the log.
    pub(super) async fn get(&self, address: &str, path: &str, time_max: Duration) -> Result<Value, String> {
        let caller = self.caller(address)?;
        let empty = http_body_util::Empty::new().map_err(BoxError::from).boxed_unsync();
        let mut request = http::Request::get(path).body(empty).map_err(|error| error.to_string())?;
        front_proxy::name(request.headers_mut(), &UserInfo::new("system:apiserver", &["system:masters"]));
        let asked = async {
            let answer = caller.send(request).await?;
            let code = answer.status();
            Ok((code, outbound::read(answer.into_body(), ANSWER_BYTES_MAX).await?))
        };
        let asked = tokio::time::timeout(time_max, asked).await;
        let asked: Result<_, outbound::CallError> = asked.unwrap_or_else(|_| Err(outbound::CallError::deadline()));
        let (code, body) = asked.map_err(|error| error.to_string())?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !code.is_success() {
            return Err(body["message"].as_str().map_or_else(|| code.to_string(), str::to_owned));
        }
        Ok(body)
    }

    fn caller(&self, address: &str) -> Result<Caller, String> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = callers.get(address) {
            return Ok(caller.clone());
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address:?} is no address"))?;
        let port = port.parse().map_err(|_| format!("{address:?} has no port"))?;
        let services = self.services.as_ref().ok_or("this server knows no Services")?;
        let caller = Caller::new(Place::Host(host.to_owned(), port), &self.trust, services);
        let caller = caller.map_err(|error| error.to_string())?;
        callers.insert(address.to_owned(), caller.clone());
        Ok(caller)
    }
}
