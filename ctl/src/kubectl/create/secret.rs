//! `create secret generic|tls|docker-registry`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sources::{Data, SourceArgs, read, words};
use super::{CommonArgs, Create, Made, exactly_one};
use crate::kubectl::api::Api;
use crate::kubectl::error::CliError;

/// The registry that is meant when none is named.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// `create secret`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SecretCommand {
    /// A Secret from values and files
    Generic(GenericArgs),
    /// A Secret with a certificate and its key
    Tls(TlsArgs),
    /// A Secret with the password of an image registry
    DockerRegistry(RegistryArgs),
}

/// `create secret generic`
#[derive(Debug, Clone, Args)]
pub(crate) struct GenericArgs {
    /// NAME
    pub names: Vec<String>,
    #[command(flatten)]
    pub sources: SourceArgs,
    /// Type of the Secret
    #[arg(long, default_value = "")]
    pub r#type: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `create secret tls`
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsArgs {
    /// NAME
    pub names: Vec<String>,
    /// The certificate, in PEM
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `create secret docker-registry`
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// NAME
    pub names: Vec<String>,
    /// Name at the registry
    #[arg(long, default_value = "")]
    pub docker_username: String,
    /// Password at the registry
    #[arg(long, default_value = "")]
    pub docker_password: String,
    /// Mail address at the registry
    #[arg(long, default_value = "")]
    pub docker_email: String,
    /// The registry
    #[arg(long, default_value = DOCKER_HUB)]
    pub docker_server: String,
    /// A finished Docker configuration instead, [KEY=]FILE
    #[arg(long, value_name = "[KEY=]FILE", value_delimiter = ',')]
    pub from_file: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs `create secret`.
pub(super) async fn run(command: &SecretCommand, api: &Api) -> Result<(), CliError> {
    let (common, content) = match command {
        SecretCommand::Generic(args) => (&args.common, generic(args)?),
        SecretCommand::Tls(args) => (&args.common, tls(args)?),
        SecretCommand::DockerRegistry(args) => (&args.common, registry(args)?),
    };
    let made = Made::new("v1", "Secret", "secrets", content);
    Create::new(api, common)?.generated(made, "failed to create secret ").await
}

fn content(name: &str, secret_type: &str, data: Data) -> Value {
    let data: Map<String, Value> = data.into_iter().map(|(key, value)| (key, STANDARD.encode(value).into())).collect();
    let mut content = json!({"metadata": {"name": name}});
    if !data.is_empty() {
        content["data"] = Value::Object(data);
    }
    if !secret_type.is_empty() {
        content["type"] = json!(secret_type);
    }
    content
}

fn generic(args: &GenericArgs) -> Result<Value, CliError> {
    let name = exactly_one(&args.names, "create secret generic")?;
    Ok(content(name, &args.r#type, args.sources.read("Secret", name)?))
}

fn tls(args: &TlsArgs) -> Result<Value, CliError> {
    let name = exactly_one(&args.names, "create secret tls")?;
    let (Some(cert), Some(key)) = (&args.cert, &args.key) else {
        return Err(CliError::plain("key and cert must be specified"));
    };
    let (cert, key) = (readable(cert)?, readable(key)?);
    check_pair(&cert, &key)?;
    let data = Data::from([("tls.crt".to_owned(), cert), ("tls.key".to_owned(), key)]);
    Ok(content(name, "kubernetes.io/tls", data))
}

fn readable(path: &Path) -> Result<Vec<u8>, CliError> {
    if let Err(err) = std::fs::metadata(path) {
        let path = path.display();
        return Err(CliError::plain(format!("Cannot read file {path}, open {path}: {}", words(&err))));
    }
    read(path)
}

/// A key that does not belong to the certificate would be noticed only by whoever uses the Secret.
fn check_pair(cert: &[u8], key: &[u8]) -> Result<(), CliError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert).flatten().collect();
    if chain.is_empty() {
        return Err(CliError::plain("tls: failed to find any PEM data in certificate input"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| CliError::plain("tls: failed to find any PEM data in key input"))?;
    let provider = rustls::crypto::ring::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CliError::plain("tls: private key does not match public key")),
        Err(err) => Err(CliError::plain(format!("tls: {err}"))),
    }
}

/// One entry of a Docker configuration, in Docker's order.
#[derive(Serialize)]
struct Login<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    password: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    email: &'a str,
    auth: String,
}

fn registry(args: &RegistryArgs) -> Result<Value, CliError> {
    const KEY: &str = ".dockerconfigjson";
    const TYPE: &str = "kubernetes.io/dockerconfigjson";
    let name = exactly_one(&args.names, "create secret docker-registry")?;
    if !args.from_file.is_empty() {
        let from_file = args.from_file.iter().map(|file| {
            // A file without a key is the configuration itself.
            if file.contains('=') { file.clone() } else { format!("{KEY}={file}") }
        });
        let sources = SourceArgs { from_file: from_file.collect(), ..SourceArgs::default() };
        return Ok(content(name, TYPE, sources.read("Secret", name)?));
    }
    if args.docker_username.is_empty() || args.docker_password.is_empty() || args.docker_server.is_empty() {
        return Err(CliError::plain(
            "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required",
        ));
    }
    let login = Login {
        username: &args.docker_username,
        password: &args.docker_password,
        email: &args.docker_email,
        auth: STANDARD.encode(format!("{}:{}", args.docker_username, args.docker_password)),
    };
    let login = serde_json::to_string(&login).map_err(|err| CliError::plain(err.to_string()))?;
    let file = format!("{{\"auths\":{{{}:{login}}}}}", json!(args.docker_server));
    Ok(content(name, TYPE, Data::from([(KEY.to_owned(), file.into_bytes())])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_does_not_belong_to_the_certificate_is_refused() {
        let made = || rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate");
        let (one, other) = (made(), made());
        let key = |own: &rcgen::CertifiedKey<rcgen::KeyPair>| own.signing_key.serialize_pem();
        assert!(check_pair(one.cert.pem().as_bytes(), key(&one).as_bytes()).is_ok());
        let refused = check_pair(one.cert.pem().as_bytes(), key(&other).as_bytes()).expect_err("refused");
        assert_eq!(refused.to_string(), "error: tls: private key does not match public key");
    }
}
