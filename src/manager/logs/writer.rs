//! Writing a log, by somebody who must not wait: a supervisor has a guest to attend, and a disk may stand still.

use super::lines::Partial;
use super::{Entry, Stream};
use crate::rotated::Files;
use crate::{LogLimits, Moment};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::thread::{lock, wait};
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What waits for the disk, in bytes; the same once more is being written. Beyond that entries are dropped and counted.
pub const QUEUE_BYTES: usize = 256 << 10;
/// After a failure (a full disk, say) the disk is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// Entries that nobody will ever read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub entries: u64,
    /// How much of a guest's text was in them.
    pub bytes: u64,
    /// Some of it was the service's.
    pub of_service: bool,
}

impl Lost {
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.bytes += entry.text.len() as u64;
        self.of_service |= matches!(entry.stream, Stream::Stdout | Stream::Stderr);
    }
}

/// A log that is written. Nothing here waits for a disk but [`finish`](Self::finish), which waits as long as it is told.
///
/// It takes two buffers of [`QUEUE_BYTES`] and, for each stream, a part of a line, and one thread.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    partials: [Partial; 4],
    line: String,
    /// Since something was written last.
    lost: Lost,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<u8>,
    entries: u64,
    /// Entries that are being written.
    under_way: u64,
    /// No more will come.
    finished: bool,
    /// All is written that will be.
    done: bool,
    /// Entries that could not be written.
    unwritten: u64,
}

impl LogWriter {
    /// Goes on with the log in a directory, or begins one.
    ///
    /// # Errors
    /// When it cannot be written, or the host gives no thread.
    pub fn open(directory: &Directory, limits: LogLimits) -> io::Result<Self> {
        Self::confined(directory, limits, || Ok(()))
    }

    /// The same with a thread that calls this first: it opens files, writes and renames them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn confined(
        directory: &Directory,
        limits: LogLimits,
        confine: fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        let files = Files::open(directory, super::FILES, limits)?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("log".into())
            .stack_size(128 << 10);
        thread.spawn(move || {
            if let Err(error) = confine() {
                log::warn!("the writer of a log keeps rights that it does not need: {error}");
            }
            theirs.serve(files);
        })?;
        Ok(Self {
            shared,
            partials: Stream::ALL.map(Partial::of),
            line: String::new(),
            lost: Lost::default(),
        })
    }

    /// Takes what has come from a stream.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Moment) {
        self.each(|partial, give| {
            if partial.is_of(stream) {
                partial.push(bytes, now, give);
            }
        });
    }

    /// How long until [`give_up_waiting`](Self::give_up_waiting) is to be called.
    pub fn due(&self, now: Moment) -> Option<Duration> {
        self.partials
            .iter()
            .filter_map(|partial| partial.due(now))
            .min()
    }

    /// Writes what has waited for the end of its line for long enough.
    pub fn give_up_waiting(&mut self, now: Moment) {
        self.each(|partial, give| partial.give_up(now, give));
    }

    /// Writes all there is, and waits until the disk has it, but not longer than `patience`. Returns how many entries it
    /// does not have then, of those that were not counted in the log itself.
    pub fn finish(mut self, patience: Duration) -> u64 {
        self.each(|partial, give| partial.finish(give));
        if self.lost.entries > 0 {
            self.tell_lost(Moment::now());
        }
        let deadline = Instant::now() + patience;
        let mut queue = lock(&self.shared.queue);
        queue.finished = true;
        self.shared.changed.notify_all();
        while !queue.done {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        queue.unwritten + queue.under_way + queue.entries + self.lost.entries
    }

    /// Does something with what there is of each line, and queues what comes of it.
    fn each(&mut self, mut act: impl FnMut(&mut Partial, &mut dyn FnMut(Entry))) {
        let mut partials = std::mem::replace(&mut self.partials, Stream::ALL.map(Partial::of));
        for partial in &mut partials {
            act(partial, &mut |entry| self.put(&entry));
        }
        self.partials = partials;
    }

    fn put(&mut self, entry: &Entry) {
        if self.lost.entries > 0 && !self.tell_lost(entry.time) {
            return self.lost.add(entry);
        }
        if !self.queue(entry) {
            self.lost.add(entry);
        }
    }

    /// False if there is no room.
    fn queue(&mut self, entry: &Entry) -> bool {
        self.line.clear();
        entry.push(&mut self.line);
        let mut queue = lock(&self.shared.queue);
        if queue.lines.len() + self.line.len() > QUEUE_BYTES {
            return false;
        }
        queue.lines.extend_from_slice(self.line.as_bytes());
        queue.entries += 1;
        self.shared.changed.notify_all();
        true
    }

    /// Writes down what was dropped, where it was; false if there is no room for that either.
    fn tell_lost(&mut self, time: Moment) -> bool {
        let Lost {
            entries,
            bytes,
            of_service,
        } = self.lost;
        let text = format!(
            "{entries} entries with {bytes} bytes were dropped here: they came faster than the disk takes them\n"
        );
        let told = self.queue(&Entry {
            time,
            stream: match of_service {
                true => Stream::Dropped,
                false => Stream::Kvmlet,
            },
            text: text.into(),
        });
        if told {
            self.lost = Lost::default();
        }
        told
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        lock(&self.shared.queue).finished = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// Writes what comes until no more does.
    fn serve(&self, mut files: Files) {
        let mut lines = Vec::new();
        // Entries that the disk has not taken, which is not told yet.
        let mut untold = 0;
        loop {
            let last = self.take(&mut lines);
            if untold > 0 {
                lines.splice(..0, untaken(untold).bytes());
            }
            let written = files.write(&lines);
            let mut queue = lock(&self.queue);
            let entries = std::mem::take(&mut queue.under_way);
            if written.is_ok() {
                queue.unwritten -= std::mem::take(&mut untold);
            }
            if let Err(error) = written {
                if queue.unwritten == 0 {
                    log::warn!("what a guest writes is not kept: {error}");
                }
                queue.unwritten += entries;
                untold += entries;
                let waited = self
                    .changed
                    .wait_timeout_while(queue, PAUSE, |queue| !queue.finished);
                drop(waited.unwrap_or_else(std::sync::PoisonError::into_inner));
            }
            if last {
                break;
            }
        }
        lock(&self.queue).done = true;
        self.changed.notify_all();
    }

    /// Waits for lines, and takes all there are; true with the last.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        lines.clear();
        let mut queue = lock(&self.queue);
        while queue.lines.is_empty() && !queue.finished {
            queue = wait(&self.changed, queue);
        }
        std::mem::swap(lines, &mut queue.lines);
        queue.under_way = std::mem::take(&mut queue.entries);
        queue.finished
    }
}

/// What says, where they were, that the disk has not taken entries; whose they were is not known any more.
fn untaken(entries: u64) -> String {
    let mut line = String::new();
    let text = format!("{entries} entries were dropped here: the disk did not take them\n");
    Entry {
        time: Moment::now(),
        stream: Stream::Dropped,
        text: text.into(),
    }
    .push(&mut line);
    line
}

#[cfg(test)]
mod tests;
