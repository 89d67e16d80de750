//! The members of the cluster of etcd, of which one at a time is asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_store::KvError;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use super::EtcdConfig;

/// How long a member may take to let us in before the next one is asked.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// How often a silent member is asked whether it is still there, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pause when no member has let us in.
const PAUSE: Duration = Duration::from_millis(200);

/// Certificates, all PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Whose certificates the members show.
    pub ca_pem: String,
    /// What we show, certificate and key; `None` if etcd does not want to know.
    pub client: Option<(String, String)>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdTls").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

/// Why a cluster of etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// None was given.
    #[error("no address of an etcd is given")]
    NoEndpoint,
    /// An address is none, or does not go with the certificates.
    #[error("{url} cannot be the address of an etcd")]
    Endpoint {
        /// The address.
        url: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// Nobody answers.
    #[error("etcd does not answer: {reason}")]
    Unreachable {
        /// In the words of who refused it.
        reason: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    /// Counts connections: who has lost one says which.
    number: u64,
    /// Which member is asked.
    at: usize,
    channel: Option<Channel>,
}

impl Endpoints {
    pub(crate) fn new(config: &EtcdConfig) -> Result<Self, EtcdError> {
        let all =
            config.endpoints.iter().map(|url| endpoint(url, config.tls.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        Ok(Self { all, now: Mutex::default() })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to the member that is asked now, with its number.
    pub(crate) async fn current(&self) -> Result<(u64, Channel), KvError> {
        let (number, first) = {
            let now = self.lock();
            if let Some(channel) = &now.channel {
                return Ok((now.number, channel.clone()));
            }
            (now.number, now.at)
        };
        let mut refused = String::new();
        for step in 0..self.all.len() {
            let at = (first + step) % self.all.len();
            match self.all[at].connect().await {
                Ok(channel) => return Ok(self.take(number, at, channel)),
                Err(err) => refused = with_causes(&err),
            }
        }
        tokio::time::sleep(PAUSE).await;
        Err(KvError::Unavailable { reason: format!("no etcd can be reached: {refused}") })
    }

    /// Of several that have connected at once the first one's connection is used.
    fn take(&self, number: u64, at: usize, channel: Channel) -> (u64, Channel) {
        let mut now = self.lock();
        match &now.channel {
            Some(channel) if now.number != number => (now.number, channel.clone()),
            _ => {
                *now = Now { number: now.number + 1, at, channel: Some(channel.clone()) };
                (now.number, channel)
            }
        }
    }

    /// Asks the next member from now on, unless somebody has changed before.
    pub(crate) fn leave(&self, number: u64) {
        let mut now = self.lock();
        if now.number == number && now.channel.take().is_some() {
            now.at = (now.at + 1) % self.all.len();
        }
    }
}

fn endpoint(url: &str, tls: Option<&EtcdTls>) -> Result<Endpoint, EtcdError> {
    let wrong = |source| EtcdError::Endpoint { url: url.to_owned(), source };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(wrong)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT_MAX)
        .keep_alive_while_idle(true);
    let Some(tls) = tls else { return Ok(endpoint) };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((certificate, key)) = &tls.client {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(config).map_err(wrong)
}

/// Whether another member should be asked.
pub(crate) fn is_lost(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// Whether a request has certainly not reached anybody: the connection could not even be made.
pub(crate) fn was_not_sent(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source()).any(|error| error.is::<tonic::ConnectError>())
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
