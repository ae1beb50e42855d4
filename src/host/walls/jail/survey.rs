//! Which walls this host gives, found out by a process that goes there.

use super::{Jail, Missing, Needs, Wall};
use kvmlet_sys::process::Fork;
use std::fs::File;
use std::io::{self, Read, Write};

/// Tries a jail in a process of its own, which then ends, and returns what it cannot have. Nothing of the host
/// is changed. Call it while there is one thread.
///
/// # Errors
/// When the host gives not even a process.
pub fn survey() -> io::Result<Vec<Missing>> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let jail = Jail::new(std::process::id());
    let (fork, pids) = jail.fork(None, true).map_err(|missing| missing.source)?;
    match fork {
        Fork::Child(lifeline) => {
            let ((), cut_off) = jail.cut_off(true, None, || ());
            let needs = Needs {
                threads: 1,
                descriptors: 0,
                memory_bytes: 0,
            };
            let entered = cut_off.and_then(|cut_off| cut_off.enter(&lifeline, needs));
            let missing = entered.unwrap_or_default();
            let text: String = missing.iter().map(encode).collect();
            let sent = File::from(write).write_all(text.as_bytes());
            // SAFETY: ends the process, with nothing of its parent's run or flushed.
            unsafe { libc::_exit(sent.is_err().into()) }
        }
        Fork::Parent(child) => {
            drop(write);
            let mut text = String::new();
            let received = File::from(read).read_to_string(&mut text);
            child.wait()?;
            received?;
            Ok(pids
                .into_iter()
                .chain(text.lines().filter_map(decode))
                .collect())
        }
    }
}

/// A line of the place of the wall and the number of the error.
fn encode(missing: &Missing) -> String {
    let place = Wall::ALL.iter().position(|wall| *wall == missing.wall);
    let errno = missing.source.raw_os_error().unwrap_or(0);
    format!("{} {errno}\n", place.unwrap_or(Wall::ALL.len()))
}

fn decode(line: &str) -> Option<Missing> {
    let (place, errno) = line.split_once(' ')?;
    Some(Missing {
        wall: *Wall::ALL.get(place.parse::<usize>().ok()?)?,
        source: io::Error::from_raw_os_error(errno.parse().ok()?),
    })
}
