//! The web front end: a page with the entries, and the same as plain text for programs.
//!
//! `GUESTBOOK_TITLE` comes from the ConfigMap, `GUESTBOOK_ADMIN_TOKEN` from the Secret, `GUESTBOOK_VERSION` from
//! the image, `GUESTBOOK_BACKEND` is `HOST:PORT` of the back end's Service.

use std::io;

use crate::http::{Request, Response, call};
use crate::server::App;

/// The front end's configuration.
pub(crate) struct Frontend {
    title: String,
    version: String,
    admin_token: String,
    host: String,
    port: u16,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Frontend {
    /// Reads the environment.
    pub(crate) fn from_env() -> io::Result<Self> {
        let backend = variable("GUESTBOOK_BACKEND").unwrap_or_else(|| "guestbook-backend:6380".to_owned());
        let parsed = backend.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let (host, port) = parsed.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("GUESTBOOK_BACKEND {backend:?}: must be HOST:PORT"))
        })?;
        Ok(Self {
            title: variable("GUESTBOOK_TITLE").unwrap_or_else(|| "Guestbook".to_owned()),
            version: variable("GUESTBOOK_VERSION").unwrap_or_else(|| "unknown".to_owned()),
            admin_token: variable("GUESTBOOK_ADMIN_TOKEN").unwrap_or_default(),
            host,
            port,
        })
    }

    fn backend(&self, method: &str, body: &str) -> Response {
        match call(&self.host, self.port, method, "/entries", body) {
            Ok((status, body)) => Response::text(status, body),
            Err(err) => Response::text(502, format!("back end {}:{}: {err}\n", self.host, self.port)),
        }
    }

    fn page(&self) -> Response {
        let entries = match call(&self.host, self.port, "GET", "/entries", "") {
            Ok((200, entries)) => entries,
            Ok((_, problem)) => return Response::text(502, problem),
            Err(err) => return Response::text(502, format!("back end {}:{}: {err}\n", self.host, self.port)),
        };
        let items: String = entries.lines().map(|entry| format!("<li>{}</li>", escape(entry))).collect();
        let title = escape(&self.title);
        Response::html(format!(
            "<!doctype html><title>{title}</title><h1>{title}</h1><ul>{items}</ul>\
             <form method=post action=/entries><input name=entry autofocus><button>Sign</button></form>\
             <small>{}</small>",
            escape(&self.version)
        ))
    }

    fn is_admin(&self, request: &Request) -> bool {
        !self.admin_token.is_empty() && request.authorization == format!("Bearer {}", self.admin_token)
    }
}

impl App for Frontend {
    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => self.page(),
            ("GET", "/version") => Response::text(200, format!("{}\n", self.version)),
            ("GET", "/healthz") => Response::text(200, "ok\n"),
            ("GET", "/readyz") => match call(&self.host, self.port, "GET", "/healthz", "") {
                Ok((200, _)) => Response::text(200, "ok\n"),
                _ => Response::text(503, "back end is not reachable\n"),
            },
            ("GET", "/entries") => self.backend("GET", ""),
            ("POST", "/entries") => self.backend("POST", &form_value(&request.body)),
            ("DELETE", "/entries") if self.is_admin(request) => self.backend("DELETE", ""),
            ("DELETE", "/entries") => Response::text(403, "the admin token is wrong\n"),
            _ => Response::text(404, "not found\n"),
        }
    }
}

/// The entry of an HTML form's body, or the body itself when it is not a form.
fn form_value(body: &str) -> String {
    let Some(encoded) = body.strip_prefix("entry=") else { return body.trim_end().to_owned() };
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [byte, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) if *byte == b'%' => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_value_is_decoded_and_a_plain_body_is_taken_as_it_is() {
        assert_eq!(form_value("entry=J%C3%BCrgen+was+here"), "Jürgen was here");
        assert_eq!(form_value("entry=50%"), "50%");
        assert_eq!(form_value("hello\n"), "hello");
    }

    #[test]
    fn entries_cannot_bring_their_own_markup() {
        assert_eq!(escape("<script>&"), "&lt;script&gt;&amp;");
    }
}
