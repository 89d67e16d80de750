//! ADD of files from the web. What comes is a stranger's: it is limited in size and time, and never unpacked.
//!
//! Source: Dockerfile reference, "ADD".

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::copy::Inline;
use crate::images::error::chain;
use crate::images::pull::install_crypto;
use crate::images::{Digest, ImageStore};

/// Time to connect, and time in which nothing arrives.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Docker's mode for what is fetched.
const MODE: u32 = 0o600;

/// Fetches a file and checks it, if it is known what it must be.
pub(super) fn fetch(store: &ImageStore, url: &str, checksum: Option<&str>) -> Result<Inline, String> {
    let wanted = checksum.map(|text| Digest::parse(text).map_err(|error| error.to_string())).transpose()?;
    let name = file_name(url).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut file = tempfile::tempfile_in(store.tmp_dir()).map_err(|error| error.to_string())?;
    let max = store.limits().transfer_bytes_max;
    let (digest, mtime) = runtime.block_on(transfer(url, &mut file, max)).map_err(|error| format!("{url}: {error}"))?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
        return Err(format!("digest mismatch {digest}: {wanted}"));
    }
    file.rewind().map_err(|error| error.to_string())?;
    Ok(Inline { name, file, mode: MODE, mtime, unpack: false })
}

/// The last part of a URL's path; `None` when there is none.
fn file_name(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?.split_once("://")?.1.split_once('/')?.1;
    let name = path.rsplit('/').next().filter(|name| !name.is_empty() && *name != "." && *name != "..")?;
    Some(name.to_owned())
}

async fn transfer(url: &str, file: &mut File, max: u64) -> Result<(Digest, i64), String> {
    install_crypto();
    let client = reqwest::Client::builder().connect_timeout(STALL_TIMEOUT).read_timeout(STALL_TIMEOUT);
    let client =
        client.user_agent(concat!("reeve/", env!("CARGO_PKG_VERSION"))).build().map_err(|error| chain(&error))?;
    let response = client.get(url).send().await.map_err(|error| chain(&error))?;
    if !response.status().is_success() {
        return Err(format!("invalid response status {}", response.status().as_u16()));
    }
    let modified = response.headers().get("last-modified").and_then(|value| value.to_str().ok()?.parse_http_date());
    let (mut hash, mut size, mut response) = (Sha256::new(), 0_u64, response);
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        size += chunk.len() as u64;
        if size > max {
            return Err(format!("larger than {max} bytes"));
        }
        hash.update(&chunk);
        file.write_all(&chunk).map_err(|error| error.to_string())?;
    }
    Ok((Digest::from_sha256(&hash.finalize()), modified.unwrap_or(0)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
trait HttpDate {
    fn parse_http_date(&self) -> Option<i64>;
}

impl HttpDate for str {
    fn parse_http_date(&self) -> Option<i64> {
        jiff::fmt::rfc2822::parse(self).ok().map(|time| time.timestamp().as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_after_the_end_of_its_path() {
        for (url, name) in [
            ("https://a.example/x/y.tar.gz?v=1", Some("y.tar.gz")),
            ("http://a.example/", None),
            ("http://a.example", None),
            ("http://a.example/..", None),
            ("http://a.example/x#y", Some("x")),
        ] {
            assert_eq!(file_name(url).as_deref(), name, "{url}");
        }
        assert_eq!("Sun, 06 Nov 1994 08:49:37 GMT".parse_http_date(), Some(784_111_777));
    }
}
