//! Clients, without a guest.

use super::*;
use kvmlet_control::agent::channel::Request;
use kvmlet_control::agent::{Agent, AgentError};
use kvmlet_sys::wait::{self, Until};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

struct Place {
    directory: Directory,
    audience: Audience,
    _place: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        Self {
            audience: Audience::listen(&directory).unwrap(),
            directory,
            _place: place,
        }
    }

    fn client(&self) -> Agent {
        crate::supervision::attach(&self.directory).unwrap()
    }

    /// Serves until this client has heard something; what that is.
    fn heard(&mut self, agent: &mut Agent) -> Result<String, AgentError> {
        let deadline = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < deadline);
            let mut wishes = Vec::new();
            self.audience.turn(None, &mut wishes);
            for wish in wishes {
                if let Wish::Stop { asker, .. } = wish {
                    self.audience.answer(asker, true);
                } else if let Wish::Signal {
                    asker: Some(asker), ..
                } = wish
                {
                    self.audience.answer(asker, false);
                }
            }
            let turned = agent.turn();
            if let Some(event) = agent.client().next_event()? {
                match event {
                    Event::Hello { .. } => continue,
                    event => return Ok(format!("{event:?}")),
                }
            }
            turned?;
            let mut slots: Vec<_> = self.audience.slots().collect();
            wait::any_of(&mut slots, Until::after(Duration::from_millis(5))).unwrap();
        }
    }
}

fn message(event: &str) -> String {
    let (_, bytes) = event.split_once("message: [").unwrap();
    let numbers = bytes
        .trim_end_matches(" }")
        .trim_end_matches(']')
        .split(", ");
    numbers
        .map(|it| char::from(it.parse::<u8>().unwrap()))
        .collect()
}

#[test]
fn one_too_many_is_told_so() {
    let mut place = Place::new();
    place.audience.started();
    let mut attached = Vec::new();
    for _ in 0..MOST {
        let mut one = place.client();
        one.client().attach();
        assert!(place.heard(&mut one).unwrap().starts_with("Started"));
        attached.push(one);
    }
    let mut ninth = place.client();
    ninth.client().attach();
    let heard = place.heard(&mut ninth).unwrap();
    assert!(
        message(&heard).starts_with("take one more: 8 are attached"),
        "{heard}"
    );
    assert!(matches!(place.heard(&mut ninth), Err(AgentError::Gone)));
    // Whoever has something to ask is heard all the same.
    let mut asking = place.client();
    let (signal, timeout_ms) = (None, None);
    let stop = Request::Stop { signal, timeout_ms };
    asking.client().request(&stop).unwrap();
    assert_eq!(place.heard(&mut asking).unwrap(), "Done");
    attached.pop();
    let mut ninth = place.client();
    ninth.client().attach();
    assert!(place.heard(&mut ninth).unwrap().starts_with("Started"));
}

#[test]
fn who_asks_for_nothing_is_told_so_and_goes() {
    let mut place = Place::new();
    let (since, mut silent) = (Instant::now(), place.client());
    let heard = place.heard(&mut silent).unwrap();
    assert!(
        message(&heard).starts_with("wait any longer: nothing was asked"),
        "{heard}"
    );
    assert!(since.elapsed() >= Duration::from_secs(5));
    assert!(matches!(place.heard(&mut silent), Err(AgentError::Gone)));
    assert_eq!(place.audience.members.len(), 0);
    // Who asks is told, whatever comes of it.
    let mut asking = place.client();
    let (signal, group) = (1, false);
    asking
        .client()
        .request(&Request::Signal { signal, group })
        .unwrap();
    let heard = place.heard(&mut asking).unwrap();
    assert_eq!(message(&heard), "do it: its service does not run");
}

#[test]
fn who_is_silent_locks_nobody_out() {
    let mut place = Place::new();
    let since = Instant::now();
    let mut silent: Vec<_> = (0..MOST + MOST_ASKING).map(|_| place.client()).collect();
    place.audience.turn(None, &mut Vec::new());
    assert!(place.audience.is_full() && place.audience.due().unwrap() > since);
    // As many as may wait to be accepted, and one who has something to ask.
    silent.extend((0..15).map(|_| place.client()));
    let mut asking = place.client();
    let (signal, timeout_ms) = (None, None);
    let stop = Request::Stop { signal, timeout_ms };
    asking.client().request(&stop).unwrap();
    assert_eq!(place.heard(&mut asking).unwrap(), "Done");
    assert!(since.elapsed() < member::ASKING);
    assert!(place.audience.members.len() <= MOST + MOST_ASKING);
}

#[test]
fn what_nobody_has_read_is_counted() {
    let mut place = Place::new();
    place.audience.started();
    let mut slow = place.client();
    slow.client().attach();
    assert!(place.heard(&mut slow).unwrap().starts_with("Started"));
    let bytes = vec![b'x'; 1 << 20];
    place.audience.wrote(Stream::Stdout, &bytes);
    for _ in 0..20 {
        place.audience.turn(None, &mut Vec::new());
    }
    let missed = place.audience.leave();
    assert!((1..1 << 20).contains(&missed), "{missed}");
}
