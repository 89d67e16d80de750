//! The signatures of AWS's own examples, and a server on a real socket that checks what it is sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;

use super::*;

fn example() -> Credentials {
    Credentials {
        key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        session: None,
    }
}

#[test]
fn signatures_are_those_of_the_examples_that_aws_gives() {
    let credentials = example();
    let at = "2013-05-24T00:00:00Z".parse().unwrap();
    let signing = Signing { region: "us-east-1", credentials: &credentials, at };
    let empty = hex(&Sha256::digest(b""));
    let host = || ("host", "examplebucket.s3.amazonaws.com".to_owned());
    let signature = |headers: Vec<(&'static str, String)>| {
        let (_, authorization) = headers.into_iter().find(|(name, _)| *name == "authorization").unwrap();
        authorization.rsplit_once('=').unwrap().1.to_owned()
    };
    let headers = vec![host(), ("range", "bytes=0-9".to_owned())];
    let got = signature(signing.signed("GET", ("/test.txt", ""), headers, &empty));
    assert_eq!(got, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    let query = canonical_query(&[("prefix", "J".to_owned()), ("max-keys", "2".to_owned())]);
    let got = signature(signing.signed("GET", ("/", &query), vec![host()], &empty));
    assert_eq!(got, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

/// A store of objects that takes only what is signed rightly, judged by what came over the wire.
#[derive(Default)]
struct Server {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Server {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let refuse = |code: &str| {
            let text = format!("<Error><Code>{code}</Code><Message>no &amp; never</Message></Error>");
            Response::builder().status(403).body(Full::new(Bytes::from(text))).unwrap()
        };
        let header = |name: &str| parts.headers.get(name).unwrap().to_str().unwrap().to_owned();
        if header("x-amz-content-sha256") != hex(&Sha256::digest(&body)) {
            return refuse("XAmzContentSHA256Mismatch");
        }
        let (credentials, date) = (example(), header("x-amz-date"));
        let moment = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &date).unwrap();
        let at = moment.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        let signing = Signing { region: "eu-test-1", credentials: &credentials, at };
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let hash = header("x-amz-content-sha256");
        let wanted = signing.signed(parts.method.as_str(), (path, query), vec![("host", header("host"))], &hash);
        if wanted.last().unwrap().1 != header("authorization") {
            return refuse("SignatureDoesNotMatch");
        }
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let name = path.strip_prefix("/backups").unwrap().trim_start_matches('/').to_owned();
        let text = match parts.method {
            Method::PUT => {
                objects.insert(name, body.to_vec());
                String::new()
            }
            Method::DELETE => {
                objects.remove(&name);
                String::new()
            }
            _ => page(&objects, query),
        };
        Response::new(Full::new(Bytes::from(text)))
    }
}

/// Two objects a page.
fn page(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let from = query.split_once("continuation-token=").map_or("", |(_, rest)| rest.split('&').next().unwrap());
    let from = from.replace("%2F", "/");
    let mut rest = objects.range(from..).peekable();
    let mut text = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
    for (name, bytes) in rest.by_ref().take(2) {
        text += &format!("<Contents><Key>{name}</Key><Size>{}</Size></Contents>", bytes.len());
    }
    if let Some((next, _)) = rest.peek() {
        text += &format!("<NextContinuationToken>{next}</NextContinuationToken>");
    }
    text + "</ListBucketResult>"
}

async fn serve() -> (Arc<Server>, String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Server::default());
    let own = Arc::clone(&server);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let own = Arc::clone(&own);
            let service = service_fn(move |request| {
                let own = Arc::clone(&own);
                async move { Ok::<_, Infallible>(own.answer(request).await) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (server, format!("s3://backups/one/two?endpoint=http://{address}&region=eu-test-1"), task)
}

#[tokio::test]
async fn backups_are_put_listed_and_removed_by_requests_that_a_server_checks() {
    let (server, address, task) = serve().await;
    let bucket = Bucket::parse(&address, example()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 300_000]).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        bucket.put(file.path(), name).await.unwrap();
    }
    bucket.remove("b").await.unwrap();
    let listed = bucket.list().await.unwrap();
    assert_eq!(
        listed.iter().map(|kept| (&*kept.name, kept.bytes)).collect::<Vec<_>>(),
        [("a", 300_000), ("c", 300_000), ("d", 300_000), ("e", 300_000)]
    );
    assert!(server.objects.lock().unwrap().contains_key("one/two/a"));

    let stranger = Credentials { secret: "guessed".to_owned(), ..example() };
    let refused = Bucket::parse(&address, stranger).unwrap().list().await.unwrap_err().to_string();
    assert!(refused.contains("403 Forbidden: SignatureDoesNotMatch: no & never"), "{refused}");
    task.abort();
    let _ = task.await;
    let gone = bucket.put(file.path(), "f").await.unwrap_err().to_string();
    assert!(gone.contains("PUT f: ") && gone.contains("s3://backups/one/two/ at http://127.0.0.1"), "{gone}");
}

#[test]
fn addresses_and_credentials_are_read_as_they_are_written() {
    let file = "[default]\naws_access_key_id = K\naws_secret_access_key=S=S\n";
    let found = Credentials::parse(file).unwrap();
    assert_eq!((&*found.key, &*found.secret, found.session), ("K", "S=S", None));
    assert_eq!(Credentials::parse("[default]\n"), None);
    let bucket = Bucket::parse("s3://b?region=eu-west-1&endpoint=https://minio:9000", example()).unwrap();
    assert_eq!((&*bucket.bucket, &*bucket.prefix, &*bucket.region), ("b", "", "eu-west-1"));
    for bad in ["s3://", "s3:///p", "s3://b/p?x=1", "s3://b/p q", "s3://b?endpoint=ftp://x", "s3://b?endpoint=/x"] {
        assert!(Bucket::parse(bad, example()).is_err(), "{bad}");
    }
}
