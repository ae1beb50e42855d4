//! The end of a VM, where somebody wants that.

use super::channel::Channel;
use super::ending::Ending;
use super::running::{Ran, Running};
use super::{GO_ON, Last, Noted, Supervisor};
use crate::{Error, Owned};
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the disk of a log may take at the end, before what it has not taken is given up.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How a service is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it was run with.
    Usual,
    /// As somebody has said, where they have.
    Asked {
        /// By this signal.
        signal: Option<u8>,
        /// It has this long.
        timeout: Option<Duration>,
    },
}

impl Manner {
    fn has_no_time(self) -> bool {
        matches!(self, Self::Asked { timeout, .. } if timeout == Some(Duration::ZERO))
    }
}

impl Supervisor<'_> {
    /// Somebody wants the end. Who wants it again does not want to wait.
    pub(super) fn stop(
        &mut self,
        ending: Ending,
        manner: Manner,
        running: &mut Running,
        channel: Option<&mut Channel>,
    ) -> Result<(), Error> {
        let again = self.stopped;
        self.note_stop(ending)?;
        let signal = ending.signal;
        if self.keeper.record().step == Noted::Paused {
            // A guest that stands still hears nothing.
            running.resume();
        }
        match channel {
            Some(_) if again => {
                self.say("kvmlet: the guest's power is cut: it was to be stopped once more");
                running.cut();
            }
            // It asks neither the service nor the guest.
            Some(_) if signal == libc::SIGQUIT => {
                self.say("kvmlet: the guest's power is cut: it was asked for (SIGQUIT)");
                running.cut_by(signal);
            }
            Some(_) if manner.has_no_time() => {
                self.say("kvmlet: the guest's power is cut: its service was given no time");
                self.killed = true;
                running.cut_by(libc::SIGQUIT);
            }
            Some(channel) => {
                // One whose service does not run yet is asked as all are.
                let (by, timeout) = match manner {
                    Manner::Usual => (None, None),
                    Manner::Asked { signal, timeout } => (signal, timeout),
                };
                self.stop_timeout = timeout.unwrap_or(self.stop_timeout);
                if !channel.stop(by, timeout, self.stop_timeout) {
                    running.signal(signal);
                }
            }
            None => running.signal(signal),
        }
        Ok(())
    }

    pub(super) fn note_stop(&mut self, ending: Ending) -> Result<(), Error> {
        if self.is_stopped(ending.host_ends)? {
            self.tell("stop", []);
        }
        Ok(())
    }

    /// Somebody wants the end, or the host goes down; true if that is new.
    pub(super) fn is_stopped(&mut self, host_ends: bool) -> Result<bool, Error> {
        let new = !std::mem::replace(&mut self.stopped, true);
        if new && !host_ends {
            self.keeper.stopped(true)?;
        }
        Ok(new)
    }

    /// Its service is sent a signal by somebody who, if it is one that asks for its end, does not want it to be started again.
    pub(super) fn note_signal(&mut self, signal: u8) -> Result<(), Error> {
        if signal == self.stop_signal && !std::mem::replace(&mut self.unwanted, true) {
            self.keeper.stopped(true)?;
        }
        Ok(())
    }

    /// Waits until it is time to start again; false if somebody wants the end before.
    pub(super) fn pause(&mut self, time: Duration) -> Result<bool, Error> {
        let path = self.keeper.directory().path().to_path_buf();
        let slot = Slot::readable(self.signals.as_fd());
        let signalled = wait::one(slot, Until::after(time)).map_err(Error::file(&path))?;
        if signalled
            && let Some(sent) = self.signals.next_sent().map_err(Error::file(&path))?
            && sent.signal != GO_ON
        {
            self.note_stop(sent.into())?;
            return Ok(false);
        }
        Ok(!self.stopped)
    }

    pub(super) fn finish(mut self, ran: Ran) -> Result<(Owned, Last), Error> {
        if let Some(log) = self.log.take() {
            let lost = log.finish(LOG_PATIENCE);
            if lost > 0 {
                log::warn!("{lost} entries of the log are lost: its disk does not take them");
            }
        }
        let Ran {
            code, error, began, ..
        } = ran;
        let suspended = self.resumes || self.suspended;
        // Whoever waits for the lock may have what it had of the host.
        self.starter.end();
        let owned = match suspended {
            true => self.keeper.stay_suspended()?,
            false => self.keeper.end(code, error.as_deref())?,
        };
        let last = Last {
            // It has not failed, if nobody wanted it to go on.
            code: if self.suspended { 0 } else { code },
            error,
            began,
            suspended,
        };
        Ok((owned, last))
    }
}
