//! The loop: clients, what is done for them, and events for those who are told of them. It waits for nobody alone: what takes
//! longer than a look is done by a thread, of which there are no more than clients.

use super::acts::{Way, Work, descriptors, most_descriptors, way};
use super::call::Call;
use super::events::Watcher;
use super::heard::Heard;
use super::ids::{self, named};
use super::path::{Found, find};
use super::problem::{self, BAD_REQUEST, BUSY, HOST, NOT_ALLOWED, NOT_FOUND, Problem};
use super::rate::{Rates, too_often};
use super::route::{Act, LINES, Route};
use super::streams::{Manners, Peer, Stream, Streams};
use super::subject::Subject;
use super::table::TABLES;
use super::{BODY_BYTES, SEATS, SERVER, WATCHERS, keepers};
use crate::http::{Along, Answer, ClientId, Manner, Method, Peers, Request, Server, decoded};
use kvmlet_sys::event::Event;
use kvmlet_sys::signals::Signals;
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// What ends this process. VMs go on.
const ENDING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

fn manner(subject: &Subject) -> Manner {
    Manner {
        name: SERVER,
        seats: SEATS,
        longest_body: BODY_BYTES,
        old_go_on: false,
        comes: comes_as_it_likes,
        peers: Peers::OwnUser,
        descriptors: most_descriptors(subject),
        refuse: problem::refuse,
    }
}

/// The body of a request is passed on while it comes.
fn comes_as_it_likes(method: Method, path: &str) -> bool {
    matches!(find(&TABLES, method, path), Found::Route(route, _) if route.act == Act::WriteFiles)
}

/// What is done at a time, for those who are there and those who are not any more.
const MOST_AT_WORK: usize = 2 * SEATS;

/// What a thread has come to.
type Result = (ClientId, Answer);

/// A socket, those who are connected to it, and what is being done for them.
pub struct Serving {
    server: Server,
    signals: Signals,
    subject: Subject,
    /// By which the only VM tells what it does, if there is no book.
    alone: Option<Heard>,
    watchers: Vec<Watcher>,
    streams: Streams,
    rates: Rates,
    /// For whom threads do something, and who are told there when they are gone.
    at_work: Vec<(ClientId, Arc<AtomicBool>)>,
    tell: Sender<Result>,
    results: Receiver<Result>,
    /// Signalled when there is one.
    done: Arc<Event>,
}

impl Serving {
    /// At a socket. Of an only VM it is heard what that tells.
    pub fn new(listener: OwnedFd, subject: Subject, alone: Option<Heard>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let (tell, results) = channel();
        let heard = [&ENDING[..], &[libc::SIGCHLD]].concat();
        Ok(Self {
            server: Server::new(listener, manner(&subject)),
            signals: Signals::take(&heard)?,
            subject,
            alone,
            watchers: Vec::new(),
            streams: Streams::default(),
            rates: Rates::default(),
            at_work: Vec::new(),
            tell,
            results,
            done: Arc::new(Event::new()?),
        })
    }

    /// Serves until a signal ends it, and returns that; or until the only VM has ended.
    pub fn run(mut self) -> io::Result<Option<libc::c_int>> {
        loop {
            self.wait()?;
            while let Some(signal) = self.signals.next()? {
                if signal != libc::SIGCHLD {
                    // Whoever is still there hears what was said.
                    let _ = self.server.finish();
                    return Ok(Some(signal));
                }
                keepers::look();
            }
            self.turn();
            let is_over = |heard: &Heard| heard.is_over(self.at_work.is_empty());
            if self.alone.as_ref().is_some_and(is_over) {
                let _ = self.server.finish();
                return Ok(None);
            }
        }
    }

    /// Does what there is to do now.
    fn turn(&mut self) {
        self.server.turn();
        self.done.take();
        if let Some(heard) = &mut self.alone {
            heard.turn();
        }
        while let Ok((client, answer)) = self.results.try_recv() {
            self.at_work.retain(|(id, _)| *id != client);
            self.server.answer(client, &answer);
        }
        for (client, gone) in &self.at_work {
            gone.store(!self.server.has(*client), Ordering::Relaxed);
        }
        while let Some((client, request)) = self.server.next_request() {
            self.take(client, request);
        }
        let server = &mut self.server;
        self.watchers.retain_mut(|watcher| watcher.go_on(server));
    }

    fn wait(&self) -> io::Result<()> {
        let mut slots = vec![
            Slot::readable(self.signals.as_fd()),
            Slot::readable((*self.done).as_fd()),
        ];
        let watchers = self.watchers.iter();
        slots.extend(watchers.map(|watcher| watcher.slot(&self.server)));
        slots.extend(self.server.slots());
        slots.extend(self.alone.as_ref().map(Heard::slot));
        let due = self.alone.as_ref().and_then(Heard::due);
        let due = due.into_iter().chain(self.server.due()).min();
        wait::any_of(&mut slots, Until::from(due))
    }

