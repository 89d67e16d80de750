//! Signals by CRI's numbers, which are not the kernel's.

use reeve_proto::cri::Signal;

/// The name of a stop signal, as the engine takes it; `None` is the image's choice.
#[must_use]
pub fn to_name(signal: i32) -> Option<String> {
    let name = match Signal::try_from(signal).ok()? {
        Signal::RuntimeDefault => return None,
        other => other.as_str_name(),
    };
    // Real-time signals count from both ends: SIGRTMINPLUS1, SIGRTMAXMINUS1.
    Some(match name {
        "SIGRTMIN" => "SIGRTMIN+0".to_owned(),
        "SIGRTMAX" => "SIGRTMAX-0".to_owned(),
        "SIGCLD" => "SIGCHLD".to_owned(),
        "SIGPOLL" => "SIGIO".to_owned(),
        "SIGIOT" => "SIGABRT".to_owned(),
        other => other.replace("PLUS", "+").replace("MINUS", "-"),
    })
}

/// The signal of a name; what is not known is the runtime's default.
#[must_use]
pub fn from_name(name: &str) -> Signal {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let full = match full.as_str() {
        "SIGRTMIN+0" => "SIGRTMIN".to_owned(),
        "SIGRTMAX-0" => "SIGRTMAX".to_owned(),
        other => other.replace('+', "PLUS").replace('-', "MINUS"),
    };
    if let Some(known) = Signal::from_str_name(&full) {
        return known;
    }
    let number = full.trim_start_matches("SIG").parse::<i32>().ok();
    let name = number.and_then(|number| nix::sys::signal::Signal::try_from(number).ok());
    name.and_then(|name| Signal::from_str_name(name.as_str())).unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_their_names() {
        for (signal, name) in [
            (Signal::Sigterm, "SIGTERM"),
            (Signal::Sigrtmin, "SIGRTMIN+0"),
            (Signal::Sigrtminplus3, "SIGRTMIN+3"),
            (Signal::Sigrtmaxminus14, "SIGRTMAX-14"),
        ] {
            assert_eq!(to_name(signal as i32).as_deref(), Some(name));
            assert_eq!(from_name(name), signal, "{name}");
        }
        assert_eq!(to_name(Signal::RuntimeDefault as i32), None);
        assert_eq!(from_name("15"), Signal::Sigterm);
        assert_eq!(from_name("quit"), Signal::Sigquit);
        assert_eq!(from_name("nonsense"), Signal::RuntimeDefault);
    }
}
