//! What a certificate must hold, whether a given one still does, and how it is issued. No files here.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::{CertKey, Signer, signed};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As kubeadm's authorities.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// As kubeadm's certificates.
const LEAF_LIFE: Duration = DAY.saturating_mul(365);
/// A certificate with less than this left is re-issued, at start and while it is used: a third of its life.
const LEAF_RENEW_BEFORE: Duration = DAY.saturating_mul(120);
/// Clocks of other machines may be behind ours, and ours may be set back: a day covers every mistake of time zones.
const CLOCK_SKEW: Duration = DAY;

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Shown by a TLS server.
    Server,
    /// Presented by a TLS client; names a user.
    Client,
    /// Shown and presented by a member of the store's group to the others.
    Peer,
}

/// A certificate authority that can sign.
#[derive(Debug)]
pub(super) struct Authority {
    /// Its certificate and key.
    pub(super) cert_key: CertKey,
    /// Its key identifier, as it stands in what it signs.
    key_id: Vec<u8>,
    signer: Signer,
}

impl Authority {
    /// Reads an authority back.
    pub(super) fn parse(cert_key: CertKey) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pem(&cert_key.key_pem)?;
        let der = CertificateDer::from_pem_slice(cert_key.cert_pem.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(rcgen::Error::CouldNotParseKeyPair);
        }
        let key_id = subject_key_id(&parsed).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let signer = Signer::from_ca_cert_der(&der, key)?;
        Ok(Self { cert_key, key_id, signer })
    }
}

/// A new self-signed authority.
pub(super) fn make_authority(common_name: &str, now: Timestamp) -> Result<CertKey, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = base(common_name, &[], now, AUTHORITY_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(CertKey { cert_pem: params.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
}

/// What one certificate must hold.
#[derive(Debug)]
pub(super) struct LeafPlan {
    common_name: String,
    organizations: Vec<String>,
    usage: Usage,
    sans: Vec<String>,
    now: Timestamp,
}

impl LeafPlan {
    /// A server's certificate, valid for `sans` (addresses and host names).
    pub(super) fn server(common_name: &str, organizations: &[&str], mut sans: Vec<String>, now: Timestamp) -> Self {
        sans.sort();
        sans.dedup();
        Self { sans, ..Self::new(common_name, organizations, Usage::Server, now) }
    }

    /// A client's certificate: the common name is the user, the organizations are its groups.
    pub(super) fn client(common_name: &str, organizations: &[&str], now: Timestamp) -> Self {
        Self::new(common_name, organizations, Usage::Client, now)
    }

    /// The certificate of a member of the store's group, valid for the one name by which the others know it.
    pub(super) fn peer(host: &str, now: Timestamp) -> Self {
        Self { sans: vec![host.to_owned()], ..Self::new(host, &[], Usage::Peer, now) }
    }

    fn new(common_name: &str, organizations: &[&str], usage: Usage, now: Timestamp) -> Self {
        let organizations = organizations.iter().map(|&group| group.to_owned()).collect();
        Self { common_name: common_name.to_owned(), organizations, usage, sans: Vec::new(), now }
    }

    /// Issues it, with a new key.
    pub(super) fn issue(&self, by: &Authority) -> Result<CertKey, rcgen::Error> {
        let mut params = base(&self.common_name, &self.organizations, self.now, LEAF_LIFE);
        params.subject_alt_names = CertificateParams::new(self.sans.clone())?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        signed(&params, &KeyPair::generate()?, &by.signer)
    }

    /// Why `found` cannot serve any longer; `None` when it can.
    pub(super) fn misfit(&self, found: &CertKey, authority: &Authority) -> Option<&'static str> {
        let Ok(key) = KeyPair::from_pem(&found.key_pem) else { return Some("its key cannot be read") };
        let Ok(der) = CertificateDer::from_pem_slice(found.cert_pem.as_bytes()) else {
            return Some("it cannot be read");
        };
        let Ok((_, parsed)) = X509Certificate::from_der(&der) else { return Some("it cannot be read") };
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Some("its key belongs to another certificate");
        }
        if authority_key_id(&parsed).as_deref() != Some(&authority.key_id) {
            return Some("another authority signed it");
        }
        self.misfit_of_content(&parsed)
    }

    fn misfit_of_content(&self, parsed: &X509Certificate<'_>) -> Option<&'static str> {
        let now = self.now.as_second();
        let renew_before = i64::try_from(LEAF_RENEW_BEFORE.as_secs()).unwrap_or(i64::MAX);
        if parsed.validity().not_after.timestamp() < now.saturating_add(renew_before) {
            return Some("it has expired or soon will");
        }
        if parsed.validity().not_before.timestamp() > now {
            return Some("it is not valid yet");
        }
        let organizations: Vec<_> =
            parsed.subject().iter_organization().filter_map(|name| name.as_str().ok()).collect();
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        if common_name != Some(self.common_name.as_str()) || organizations != self.organizations {
            return Some("it names another subject");
        }
        let held = subject_alt_names(parsed);
        if self.sans.iter().any(|wanted| !held.contains(wanted)) {
            return Some("it is not valid for an address or name it must serve");
        }
        None
    }
}

fn base(common_name: &str, organizations: &[String], now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + life;
    params
}

fn subject_key_id(cert: &X509Certificate<'_>) -> Option<Vec<u8>> {
    cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn authority_key_id(cert: &X509Certificate<'_>) -> Option<Vec<u8>> {
    cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    })
}

fn subject_alt_names(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
