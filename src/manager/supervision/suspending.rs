//! An instance whose VM stands still and goes on, or goes into a file and comes back from there.

use super::channel::Channel;
use super::running::Running;
use super::{Noted, Step, Supervisor, Told};
use crate::Error;
use kvmlet_control::State as VmState;
use kvmlet_spec::supervision::Span;
use kvmlet_sys::causes;

impl Supervisor<'_> {
    /// Notes what the VM is doing. Whoever wants its end by the control socket tells that itself.
    pub(super) fn heed(
        &mut self,
        state: VmState,
        running: &mut Running,
        channel: Option<&mut Channel>,
    ) -> Result<(), Error> {
        let step = self.keeper.record().step;
        match state {
            VmState::Paused if step == Noted::Running => {
                self.stand_still(true);
                self.keeper.paused()?;
                self.tell("pause", []);
            }
            VmState::Running if step == Noted::Paused => {
                self.stand_still(false);
                if let Some(channel) = channel {
                    channel.stood_still();
                }
                self.keeper.running()?;
                self.tell("unpause", []);
            }
            VmState::Suspended => self.suspend(running),
            // Of one that is in its file nobody wants an end: it is what cuts its power.
            VmState::Ending if !self.suspended => {
                self.is_stopped(false)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn stand_still(&mut self, still: bool) {
        if let Some(checks) = &mut self.checks {
            checks.stand_still(still);
        }
    }

    /// Its VM was saved, by whoever has asked it to stand still since: it is noted before its power is cut. It goes on where that
    /// cannot be.
    fn suspend(&mut self, running: &mut Running) {
        let runs = matches!(self.keeper.record().step, Noted::Running | Noted::Paused);
        let by_itself = self.by_itself;
        let noted = runs.then(|| self.keeper.suspended(by_itself));
        match noted {
            Some(Ok(())) => {
                (self.suspended, self.checks) = (true, None);
                self.hold();
                match (&self.idle, by_itself) {
                    (Some(idle), true) => {
                        let span = Span::from(idle.span());
                        self.say(&format!(
                            "kvmlet: the service is suspended: it was not used for {span}"
                        ));
                        self.tell("suspend", [("reason", "idle".into())]);
                    }
                    _ => {
                        self.say("kvmlet: the service is suspended");
                        self.tell("suspend", []);
                    }
                }
                // Nothing less would have its guest go on, and be asked.
                running.cut_by(libc::SIGQUIT);
            }
            Some(Err(error)) => {
                let why = causes::in_a_line(&error);
                self.say(&format!("kvmlet: the service is not suspended: {why}"));
                running.resume();
            }
            None => running.resume(),
        }
    }

    /// Its VM is there: one that was suspended may run from now on, which it does once, whatever becomes of this process and its
    /// host.
    pub(super) fn go_on(&mut self, running: &mut Running) -> Result<(), Error> {
        if std::mem::take(&mut self.resumes) {
            self.keeper.goes_on()?;
            self.resumed = true;
            if let Some(Err(error)) = self.nap.as_mut().map(|nap| nap.doze(false)) {
                self.say(&format!("kvmlet: its network is not as it was: {error}"));
            }
            self.say("kvmlet: the service is resumed");
            running.resume();
        }
        Ok(())
    }

    /// It does not run, which is told whoever waits for it, if nothing else was.
    pub(super) fn fails(&mut self, why: &str, told: &mut Option<Told<'_>>) -> Result<(), Error> {
        if self.resumes {
            self.keeper.not_resumed(why)?;
            self.say(&format!("kvmlet: the service cannot be resumed: {why}"));
        }
        if let Some(told) = told.take() {
            told(Step::Fails(why));
        }
        Ok(())
    }
}
