//! What the PKI folder promises over starts, with real files.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;

fn config(dir: &Path) -> PkiConfig {
    PkiConfig {
        dir: dir.join("pki"),
        addresses: vec!["192.0.2.7".parse().unwrap()],
        names: vec!["node-1".to_owned()],
        service_address: "10.96.0.1".parse().unwrap(),
        cluster_domain: "cluster.local".to_owned(),
    }
}

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

#[test]
fn a_second_start_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let first = Pki::open(&config(home.path()), now()).unwrap();
    let again = Pki::open(&config(home.path()), now() + Duration::from_secs(3600)).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(first.serving().cert_pem, again.serving().cert_pem);
    assert_eq!(first.admin().key_pem, again.admin().key_pem);
    assert_eq!(first.signing_key_pem(), again.signing_key_pem());
}

#[test]
fn a_new_address_re_issues_the_serving_certificate_only() {
    let home = tempfile::tempdir().unwrap();
    let first = Pki::open(&config(home.path()), now()).unwrap();
    let mut wider = config(home.path());
    wider.addresses.push("192.0.2.8".parse().unwrap());
    let again = Pki::open(&wider, now()).unwrap();
    assert_ne!(first.serving().cert_pem, again.serving().cert_pem);
    assert_eq!(first.admin().cert_pem, again.admin().cert_pem);
}

#[test]
fn a_certificate_near_its_end_is_re_issued_and_the_authority_stays() {
    let home = tempfile::tempdir().unwrap();
    let first = Pki::open(&config(home.path()), now()).unwrap();
    let again = Pki::open(&config(home.path()), now() + Duration::from_secs(300 * 24 * 3600)).unwrap();
    assert_ne!(first.admin().cert_pem, again.admin().cert_pem);
    assert_eq!(first.ca_pem(), again.ca_pem());
}

#[test]
fn certificates_hold_on_machines_whose_clocks_are_half_a_day_behind() {
    let home = tempfile::tempdir().unwrap();
    let pki = Pki::open(&config(home.path()), now()).unwrap();
    for pem in [pki.ca_pem(), &pki.admin().cert_pem, &pki.serving().cert_pem] {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let begins = pem.parse_x509().unwrap().validity().not_before.timestamp();
        assert!(begins < now().as_second() - 12 * 3600, "{begins}");
    }
}

#[test]
fn a_kubelet_that_asks_who_may_is_told_that_the_api_server_may() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let home = tempfile::tempdir().unwrap();
    let pki = Pki::open(&config(home.path()), now()).unwrap();
    let der = CertificateDer::from_pem_slice(pki.kubelet_client().cert_pem.as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let groups: Vec<_> = parsed.subject().iter_organization().map(|name| name.as_str().unwrap()).collect();
    let names: Vec<_> = parsed.subject().iter_common_name().map(|name| name.as_str().unwrap()).collect();
    assert_eq!((names, groups), (vec!["kube-apiserver-kubelet-client"], vec!["system:masters"]));
}

#[test]
fn a_damaged_certificate_is_re_issued_and_a_damaged_authority_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    Pki::open(&config, now()).unwrap();
    std::fs::write(config.dir.join("admin.pem"), "torn").unwrap();
    assert!(Pki::open(&config, now()).unwrap().admin().cert_pem.contains("BEGIN CERTIFICATE"));
    std::fs::write(config.dir.join("ca.pem"), "torn").unwrap();
    let err = Pki::open(&config, now()).unwrap_err();
    assert!(matches!(&err, PkiError::Authority { path, .. } if path.ends_with("ca.pem")), "{err}");
}

#[test]
fn a_certificate_of_a_former_authority_is_re_issued() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    let first = Pki::open(&config, now()).unwrap();
    std::fs::remove_file(config.dir.join("ca.pem")).unwrap();
    let again = Pki::open(&config, now()).unwrap();
    assert_ne!(first.admin().cert_pem, again.admin().cert_pem);
    assert_eq!(std::fs::read_to_string(config.dir.join("ca.crt")).unwrap(), again.ca_pem());
}

#[test]
fn nobody_but_the_owner_can_read_the_files() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    Pki::open(&config, now()).unwrap().node_serving("node-1", &[], now()).unwrap();
    let files: Vec<_> = std::fs::read_dir(&config.dir).unwrap().map(Result::unwrap).collect();
    assert!(files.len() >= 7);
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.path().display());
    }
}
