//! Suspensions whose client was killed.

use crate::{Error, Instance, State};
use kvmlet_control::{ConnectionError, Order};
use std::time::Duration;

/// How long a VM has to say whether it stands still.
const PATIENCE: Duration = Duration::from_secs(40);

impl Instance {
    /// Finds out what has come of a suspension whose client has ended in the middle: true if it is suspended, or is from now
    /// on. If it goes on, what was saved of it is gone.
    ///
    /// # Errors
    /// When neither is known.
    pub fn settle_suspension(&self) -> Result<bool, Error> {
        // Its client had it.
        let _turn = self.turn()?;
        let called = self.called();
        if let Ok(mut control) = self.control(&called) {
            let asked = control.connection().ask(Order::Suspended, PATIENCE);
            match asked {
                // It goes on, and nothing can bring it to stand still for that file.
                Err(ConnectionError::Refused(_)) => {
                    self.forget_saved()?;
                    return Ok(false);
                }
                Err(ConnectionError::Late(_)) => return Ok(false),
                Ok(_) | Err(_) => drop(self.wait_for_run()?),
            }
        }
        Ok(self.state()? == State::Suspended)
    }
}