    /// Begins what is asked for.
    fn take(&mut self, client: ClientId, request: Request) {
        let id = ids::next();
        let user = self.server.user(client);
        let heard = self.rates.take(user.unwrap_or_default(), Instant::now());
        let heard = heard.map_err(too_often);
        match heard.and_then(|()| self.begin(client, request, &id)) {
            Ok(()) => {}
            Err((problem, fields)) => {
                let mut answer = named(problem.with_id(&id).answer(), &id);
                answer.fields.extend(fields);
                self.server.answer(client, &answer);
            }
        }
    }

    fn begin(
        &mut self,
        client: ClientId,
        request: Request,
        id: &str,
    ) -> std::result::Result<(), (Problem, Fields)> {
        if decoded(&request.path).is_none() {
            let detail = "the path is not percent-encoded UTF-8";
            return Err((Problem::new(BAD_REQUEST, detail), Vec::new()));
        }
        let (route, name) = match find(self.subject.tables(), request.method, &request.path) {
            Found::Route(route, name) => (route, name),
            Found::Methods(methods) => {
                let (method, path) = (request.method.name(), request.path.escape_debug());
                let detail = format!("{method} is not done with `{path}`");
                let allow = methods.join(", ");
                let problem = Problem::new(NOT_ALLOWED, detail).help(format!("it has {allow}"));
                return Err((problem, vec![("Allow", allow)]));
            }
            Found::Nothing => {
                let detail = format!("there is no `{}`", request.path.escape_debug());
                let help = "`GET /v1/openapi.json` tells all that there is";
                return Err((Problem::new(NOT_FOUND, detail).help(help), Vec::new()));
            }
        };
        let subject = self.subject.clone();
        let manners = Manners {
            id: id.into(),
            chunks: request.chunks,
            upgrade: request.upgrade,
            coming: request.coming,
        };
        let came = self.server.along(client);
        // What is not asked for is closed before anything is done, which may take long.
        let along = match descriptors(&subject, route.act) {
            0 => Along::default(),
            _ => came,
        };
        let begun = Call::new(subject, route, name, &request.query, request.body);
        let begun = begun.and_then(|call| call.with(along));
        let begun = begun.and_then(|call| match way(&self.subject, route.act) {
            Way::Work(work) => self.work(client, call, route, work, id),
            Way::Stream(stream) => self.stream(client, call, stream, manners),
            Way::Watch => self.watch(client, &call, id),
        });
        begun.map_err(|problem| (problem, Vec::new()))
    }

    /// Does something in a thread of its own.
    fn work(
        &mut self,
        client: ClientId,
        call: Call,
        route: &'static Route,
        act: Work,
        id: &str,
    ) -> std::result::Result<(), Problem> {
        if self.at_work.len() >= MOST_AT_WORK {
            let detail = "what others have asked for, and do not wait for any more, is being done";
            return Err(Problem::new(BUSY, detail));
        }
        self.at_work.push((client, Arc::clone(&call.gone)));
        let (tell, done, id) = (self.tell.clone(), Arc::clone(&self.done), id.to_owned());
        let work = move || {
            // A fault of ours is one client's, and not all clients'.
            let acted = catch_unwind(AssertUnwindSafe(|| act(&call)));
            let acted = acted.unwrap_or_else(|_| {
                Err(Problem::new(
                    HOST,
                    "kvmlet has a fault: its standard error tells more",
                ))
            });
            let answer = acted.unwrap_or_else(|problem| problem.with_id(&id).answer());
            debug_assert!(route.has(&answer), "{}: {answer:?}", route.id);
            // Nobody waits for it where the server has ended.
            let _ = tell.send((client, named(answer, &id)));
            done.signal();
        };
        let spawned = std::thread::Builder::new().spawn(work).map(drop);
        if spawned.is_err() {
            self.at_work.pop();
        }
        spawned.map_err(|error| Problem::because(BUSY, &error))
    }

    /// Leaves a client to a thread of its own.
    fn stream(
        &mut self,
        client: ClientId,
        call: Call,
        act: Stream,
        manners: Manners,
    ) -> std::result::Result<(), Problem> {
        let begun = self.streams.begin(call, act)?;
        if let Some((stream, sent)) = self.server.part(client) {
            // It waits for nothing else.
            let _ = begun.send(Peer::new(stream, sent, manners));
        }
        Ok(())
    }

    /// Begins to tell events.
    fn watch(
        &mut self,
        client: ClientId,
        call: &Call,
        id: &str,
    ) -> std::result::Result<(), Problem> {
        if self.watchers.len() >= WATCHERS {
            let detail = format!("{WATCHERS} programs are told events, as many as may be");
            return Err(Problem::new(BUSY, detail));
        }
        let watcher = Watcher::new(client, call)?;
        let head = Answer::new(200, None).of_kind(LINES);
        self.server.stream(client, &named(head, id));
        self.watchers.push(watcher);
        Ok(())
    }
}

type Fields = Vec<(&'static str, String)>;

#[cfg(test)]
#[path = "serving_tests.rs"]
mod tests;
