//! What a VM tells, and what that answers.

use super::changes;
use super::code;
use super::fault::Fault;
use super::pending::{Pending, Saving};
use super::phase::Phase;
use super::vm::Vm;
use super::vmm::Event;
use super::writing::Writing;
use crate::http::Answer;
use kvmlet_control::Report;
use kvmlet_spec::{Failure, Outcome, Reason};
use kvmlet_sys::process::Ended;
use std::os::fd::OwnedFd;

type Answered = Option<Result<Answer, Fault>>;

impl Vm {
    /// Does what there is to do now, and returns the answer to what was asked, if it is there.
    pub fn turn(&mut self) -> Option<Answer> {
        let mut answered = self.look_at_writing();
        while answered.is_none()
            && let Some(process) = self.process.take()
        {
            let (process, event) = process.next();
            self.process = process;
            match event {
                None => break,
                Some(Event::Told(report, descriptor)) => answered = self.told(report, descriptor),
                Some(Event::Gone(ended)) => answered = self.gone(ended),
            }
        }
        let answer = answered?;
        if let Err(Fault(why)) = &answer {
            self.log.error(why);
        }
        Some(answer.unwrap_or_else(|fault| fault.answer()))
    }

    fn look_at_writing(&mut self) -> Answered {
        let Some(Pending::Save(saving)) = &self.pending else {
            return None;
        };
        let result = saving.writing.as_ref()?.as_ref().ok()?.result()?;
        self.pending = None;
        Some(result.map(|whole| {
            self.whole = whole.or(self.whole.take());
            Answer::done()
        }))
    }

    fn told(&mut self, report: Report, descriptor: Option<OwnedFd>) -> Answered {
        match report {
            Report::Ready => {
                let Some(Pending::Start {
                    phase,
                    is_deprecated,
                    ..
                }) = self.pending
                else {
                    return None;
                };
                (self.phase, self.pending) = (phase, None);
                let mut answer = Answer::done();
                answer.is_deprecated = is_deprecated;
                Some(Ok(answer))
            }
            Report::Stats(json) => {
                // Who has taken the VM over may send anything.
                self.stats = serde_json::from_slice(&json).ok();
                None
            }
            Report::Saving { most_bytes } => {
                self.write(most_bytes, descriptor);
                None
            }
            Report::Answer { to, refused } => {
                let is_for = self.pending.as_ref().and_then(Pending::number) == Some(to);
                is_for.then(|| self.answered(refused)).flatten()
            }
            Report::Ended(outcome) => {
                self.outcome = Some(*outcome);
                None
            }
            _ => None,
        }
    }

    /// Begins to write a VM that is being saved.
    fn write(&mut self, most_bytes: u64, pieces: Option<OwnedFd>) {
        let (Some(Pending::Save(saving)), Some(pieces)) = (&mut self.pending, pieces) else {
            return;
        };
        let told = kvmlet_control::Saving {
            pieces,
            most_bytes,
            number: saving.number,
        };
        let (asked, base) = (saving.asked.clone(), saving.base.clone());
        saving.writing = Some(Writing::begin(asked, base, told, &self.machine));
    }

    /// The VM has answered what was asked.
    fn answered(&mut self, refused: Option<Failure>) -> Answered {
        let pending = self.pending.take()?;
        let refused = refused.map(|why| Fault::of_failure(&why, None));
        if let Pending::Save(saving) = pending {
            return self.saved(saving, refused);
        }
        if let Some(fault) = refused {
            return Some(Err(fault));
        }
        match pending {
            Pending::Start { .. } | Pending::Save(_) => None,
            Pending::Move { phase, .. } => {
                self.phase = phase;
                Some(Ok(Answer::done()))
            }
            Pending::Change {
                mut orders,
                machine,
                ..
            } => match orders.pop() {
                None => {
                    self.machine = *machine;
                    Some(Ok(Answer::done()))
                }
                Some(next) => {
                    let asked = self.ask(next, |number| Pending::Change {
                        number,
                        orders,
                        machine,
                    });
                    asked.err().map(Err)
                }
            },
            Pending::Metrics { .. } => Some(self.write_metrics().map(|()| Answer::done())),
            Pending::Balloon { .. } => Some(changes::told(self.stats.as_ref()).map(Answer::told)),
        }
    }

    /// The VM has told all of itself, or does not.
    fn saved(&mut self, saving: Box<Saving>, refused: Option<Fault>) -> Answered {
        match &saving.writing {
            Some(Ok(writing)) => {
                writing.told(refused.map_or(Ok(()), Err));
                // Its writer is not done by that.
                self.pending = Some(Pending::Save(saving));
                None
            }
            Some(Err(why)) => Some(Err(why.clone())),
            // It does not know what has changed since.
            None if saving.base.is_some() && refused.is_some() => {
                self.begin_saving(saving.asked, None).err().map(Err)
            }
            None => Some(Err(refused.unwrap_or_else(Fault::ended))),
        }
    }

    /// The VM's process has ended.
    fn gone(&mut self, ended: Ended) -> Answered {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let mut failure = Failure::default();
            failure.message = match ended {
                Ended::Exited(code) => format!(
                    "the VM's process has ended with code {code}: its messages, on standard error or in the log, tell why"
                ),
                Ended::Killed(signal) => format!("the VM's process was killed by signal {signal}"),
            };
            Outcome::new(Reason::Failed).failure(failure)
        });
        match self.pending.take() {
            Some(Pending::Start { loads, .. }) if outcome.reason == Reason::Failed => {
                let failure = outcome.failure.clone().unwrap_or_default();
                let mut fault = Fault::of_failure(&failure, None);
                if loads {
                    // As Firecracker does: what was loaded by then cannot be told from what was not.
                    fault.0 = format!("Load snapshot error: {}", fault.0);
                    self.exit = Some(code::CONFIGURATION);
                } else {
                    self.prepare();
                }
                Some(Err(fault))
            }
            // A guest that ends at once has run.
            Some(Pending::Start { .. }) => {
                self.finish(&outcome);
                Some(Ok(Answer::done()))
            }
            // It was waiting, and somebody has ended it.
            None if self.phase == Phase::NotStarted => {
                self.log
                    .error("the process that waits for the VM has ended");
                None
            }
            None => {
                self.finish(&outcome);
                None
            }
            Some(_) => {
                self.finish(&outcome);
                Some(Err(Fault::ended()))
            }
        }
    }
}
