//! As much of an S3-compatible store as backups need, in memory: it lists, takes and forgets the objects of one bucket
//! for whoever names the right key. What signatures are worth is tested where they are made (`ctl/src/backup/s3`).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use reeve_tests::servers::enter;

/// Where it listens; the tests' own address.
const ADDRESS: &str = "192.0.2.1:9000";
/// A file with credentials, and what of them every request names.
pub(crate) const CREDENTIALS: &str = "[default]\naws_access_key_id = tester\naws_secret_access_key = sesame\n";
const NAMED: &str = "Credential=tester/";

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves until it is dropped.
pub(crate) struct Bucket {
    objects: Objects,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bucket {
    /// In the network namespace with that pin.
    pub(crate) fn serve(pin: String) -> Self {
        let (objects, done) = (Objects::default(), Arc::new(AtomicBool::new(false)));
        let (own, ended) = (Arc::clone(&objects), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            enter(&pin);
            let listener = TcpListener::bind(ADDRESS).expect("the bucket's address");
            listener.set_nonblocking(true).expect("a listener that does not block");
            while !ended.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream, &own)), // its client says what it misses
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self { objects, done, thread: Some(thread) }
    }

    /// What `--backup-to` says for a prefix in it.
    pub(crate) fn address(&self, prefix: &str) -> String {
        format!("s3://bucket/{prefix}?endpoint=http://{ADDRESS}&region=eu-test-1")
    }

    /// The names of all objects.
    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.lock().expect("the objects").keys().cloned().collect()
    }

    /// What an object holds.
    pub(crate) fn object(&self, name: &str) -> Vec<u8> {
        self.objects.lock().expect("the objects")[name].clone()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One request, and the end of the connection.
fn answer(stream: TcpStream, objects: &Objects) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let headers = head.iter().filter_map(|line| line.split_once(": "));
        headers.clone().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let (status, text) = if header("authorization").is_some_and(|shown| shown.contains(NAMED)) {
        ("200 OK", done(head.first().map_or("", String::as_str), body, objects))
    } else {
        ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>".to_owned())
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    reader.into_inner().write_all(answer.as_bytes())
}

fn done(request: &str, body: Vec<u8>, objects: &Objects) -> String {
    let (method, rest) = request.split_once(' ').expect("a request line");
    let path = rest.split([' ', '?']).next().unwrap_or_default();
    let name = path.strip_prefix("/bucket").expect("the bucket").trim_start_matches('/').to_owned();
    let mut objects = objects.lock().expect("the objects");
    match method {
        "PUT" => drop(objects.insert(name, body)),
        "DELETE" => drop(objects.remove(&name)),
        _ => {
            let described = |(name, bytes): (&String, &Vec<u8>)| {
                format!("<Contents><Key>{name}</Key><Size>{}</Size></Contents>", bytes.len())
            };
            let all: String = objects.iter().map(described).collect();
            return format!("<?xml version=\"1.0\"?><ListBucketResult>{all}</ListBucketResult>");
        }
    }
    String::new()
}
