//! Telling systemd how the server is (`Type=notify`): one datagram to the socket that it names, if it names one.

use std::os::unix::net::UnixDatagram;

/// The server does its work.
pub(crate) fn ready() {
    tell("READY=1");
}

/// It is on its way out.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

/// Nobody may be listening: then nobody minds.
fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let sent = match path.to_string_lossy().strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| socket.send_to_addr(state.as_bytes(), &address))
        }
        None => socket.send_to(state.as_bytes(), &path),
    };
    if let Err(err) = sent {
        tracing::debug!(%err, "The service manager cannot be told.");
    }
}
