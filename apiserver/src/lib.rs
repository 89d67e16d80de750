//! The Kubernetes API server: REST, watch cache, admission, authentication.
//!
//! A request comes in through [`ApiServer`] (`server`: TLS listeners, or the in-process client), is identified and
//! authorized (`auth`), routed and decoded (`http`), and served: objects by the [`registry`] (admission, store,
//! watch cache), logs and commands by the pod's node (`proxy_node`). Certificates come from [`pki`], errors leave
//! as [`status`]. What kinds there are and what is special about each is in `reeve-kinds`; bytes on disk are
//! `reeve-store`'s.
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | configuration, listeners, limits, shutdown, the in-process client |
//! | `gate` | how many connections strangers may hold |
//! | [`flowcontrol`] | which request runs, waits or is sent away when there is too much to do |
//! | [`auth`] | client certificates, service-account tokens, the `Authorizer` seam: nodes and roles |
//! | `http` | paths, queries, forms of answers, discovery, OpenAPI, health, protobuf bodies, `TokenRequest`, reviews |
//! | `proxy` | the `proxy` subresources: requests passed on to pods, Services and nodes |
//! | `proxy_node` | log, exec and attach, passed through to the kubelet |
//! | [`pki`] | authorities, certificates and keys in the data folder |
//! | [`join`] | several servers as one control plane: joining, members |
//! | `aggregator` | groups that other servers serve: APIServices, passing requests on |
//! | `outbound` | calls to webhooks and aggregated API servers |
//! | [`registry`] | the verbs on objects |
//! | `custom` | CustomResourceDefinitions: what is served of them, conversion, their end |
//! | `cache`, `admission` | the watch cache; what is checked and filled in before an object is stored |
//! | [`decode`], [`status`] | bodies into values; errors into `metav1.Status` |

mod admission;
mod aggregator;
pub mod auth;
mod cache;
mod custom;
pub mod decode;
pub mod flowcontrol;
#[cfg(test)]
mod fuzz;
mod gate;
mod go_json;
mod http;
pub mod join;
mod outbound;
pub mod pki;
mod proxy;
mod proxy_node;
pub mod registry;
pub mod server;
pub mod status;
mod yaml_depth;

pub use http::{AboutCluster, BackupTurn, Backups, Running, RunningComponents};
pub use outbound::system_roots;
pub use server::{ApiServer, ApiServerConfig, Limits, RENEWAL_INTERVAL, RenewError, StartError};

/// What every part of Reeve says its version is: the Kubernetes release that is followed, ours behind the plus sign.
pub const VERSION: &str = concat!("v1.36.2+reeve.", env!("CARGO_PKG_VERSION"));
