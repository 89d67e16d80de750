//! From flags and kubeconfig to a client, by kubectl's loading rules.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::api::Api;
use super::args::GlobalArgs;
use super::error::CliError;

/// Reads the kubeconfig and makes a client. Nothing is sent yet.
pub(crate) async fn connect(args: &GlobalArgs) -> Result<Api, CliError> {
    let timeout = parse_duration(&args.request_timeout)?.filter(|timeout| !timeout.is_zero());
    let mut config = load(args).await?;
    if let Some(server) = &args.server {
        config.cluster_url =
            server.parse().map_err(|err| CliError::plain(format!("invalid --server {server:?}: {err}")))?;
    }
    if let Some(token) = &args.token {
        config.auth_info.token = Some(token.clone().into());
    }
    config.accept_invalid_certs |= args.insecure_skip_tls_verify;
    // A watch may be silent for long; a time limit is the user's to set.
    config.read_timeout = timeout;
    config.connect_timeout = Some(timeout.unwrap_or(Duration::from_secs(30)));
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let server = config.cluster_url.clone();
    let client = kube::Client::try_from(config).map_err(|err| CliError::plain(err.to_string()))?;
    Ok(Api::new(client, namespace, args.namespace.is_some(), server))
}

async fn load(args: &GlobalArgs) -> Result<kube::Config, CliError> {
    let options =
        KubeConfigOptions { context: args.context.clone(), cluster: args.cluster.clone(), user: args.user.clone() };
    let file = match &args.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path).map_err(|err| config_error(&err))?),
        None => match Kubeconfig::read() {
            Ok(file) => Some(file),
            Err(kube::config::KubeconfigError::ReadConfig(err, _)) if err.kind() == std::io::ErrorKind::NotFound => {
                None
            }
            Err(err) => return Err(config_error(&err)),
        },
    };
    match file.filter(|file| !file.clusters.is_empty()) {
        Some(file) => {
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|err| context_error(&err, args))
        }
        None if args.context.is_some() => {
            Err(CliError::plain(format!("context {:?} does not exist", args.context.as_deref().unwrap_or_default())))
        }
        None => match kube::Config::incluster() {
            Ok(config) => Ok(config),
            Err(_) => Ok(kube::Config::new(http::Uri::from_static("http://localhost:8080"))),
        },
    }
}

fn config_error(err: &dyn std::error::Error) -> CliError {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        if !text.contains(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        source = cause.source();
    }
    CliError::plain(format!("error loading config file: {text}"))
}

fn context_error(err: &kube::config::KubeconfigError, args: &GlobalArgs) -> CliError {
    match (err, &args.context) {
        (kube::config::KubeconfigError::LoadContext(_), Some(context)) => {
            CliError::plain(format!("context {context:?} does not exist"))
        }
        _ => config_error(err),
    }
}

/// Go's durations as kubectl takes them: `0`, `30` (seconds), `1m30s`, `500ms`. `None` for empty.
pub(crate) fn parse_duration(text: &str) -> Result<Option<Duration>, CliError> {
    let invalid = || CliError::plain(format!("invalid duration {text:?}: a number with a unit, such as 30s or 1m30s"));
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Some(Duration::from_secs(seconds)));
    }
    let (mut rest, mut total) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 0.000_001,
            _ => return Err(invalid()),
        };
        total += number * seconds;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).map(Some).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let seconds = |text: &str| parse_duration(text).ok().flatten().map(|own| own.as_secs_f64());
        assert_eq!(seconds("30"), Some(30.0));
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds(""), None);
        for bad in ["s", "1x", "-1s", "1m30"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
