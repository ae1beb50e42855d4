//! What instances write, kept as docker's json-file driver keeps it: one JSON object an entry (`log`, `stream`, `time`), in
//! files that are put aside when they are full (`log`, `log.1`, …), of which there is a fixed number.
//!
//! An entry is a line with its end, or a part of one: what is longer than [`PART_BYTES`], or has not been ended for a
//! moment, as a prompt. Bytes that are not UTF-8 are written as `\udc80` to `\udcff`, which docker's readers take for unknown
//! characters and kvmlet's for the bytes that they were.

mod entry;
mod follow;
mod lines;
mod reader;
mod text;
mod writer;

pub use entry::{Entry, Stream};
pub use follow::Follower;
pub use lines::PART_BYTES;
pub use reader::{Reader, Selection, Streams};
pub use writer::{LogWriter, Lost, QUEUE_BYTES};

/// The name of the files.
const FILES: &str = "log";
