//! Where a guest's output goes: to a writer whose reader may stand still.
//!
//! A guest waits for that reader, as it would for a slow line: nothing is lost, and nothing piles up. Only when vCPUs
//! are called back, because the VM is paused or ends, does nobody wait. What has no room then is kept, up to
//! a limit, and what there is no room for at all is counted and told of.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The most that is kept while nobody waits, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// Whether vCPUs are called back from whatever they wait for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recall(Arc<AtomicBool>);

impl Recall {
    /// Calls them back, or lets them wait again.
    pub fn set(&self, called: bool) {
        self.0.store(called, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Bytes on their way to a writer.
pub struct Outlet {
    writer: Box<dyn Write + Send>,
    recall: Recall,
    kept: VecDeque<u8>,
    lost_bytes: u64,
    failed: bool,
    /// Some was dropped.
    gave_up: bool,
}

impl Outlet {
    /// An outlet that waits for the writer unless it is called back. Whoever does that also interrupts the call that
    /// the writer may be in (EINTR).
    pub fn new(writer: Box<dyn Write + Send>, recall: Recall) -> Self {
        Self {
            writer,
            recall,
            kept: VecDeque::new(),
            lost_bytes: 0,
            failed: false,
            gave_up: false,
        }
    }

    /// Writes bytes, behind those that are kept.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        let room = bytes.len().min(KEPT_BYTES - self.kept.len());
        self.kept.extend(&bytes[..room]);
        self.lost_bytes += (bytes.len() - room) as u64;
        self.drain();
    }

    /// Writes what is kept.
    pub fn drain(&mut self) {
        while !self.kept.is_empty() && !self.recall.is_set() {
            let (first, _) = self.kept.as_slices();
            match self.writer.write(first) {
                Ok(0) => self.fail(&io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.kept.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.fail(&error),
            }
        }
        if !self.recall.is_set() && !self.failed {
            match self.writer.flush() {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => self.fail(&error),
                _ => {}
            }
        }
    }

    /// Drops what is kept, and tells how much was dropped.
    pub fn give_up(&mut self) {
        let lost =
            std::mem::take(&mut self.lost_bytes) + std::mem::take(&mut self.kept).len() as u64;
        if lost > 0 {
            self.gave_up = true;
            log::warn!("console output was dropped, {lost} B: its reader stood still");
        }
    }

    /// Is there output that was not written?
    pub fn has_lost(&self) -> bool {
        self.failed || self.gave_up || !self.kept.is_empty() || self.lost_bytes > 0
    }

    /// Output that fails does not stop a guest; that it failed is said once.
    fn fail(&mut self, error: &io::Error) {
        log::warn!("console output is lost from here on: {error}");
        self.failed = true;
        self.kept.clear();
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::{Duration, Instant};

    #[test]
    fn all_output_arrives_at_a_slow_reader() {
        let (mut reader, writer) = io::pipe().unwrap();
        let read = std::thread::spawn(move || {
            let (mut bytes, mut buffer) = (Vec::<u8>::new(), [0; 65_536]);
            loop {
                std::thread::sleep(Duration::from_micros(500));
                match reader.read(&mut buffer).unwrap() {
                    0 => return bytes,
                    count => bytes.extend(&buffer[..count]),
                }
            }
        });
        let all: Vec<u8> = (0..10u32 << 20).map(|index| (index / 7) as u8).collect();
        let mut outlet = Outlet::new(Box::new(writer), Recall::default());
        all.chunks(1000).for_each(|chunk| outlet.put(chunk));
        drop(outlet);
        assert!(read.join().unwrap() == all);
    }

    #[test]
    fn who_is_called_back_waits_for_no_reader_and_keeps_what_has_room() {
        let (mut reader, writer) = io::pipe().unwrap();
        let recall = Recall::default();
        let mut outlet = Outlet::new(Box::new(writer), recall.clone());
        outlet.put(b"before ");
        recall.set(true);
        let since = Instant::now();
        let much = vec![b'x'; KEPT_BYTES - 10];
        outlet.put(&much);
        outlet.put(b"0123456789 and too much");
        assert!(since.elapsed() < Duration::from_secs(5));
        assert_eq!((outlet.kept.len(), outlet.lost_bytes), (KEPT_BYTES, 13));
        recall.set(false);
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        outlet.drain();
        drop(outlet);
        let text = read.join().unwrap();
        assert!(text.starts_with("before x") && text.ends_with("x0123456789"));
    }

    #[test]
    fn a_reader_that_is_gone_is_no_problem() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut outlet = Outlet::new(Box::new(writer), Recall::default());
        outlet.put(b"nobody");
        outlet.put(b"listens");
        assert!(outlet.failed && outlet.kept.is_empty());
    }
}
