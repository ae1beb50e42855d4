//! A thread that serves an active device and gives back what it was given.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use vmm_sys_util::eventfd::EventFd;

/// Tells a worker to end: readable from then on.
#[derive(Clone, Debug)]
pub struct Stop(Arc<EventFd>);

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::new(
            libc::EFD_NONBLOCK | libc::EFD_CLOEXEC,
        )?)))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is owned by `self.0`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// A running worker. [`stop`](Self::stop) returns the state that its thread ends with; dropping it stops too.
pub struct Worker<T> {
    stop: Stop,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Runs `serve` on a thread of its own until it returns, which it must soon after [`Stop`] is readable.
    ///
    /// # Errors
    /// When the host gives no thread or event.
    pub fn start(name: &str, serve: impl FnOnce(&Stop) -> T + Send + 'static) -> io::Result<Self> {
        let stop = Stop::new()?;
        let for_thread = stop.clone();
        // The kernel keeps 15 characters of a thread's name.
        let thread = Builder::new()
            .name(name.into())
            .spawn(move || serve(&for_thread))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the thread and returns what it gives back; `None` if it panicked.
    pub fn stop(mut self) -> Option<T> {
        self.end()
    }

    fn end(&mut self) -> Option<T> {
        // Cannot fail: the counter is far from full.
        let _ = self.stop.0.write(1);
        self.thread.take()?.join().ok()
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        let _ = self.stop.0.write(1);
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has nothing to give back.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn stop_gives_back_the_state() {
        let state = vec![1, 2, 3];
        let worker = Worker::start("test", move |stop| {
            poll(
                &mut [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)],
                None,
            )
            .unwrap();
            state
        })
        .unwrap();
        assert_eq!(worker.stop(), Some(vec![1, 2, 3]));
    }
}
