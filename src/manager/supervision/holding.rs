//! The process that starts an instance's program, where that may be suspended by itself: it holds what the VM has of its host
//! meanwhile, has the VM suspended when that is wanted, and tells when somebody wants something of one that is not there.
//!
//! It has all rights that its user has, and hears nobody but the instance's supervisor and the kernel.

use super::handing::{Given, How, asked, number, of_end, run};
use super::nap::{ENDED, LONGEST_WORDS, ROUSE, SUSPEND, TOLD, WANTED};
use super::{Begin, Holds};
use crate::passing::{hear, say};
use kvmlet_sys::process::{self, Child, Fork};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Instant;

struct Holder {
    held: Box<dyn Holds>,
    /// By which it is asked to start the program.
    socket: OwnedFd,
    /// By which it is asked for the rest.
    nap: OwnedFd,
    program: Option<Child>,
    /// The command that suspends the VM, and what it says of why it cannot.
    suspends: Option<(Child, PipeReader)>,
    dozes: bool,
    /// That it is wanted was told.
    told: bool,
}

/// What has come.
struct Woken {
    asked: bool,
    napped: bool,
    program: bool,
    suspends: bool,
    wanted: bool,
    held: bool,
}

/// Does that, as long as the supervisor is there.
pub(super) fn serve(socket: OwnedFd, nap: OwnedFd, held: Box<dyn Holds>) -> io::Result<()> {
    let mut holder = Holder {
        held,
        socket,
        nap,
        program: None,
        suspends: None,
        dozes: false,
        told: false,
    };
    let served = loop {
        match holder.turn() {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    holder.held.end();
    served
}

impl Holder {
    /// False when the supervisor is gone.
    fn turn(&mut self) -> io::Result<bool> {
        let woken = self.wait()?;
        if woken.held {
            for lost in self.held.turn() {
                self.tell(TOLD, &lost)?;
            }
        }
        if woken.program
            && let Some(program) = self.program.take()
        {
            let how = of_end(program.wait()?);
            send(&self.socket, &how, SendFlags::NOSIGNAL)?;
        }
        if woken.suspends
            && let Some(suspends) = self.suspends.take()
        {
            let _ = suspends.0.wait();
            say(&self.nap, ENDED, &[suspends.1.as_fd()])?;
        }
        if woken.wanted && !self.told {
            self.told = true;
            say(&self.nap, WANTED, &[])?;
        }
        if woken.napped && !self.hear()? {
            return Ok(false);
        }
        Ok(!woken.asked || self.start()?)
    }

    fn wait(&self) -> io::Result<Woken> {
        const OWN: usize = 4;
        let mut slots = vec![
            Slot::readable(self.socket.as_fd()),
            Slot::readable(self.nap.as_fd()),
            ended(self.program.as_ref()),
            ended(self.suspends.as_ref().map(|(child, _)| child)),
        ];
        if self.dozes && !self.told && self.program.is_none() {
            slots.extend(self.held.wanted());
        }
        let wanted = slots.len();
        slots.extend(self.held.slots());
        let due = self.held.due();
        wait::any_of(&mut slots, Until::from(due))?;
        let is = |place: usize| slots.get(place).is_some_and(Slot::is_ready);
        let due = due.is_some_and(|due| due <= Instant::now());
        Ok(Woken {
            asked: is(0),
            napped: is(1),
            program: is(2),
            suspends: is(3),
            wanted: slots[OWN..wanted].iter().any(Slot::is_ready),
            held: due || slots[wanted..].iter().any(Slot::is_ready),
        })
    }

    /// Does what is asked of what is held; false when nobody is there any more.
    fn hear(&mut self) -> io::Result<bool> {
        let Some((what, _)) = hear(&self.nap)? else {
            return Ok(false);
        };
        let done = match what {
            SUSPEND => self.suspend(),
            dozes => {
                self.dozes = dozes != ROUSE;
                self.told = false;
                self.held.doze(self.dozes)
            }
        };
        say(&self.nap, done.err().map_or(0, |error| number(&error)), &[])?;
        Ok(true)
    }

    fn suspend(&mut self) -> io::Result<()> {
        if self.suspends.is_some() {
            return Err(Errno::ALREADY.into());
        }
        let mut command = self.held.suspends();
        let (said, says) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(says);
        self.suspends = Some((process::spawn(&mut command)?, said));
        Ok(())
    }

    /// Tells the supervisor something, in words.
    fn tell(&self, what: i32, words: &str) -> io::Result<()> {
        let (said, mut says) = io::pipe()?;
        // It has room for a page at the least: nobody is waited for.
        says.write_all(&words.as_bytes()[..words.len().min(LONGEST_WORDS)])?;
        say(&self.nap, what, &[said.as_fd()])
    }

    /// Starts the program, if that is asked for.
    fn start(&mut self) -> io::Result<bool> {
        let Some((how, given)) = asked(&self.socket)? else {
            return Ok(false);
        };
        let begin = match how {
            How::Executed | How::Here => Begin::Boots,
            How::Restored => Begin::Restores,
            How::Resumed => Begin::Resumes,
        };
        self.held.prepare(begin);
        match process::fork(0, None) {
            Ok(Fork::Parent(program)) => {
                drop(given);
                say(&self.socket, 0, &[program.as_fd()])?;
                self.program = Some(program);
            }
            Ok(Fork::Child(lifeline)) => {
                std::mem::forget(lifeline);
                self.begin(begin, given)
            }
            Err(error) => say(&self.socket, number(&error), &[])?,
        }
        Ok(true)
    }

    /// The life of the process that is the program.
    fn begin(&mut self, begin: Begin, given: Given) -> ! {
        for theirs in [&self.socket, &self.nap] {
            // SAFETY: it is the parent's, and this process never comes back to what owns it.
            drop(unsafe { OwnedFd::from_raw_fd(theirs.as_raw_fd()) });
        }
        drop(self.suspends.take());
        run(|handed| self.held.run(handed, begin), given)
    }
}

/// That a child has ended, if there is one.
fn ended(child: Option<&Child>) -> Slot<'_> {
    match child {
        Some(child) => Slot::readable(child.as_fd()),
        None => Slot::NOTHING,
    }
}
