//! What goes on as long as it likes: programs that are executed in guests, and archives of their files. Each has a thread and a
//! connection of its own, so that one who does not read holds up nobody, and there are no more than [`STREAMS`].

mod chunks;
mod exec;
mod files;
mod frames;
mod lines;
mod peer;
mod session;
mod told;
mod verb;

pub use exec::{ExecVm, exec};
pub use files::{ARCHIVE, get, put};
pub use peer::{Manners, Peer};
pub use told::ExecLine;

use super::call::Call;
use super::problem::{BUSY, CONFLICT, HOST, Problem};
use kvmlet_manager::{Error, Instance, State, View};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

/// As many there are at a time.
pub const STREAMS: usize = 32;

/// Work that speaks with its client itself. What fails before that has said anything is its answer.
pub type Stream = fn(&Call, &mut Peer) -> Result<(), Problem>;

/// How many there are.
#[derive(Clone, Debug, Default)]
pub struct Streams(Arc<AtomicUsize>);

/// One of them, until this is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams {
    fn place(&self) -> Result<Place, Problem> {
        let place = Place(Arc::clone(&self.0));
        match self.0.fetch_add(1, Ordering::Relaxed) < STREAMS {
            true => Ok(place),
            false => {
                let detail =
                    format!("{STREAMS} programs and archives are on their way, as many as may be");
                Err(Problem::new(BUSY, detail))
            }
        }
    }

    /// Begins one, which goes on when it is handed its client.
    pub fn begin(&self, call: Call, act: Stream) -> Result<Sender<Peer>, Problem> {
        let place = self.place()?;
        let (give, take) = channel::<Peer>();
        let go_on = move || {
            let _place = place;
            let Ok(mut peer) = take.recv() else {
                return;
            };
            // A fault of ours is one client's, and not all clients'.
            let acted = catch_unwind(AssertUnwindSafe(|| act(&call, &mut peer)));
            let acted = acted.unwrap_or_else(|_| {
                let detail = "kvmlet has a fault: its standard error tells more";
                Err(Problem::new(HOST, detail))
            });
            if let Err(problem) = acted {
                peer.refuse(problem);
            }
            peer.finish();
        };
        let spawned = std::thread::Builder::new().spawn(go_on);
        spawned.map_err(|error| Problem::because(BUSY, &error))?;
        Ok(give)
    }
}

/// A VM whose guest can be asked for something.
fn running(call: &Call) -> Result<(Instance, View), Problem> {
    let (instance, view) = call.look()?;
    match view.state {
        State::Paused => {
            let detail = format!("VM `{}` stands still", view.called());
            Err(Problem::new(CONFLICT, detail).help("resume it"))
        }
        state if !view.is_alive() => Err(Error::NotRunning {
            called: view.called().into(),
            state,
        }
        .into()),
        _ => Ok((instance, view)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_than_may_be() {
        let streams = Streams::default();
        let mut all: Vec<_> = (0..STREAMS).map(|_| streams.place().unwrap()).collect();
        for _ in 0..2 {
            let problem = streams.place().unwrap_err();
            assert_eq!((problem.status, problem.retryable), (503, true));
        }
        all.pop();
        let one = streams.place().unwrap();
        assert!(streams.place().is_err());
        drop((all, one));
        assert_eq!(streams.0.load(Ordering::Relaxed), 0);
    }
}
