//! How far a pull is, in Docker's words: on a terminal one line for each layer, which changes; else a line for each
//! change. To standard error: standard output is the result's.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reeve_engine::images::{Digest, PullEvent, PullTeller, Reference};
use tokio::time::Instant;

use super::list::size;

/// A terminal is drawn anew at most so often.
const DRAWN_EVERY: Duration = Duration::from_millis(100);
/// Characters of a bar; Docker's.
const BAR_LEN: u64 = 50;

/// Tells how far a pull is.
#[derive(Clone)]
pub(super) struct PullReport(Arc<Mutex<View>>);

/// What is shown. Pure, but for the time.
struct View {
    how: How,
    digest: Option<Digest>,
    layers: Vec<(Digest, Layer)>,
    /// When the terminal was drawn last.
    drawn: Option<Instant>,
    /// Lines of it that are ours.
    lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Quiet,
    Lines,
    Terminal,
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Waiting,
    Known,
    Coming { bytes: u64, size: u64 },
    Whole,
    Unpacked,
}

impl PullReport {
    /// Says what is pulled.
    pub(super) fn begin(image: &Reference, quiet: bool) -> Self {
        let how = match (quiet, stderr().is_terminal()) {
            (true, _) => How::Quiet,
            (_, true) => How::Terminal,
            _ => How::Lines,
        };
        if how != How::Quiet {
            let version = image.tag().unwrap_or_else(|| image.digest().map_or("", Digest::as_str));
            eprintln!("{version}: Pulling from {}", image.path());
        }
        Self(Arc::new(Mutex::new(View { how, digest: None, layers: Vec::new(), drawn: None, lines: 0 })))
    }

    /// For the engine.
    pub(super) fn teller(&self) -> PullTeller {
        let report = self.clone();
        Arc::new(move |event| report.with(|view| view.take(event)))
    }

    /// The last of it; the digest that the name leads to.
    pub(super) fn end(&self, complete: bool) -> Option<Digest> {
        self.with(|view| if complete { view.complete() } else { view.draw() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).digest.clone()
    }

    fn with(&self, change: impl FnOnce(&mut View) -> String) {
        let text = change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Who does not want to see it any more does not.
        let _ = stderr().write_all(text.as_bytes());
    }
}

impl View {
    /// Takes in what happened; what is to be written now.
    fn take(&mut self, event: PullEvent) -> String {
        let (digest, new) = match event {
            PullEvent::Resolved { digest, layers } => {
                self.digest = Some(digest);
                // Again, when a mirror did not have it all.
                self.layers.clear();
                for layer in layers {
                    if !self.layers.iter().any(|(known, _)| *known == layer) {
                        self.layers.push((layer, Layer::Waiting));
                    }
                }
                let lines = self.layers.iter().map(|(digest, layer)| line(digest, *layer)).collect();
                return if self.how == How::Lines { lines } else { self.draw() };
            }
            PullEvent::Known(digest) => (digest, Layer::Known),
            PullEvent::Came { digest, bytes, size } => (digest, Layer::Coming { bytes, size }),
            PullEvent::Whole(digest) => (digest, Layer::Whole),
        };
        let Some((digest, layer)) = self.layers.iter_mut().find(|(known, _)| *known == digest) else {
            return String::new();
        };
        *layer = new;
        match (self.how, new) {
            (How::Lines, Layer::Known | Layer::Whole) => line(digest, new),
            (How::Terminal, Layer::Coming { .. }) if self.drawn.is_some_and(|at| at.elapsed() < DRAWN_EVERY) => {
                String::new()
            }
            (How::Terminal, _) => self.draw(),
            _ => String::new(),
        }
    }

    /// Everything is here and unpacked.
    fn complete(&mut self) -> String {
        let mut lines = String::new();
        for (digest, layer) in &mut self.layers {
            if *layer != Layer::Known {
                *layer = Layer::Unpacked;
                lines.push_str(&line(digest, *layer));
            }
        }
        if self.how == How::Lines { lines } else { self.draw() }
    }

    /// All lines in the place of those before.
    fn draw(&mut self) -> String {
        if self.how != How::Terminal {
            return String::new();
        }
        self.drawn = Some(Instant::now());
        let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
        self.lines = self.lines.max(self.layers.len());
        let lines = self.layers.iter().map(|(digest, layer)| format!("\x1b[2K{}", line(digest, *layer)));
        lines.fold(up, |text, line| text + &line)
    }
}

fn line(digest: &Digest, layer: Layer) -> String {
    let state = match layer {
        Layer::Waiting => "Pulling fs layer".to_owned(),
        Layer::Known => "Already exists".to_owned(),
        Layer::Coming { bytes, size: all } => {
            let full = bytes.saturating_mul(BAR_LEN).checked_div(all).unwrap_or(BAR_LEN).min(BAR_LEN);
            let (done, left) = ("=".repeat(usize::try_from(full).unwrap_or(0)), BAR_LEN - full);
            let bar = format!("{done}>{}", " ".repeat(usize::try_from(left).unwrap_or(0)));
            format!("Downloading [{bar}] {:>8}/{}", size(bytes), size(all))
        }
        Layer::Whole => "Download complete".to_owned(),
        Layer::Unpacked => "Pull complete".to_owned(),
    };
    format!("{}: {state}\n", digest.hex().get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn view(how: How) -> View {
        View { how, digest: None, layers: Vec::new(), drawn: None, lines: 0 }
    }

    /// A pull of two layers, one of which is here; without the digests.
    fn told(view: &mut View) -> Vec<String> {
        let (one, two) = (digest(1), digest(2));
        let came = |bytes| PullEvent::Came { digest: two.clone(), bytes, size: 1000 };
        let events = [
            PullEvent::Resolved { digest: digest(0), layers: vec![one.clone(), two.clone(), one.clone()] },
            PullEvent::Known(one.clone()),
            PullEvent::Known(digest(9)),
            came(500),
            came(600),
            PullEvent::Whole(two.clone()),
        ];
        let mut told: Vec<String> = events.into_iter().map(|event| view.take(event)).collect();
        told.push(view.complete());
        let short = |text: String| text.replace(&one.hex()[..12], "1").replace(&two.hex()[..12], "2");
        told.into_iter().map(short).collect()
    }

    #[test]
    fn without_a_terminal_every_change_is_a_line_in_dockers_words() {
        let expected =
            ["1: Pulling fs layer\n2: Pulling fs layer\n", "1: Already exists\n", "", "", "", "2: Download complete\n"];
        let told = told(&mut view(How::Lines));
        assert_eq!(told[..6], expected);
        assert_eq!(told[6], "2: Pull complete\n");
        assert!(self::told(&mut view(How::Quiet)).concat().is_empty());
    }

    #[test]
    fn on_a_terminal_each_layer_has_a_line_that_changes() {
        let told = told(&mut view(How::Terminal));
        assert_eq!(told[0], "\x1b[2K1: Pulling fs layer\n\x1b[2K2: Pulling fs layer\n");
        assert_eq!(told[1], "\x1b[2A\x1b[2K1: Already exists\n\x1b[2K2: Pulling fs layer\n");
        assert_eq!(told[3], "", "drawn a moment ago");
        assert_eq!(told[6], "\x1b[2A\x1b[2K1: Already exists\n\x1b[2K2: Pull complete\n");
        let half = line(&digest(1), Layer::Coming { bytes: 500, size: 1000 });
        assert!(
            half.ends_with(&format!("Downloading [{}>{}]     500B/1kB\n", "=".repeat(25), " ".repeat(25))),
            "{half}"
        );
    }
}
