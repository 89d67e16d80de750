//! Values of the libraries' own types.

use std::net::IpAddr;
use std::sync::Arc;

use reeve_api::quantity::Quantity;

use crate::error::EvalError;
use crate::functions::authz::{Decision, GroupCheck, PathCheck, ResourceCheck, Subject};
use crate::functions::format::NamedFormat;
use crate::functions::net::Cidr;
use crate::functions::semver::Semver;
use crate::functions::url::Url;

/// A value of a library's own type: an address, a quantity, an authorizer, …
#[derive(Debug, Clone)]
pub struct Opaque<'v>(pub(crate) Inner<'v>);

#[derive(Debug, Clone)]
pub(crate) enum Inner<'v> {
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Quantity(Quantity),
    Semver(Arc<Semver>),
    Format(&'static NamedFormat),
    Authorizer(Subject<'v>),
    Path(Arc<PathCheck<'v>>),
    Group(Arc<GroupCheck<'v>>),
    Resource(Arc<ResourceCheck<'v>>),
    Decision(Arc<Decision>),
}

impl Opaque<'_> {
    pub(crate) fn type_name(&self) -> &'static str {
        match &self.0 {
            Inner::Url(_) => "kubernetes.URL",
            Inner::Ip(_) => "net.IP",
            Inner::Cidr(_) => "net.CIDR",
            Inner::Quantity(_) => "kubernetes.Quantity",
            Inner::Semver(_) => "kubernetes.Semver",
            Inner::Format(_) => "kubernetes.NamedFormat",
            Inner::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Inner::Path(_) => "kubernetes.authorization.PathCheck",
            Inner::Group(_) => "kubernetes.authorization.GroupCheck",
            Inner::Resource(_) => "kubernetes.authorization.ResourceCheck",
            Inner::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// Bytes of an address; one for everything else.
    pub(crate) fn size(&self) -> u64 {
        match &self.0 {
            Inner::Ip(IpAddr::V4(_)) => 4,
            Inner::Ip(IpAddr::V6(_)) => 16,
            Inner::Cidr(cidr) => u64::from(cidr.prefix).div_ceil(8),
            _ => 1,
        }
    }

    pub(crate) fn equal(&self, other: &Self) -> Result<bool, EvalError> {
        Ok(match (&self.0, &other.0) {
            (Inner::Url(a), Inner::Url(b)) => a.text() == b.text(),
            (Inner::Ip(a), Inner::Ip(b)) => a == b,
            (Inner::Cidr(a), Inner::Cidr(b)) => a == b,
            (Inner::Quantity(a), Inner::Quantity(b)) => a == b,
            (Inner::Semver(a), Inner::Semver(b)) => a == b,
            (Inner::Format(a), Inner::Format(b)) => a.name == b.name,
            _ => return Err(EvalError::no_such_overload()),
        })
    }
}
