//! A client, which does things at random, and the supervisors that it starts.

use super::diary::Diary;
use kvmlet_manager::{Asked, Book, Error, InstanceId, LogLimits, Moment, State, View};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

pub fn asked() -> Asked {
    Asked {
        id: InstanceId::random().unwrap(),
        created: Moment::now(),
        image: "i".into(),
        image_id: None,
        service: kvmlet_manager::Service::default(),
        command: vec![],
        config: serde_json::Value::Null,
        restart: Default::default(),
        health: None,
        remove: false,
        labels: Default::default(),
        log: LogLimits::default(),
        snapshot: None,
        idle: None,
    }
}

struct Client {
    book: Book,
    diary: Diary,
    random: u64,
}

pub fn run(place: &Path, number: usize, seed: u64) {
    // SAFETY: nobody waits for supervisors.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut client = Client {
        book: Book::at(&place.join("book")).unwrap(),
        diary: Diary::open(place),
        random: seed.wrapping_mul(31).wrapping_add(number as u64) | 1,
    };
    for _ in 0..super::ACTS {
        client.act(place);
    }
}

impl Client {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % limit
    }

    fn name(&mut self) -> String {
        format!("name{}", self.below(12))
    }

    fn act(&mut self, place: &Path) {
        match self.below(100) {
            0..20 => self.create(),
            20..45 => self.start(place),
            45..55 => self.signal(libc::SIGKILL),
            55..65 => self.signal(libc::SIGTERM),
            65..77 => self.rename(),
            77..88 => self.remove(),
            88..92 => self.wait(),
            _ => drop(self.look()),
        }
    }

    fn create(&mut self) {
        let name = (self.below(4) > 0).then(|| self.name());
        let asked = asked();
        let id = asked.id.clone();
        self.diary
            .write(&format!("creating {id} {}", name.as_deref().unwrap_or("-")));
        let wanted = name.map(|name| name.parse().unwrap());
        match self.book.create(wanted.as_ref(), asked) {
            Ok(_) => self.diary.write(&format!("created {id}")),
            Err(error) => {
                self.diary.write(&format!("uncreated {id}"));
                self.expect(&error, matches!(error, Error::NameTaken { .. }));
            }
        }
    }

    fn start(&mut self, place: &Path) {
        let name = self.name();
        let (life, code) = (self.below(40), self.below(120) as u8);
        // SAFETY: of the two threads of this process one waits for the other, and so holds no lock.
        if unsafe { libc::fork() } == 0 {
            let caught = std::panic::catch_unwind(|| supervise(place, &name, life, code));
            if caught.is_err() {
                Diary::open(place).write("VIOLATION a supervisor has panicked");
            }
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
    }

    fn signal(&mut self, signal: libc::c_int) {
        let views = self.look();
        let running: Vec<&View> = views
            .iter()
            .filter(|view| view.state == State::Running)
            .collect();
        if running.is_empty() {
            return;
        }
        let view = running[self.below(running.len() as u64) as usize];
        let Some(keeper) = view.record.keeper.as_ref().filter(|keeper| keeper.lives()) else {
            return;
        };
        if signal == libc::SIGKILL {
            self.diary
                .write(&format!("killing {} {}", view.id, view.record.run));
        }
        // SAFETY: a supervisor of this test.
        unsafe { libc::kill(keeper.pid as i32, signal) };
    }

    fn rename(&mut self) {
        let (old, new) = (self.name(), self.name());
        // By its id, for what was written down before to be true of it.
        let Ok(instance) = self.book.find(&old) else {
            return;
        };
        let id = instance.id().to_string();
        self.diary.write(&format!("renaming {id} {new}"));
        match self.book.rename(&id, &new.parse().unwrap()) {
            Ok(_) => self.diary.write(&format!("renamed {id} {new}")),
            Err(error) => {
                let good = matches!(error, Error::NameTaken { .. } | Error::NotFound { .. });
                self.expect(&error, good);
            }
        }
    }

    fn remove(&mut self) {
        let name = self.name();
        let Ok(owned) = self.book.find(&name).and_then(|instance| instance.own()) else {
            return;
        };
        let id = owned.id().to_string();
        self.diary.write(&format!("removing {id}"));
        match self.book.remove(owned) {
            Ok(()) => self.diary.write(&format!("removed {id}")),
            Err(error) => self.expect(&error, false),
        }
    }

    fn wait(&mut self) {
        let name = self.name();
        if let Ok(instance) = self.book.find(&name) {
            instance.wait().unwrap();
        }
    }

    /// Whatever is going on, what is listed makes sense.
    fn look(&mut self) -> Vec<View> {
        let listing = self.book.list().unwrap();
        for damaged in &listing.damaged {
            self.expect(&damaged.error, false);
        }
        let names: BTreeSet<_> = listing
            .instances
            .iter()
            .filter_map(|view| view.name.as_ref())
            .collect();
        let named = listing
            .instances
            .iter()
            .filter(|view| view.name.is_some())
            .count();
        if names.len() < named {
            self.diary.write("VIOLATION two have one name");
        }
        for view in listing
            .instances
            .iter()
            .filter(|view| view.state == State::Running)
        {
            let lives = view
                .record
                .keeper
                .as_ref()
                .is_some_and(|keeper| keeper.lives());
            // It may have ended since; then that is to be seen as well.
            if !lives
                && let Ok(instance) = self.book.find(view.id.as_str())
                && let Ok(again) = instance.view(None)
                && again.record.run == view.record.run
                && again.state == State::Running
            {
                self.diary
                    .write(&format!("VIOLATION {} runs without a supervisor", view.id));
            }
        }
        listing.instances
    }

    fn expect(&self, error: &Error, good: bool) {
        if !good {
            self.diary.write(&format!("VIOLATION {error:?}"));
        }
    }
}

/// As a supervisor does, for some milliseconds, or until it is told to end.
fn supervise(place: &Path, name: &str, life: u64, code: u8) {
    // SAFETY: the set is initialized by sigemptyset; this process has one thread.
    let term = unsafe {
        libc::setsid();
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    };
    let (book, diary) = (Book::at(&place.join("book")).unwrap(), Diary::open(place));
    let begun = book
        .find(name)
        .and_then(|instance| instance.own())
        .and_then(|owned| owned.begin());
    let Ok(mut keeper) = begun else {
        return;
    };
    let (id, run) = (keeper.id().to_string(), keeper.record().run);
    let owner = diary.claim(&id);
    diary.write(&format!("begun {id} {run}"));
    keeper.running().unwrap();
    let time = Duration::from_millis(life);
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: both outlive the call.
    let told = unsafe { libc::sigtimedwait(&term, std::ptr::null_mut(), &time) } > 0;
    if life.is_multiple_of(5) {
        keeper.restarting(1, None).unwrap();
        keeper.running().unwrap();
    }
    let code = if told { 143 } else { code };
    diary.write(&format!("ending {id} {run} {code}"));
    drop(owner);
    let owned = keeper.end(code, None).unwrap();
    diary.write(&format!("ended {id} {run} {code}"));
    drop(owned);
}
