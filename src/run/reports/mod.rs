//! What a VM's process has to say: its outputs, and the messages of its channel, on their way to where they go.

mod output;

pub(crate) use output::{Outputs, TheirOutputs};

use kvmlet_control::{Channel, LONGEST, Received, Report, Request};
use kvmlet_spec::Outcome;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Takes statistics, as JSON of [`Stats`](kvmlet_spec::Stats). They come from the VM's process, and were not looked at.
pub type StatsSink = Box<dyn FnMut(&[u8])>;

/// More messages than a socket holds.
const QUEUED: usize = 1024;

/// What of it comes by way of the supervisor.
pub(crate) struct Reports {
    outputs: Option<Outputs>,
    channel: Channel,
    stats: Option<StatsSink>,
    /// Nobody sends any more.
    silent: bool,
    ready: bool,
    outcome: Option<Outcome>,
}

impl Reports {
    pub fn new(outputs: Option<Outputs>, channel: Channel, stats: Option<StatsSink>) -> Self {
        Self {
            outputs,
            channel,
            stats,
            silent: false,
            ready: false,
            outcome: None,
        }
    }

    /// What is to be read: outputs and messages.
    pub fn fds(&self) -> [Option<BorrowedFd<'_>>; 3] {
        let [out, err] = self.outputs.as_ref().map_or([None, None], Outputs::fds);
        [out, err, (!self.silent).then(|| self.channel.as_fd())]
    }

    /// Does the guest run?
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Asks the VM for something; false if it does not take any more for now. Of one that is gone the end is the answer.
    pub fn ask(&self, request: Request) -> bool {
        let asked = self.channel.try_send(&request.encode());
        !asked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same, with a descriptor.
    pub fn ask_with(&self, request: Request, descriptor: BorrowedFd<'_>) -> bool {
        let asked = (self.channel).try_send_with(&request.encode(), descriptor);
        !asked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Passes on what has come: one message, for a VM that sends without end keeps nobody from other work. Statistics
    /// may go to standard output, and come behind what the guest had written when they were sent. What is for whoever
    /// asks is returned.
    pub fn pass_on(&mut self) -> Option<Report> {
        let report = self.receive();
        if let Some(outputs) = &mut self.outputs {
            outputs.pass_on();
        }
        self.heed(report?)
    }

    /// Passes on all that is left when the VM's process has ended: what was sent before is there now, and of statistics
    /// the newest count.
    pub fn finish(&mut self) -> Option<Report> {
        let mut newest = None;
        for _ in 0..QUEUED {
            match self.receive() {
                Some(stats @ Report::Stats(_)) => newest = Some(stats),
                Some(report) => drop(self.heed(report)),
                None if self.silent => break,
                None => {}
            }
        }
        if let Some(outputs) = &mut self.outputs {
            outputs.finish();
        }
        self.heed(newest?)
    }

    /// How the VM has ended, as it has told itself.
    pub fn outcome(self) -> Option<Outcome> {
        self.outcome
    }

    fn receive(&mut self) -> Option<Report> {
        if self.silent {
            return None;
        }
        match self.channel.receive(LONGEST) {
            Received::One(message) => match Report::decode(&message) {
                Ok(report) => Some(report),
                Err(error) => {
                    log::debug!("the VM's process: {error}");
                    None
                }
            },
            Received::None => None,
            Received::Last => {
                self.silent = true;
                None
            }
        }
    }

    fn heed(&mut self, report: Report) -> Option<Report> {
        match &report {
            Report::Ready if self.ready => return None,
            Report::Ready => self.ready = true,
            Report::Stats(json) => {
                if let Some(sink) = &mut self.stats {
                    sink(json);
                }
            }
            Report::Ended(outcome) => {
                self.outcome = Some((**outcome).clone());
                return None;
            }
            _ => {}
        }
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_spec::Reason;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    fn reports() -> (Reports, Channel, Rc<RefCell<Vec<Vec<u8>>>>) {
        let (channel, theirs) = Channel::pair().unwrap();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let sink = heard.clone();
        let sink: StatsSink = Box::new(move |json| sink.borrow_mut().push(json.to_vec()));
        (Reports::new(None, channel, Some(sink)), theirs, heard)
    }

    #[test]
    fn a_vm_that_sends_without_end_keeps_nobody_from_other_work() {
        let (mut reports, theirs, heard) = reports();
        let message = Report::Stats(b"{}".to_vec()).encode();
        let flood = std::thread::spawn(move || while theirs.send(&message).is_ok() {});
        let since = Instant::now();
        // Each returns, though there is always more.
        while heard.borrow().len() < 100 {
            reports.pass_on();
        }
        assert!(since.elapsed() < Duration::from_secs(10));
        assert_eq!(heard.borrow()[0], b"{}");
        reports.finish();
        assert!(since.elapsed() < Duration::from_secs(20));
        drop(reports);
        flood.join().unwrap();
    }

    #[test]
    fn at_the_end_the_newest_counts() {
        let (mut reports, theirs, heard) = reports();
        for number in 0..50 {
            let json = format!("{{\"number\":{number}}}");
            theirs.send(&Report::Stats(json.into()).encode()).unwrap();
        }
        theirs.send(b"no message").unwrap();
        let ended = |reason| Report::Ended(Box::new(Outcome::new(reason))).encode();
        theirs.send(&ended(Reason::Reset)).unwrap();
        theirs.send(&ended(Reason::Panic)).unwrap();
        drop(theirs);
        reports.finish();
        assert_eq!(*heard.borrow(), [b"{\"number\":49}"]);
        assert_eq!(reports.outcome().unwrap().reason, Reason::Panic);
    }

    #[test]
    fn readiness_is_told_once() {
        let (mut reports, theirs, _) = reports();
        for _ in 0..3 {
            theirs.send(&Report::Ready.encode()).unwrap();
        }
        assert!(!reports.is_ready());
        assert_eq!(reports.pass_on(), Some(Report::Ready));
        assert!(reports.is_ready());
        assert_eq!((reports.pass_on(), reports.pass_on()), (None, None));
    }
}
