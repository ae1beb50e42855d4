//! How far a transfer is, layer by layer: for who sits at a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvmlet_image::Digest;
use std::time::Duration;

/// Where a layer is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Another command is at it.
    Waiting,
    /// It comes or goes, and this many bytes more have.
    Moved(u64),
    /// It was there.
    Exists,
    /// It is done.
    Done,
}

/// Bars on standard error, or nothing.
pub struct Progress {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
}

const TICK: Duration = Duration::from_millis(100);

impl Progress {
    /// One for layers of these digests and lengths, in bytes.
    pub fn new(shown: bool, layers: impl Iterator<Item = (Digest, u64)>) -> Self {
        let target = match shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let all = MultiProgress::with_draw_target(target);
        let bars = layers
            .map(|(digest, length)| {
                let bar = all.add(
                    ProgressBar::new(length)
                        .with_style(style("{bytes:>10}/{total_bytes:10} {bar:30}")),
                );
                bar.set_prefix(short(&digest));
                bar
            })
            .collect();
        Self { all, bars }
    }

    /// Notes where a layer is.
    pub fn note(&self, layer: usize, stage: Stage) {
        let Some(bar) = self.bars.get(layer) else {
            return;
        };
        match stage {
            Stage::Waiting => {
                bar.set_message("another command is at it");
                bar.enable_steady_tick(TICK);
            }
            Stage::Moved(bytes) => {
                bar.disable_steady_tick();
                bar.set_message("");
                bar.inc(bytes);
            }
            Stage::Exists => {
                bar.set_style(style("already there"));
                bar.finish();
            }
            Stage::Done => {
                bar.set_style(style("done {total_bytes}"));
                bar.finish();
            }
        }
    }

    /// Takes all of it off the terminal.
    pub fn clear(&self) {
        // A terminal that is gone shows nothing anyway.
        let _ = self.all.clear();
    }
}

fn style(rest: &str) -> ProgressStyle {
    let template = format!("{{prefix}} {rest} {{msg}}");
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The first digits of a digest, as docker shows them.
pub fn short(digest: &Digest) -> String {
    let text = digest.to_string();
    let digits = text.split_once(':').map_or("", |(_, digits)| digits);
    digits.chars().take(12).collect()
}
