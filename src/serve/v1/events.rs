//! Somebody who is told what happens.

use super::call::Call;
use super::model::Event;
use super::problem::{HOST, Problem};
use crate::http::{ClientId, Server};
use kvmlet_manager::events::{EventReader, EventSelection};
use kvmlet_sys::wait::Slot;
use std::io;
use std::os::fd::AsFd;

/// What is told at once, in bytes: more when that was read.
const AT_ONCE: usize = 64 << 10;

/// A client that is told events.
#[derive(Debug)]
pub struct Watcher {
    client: ClientId,
    reader: EventReader,
    follows: bool,
    /// There may be more that was not told yet.
    more: bool,
}

impl Watcher {
    /// What is asked for.
    pub fn new(client: ClientId, call: &Call) -> Result<Self, Problem> {
        let follows = call.text("follow").is_none() || call.flag("follow")?;
        let selection = match call.number("since", 0..=9_007_199_254_740_991)? {
            Some(number) => EventSelection::After(number),
            // Without an end there would be nothing to tell.
            None if !follows => EventSelection::All,
            None => EventSelection::New,
        };
        let reader = EventReader::open(&call.book, selection);
        let reader = reader.map_err(|error| Problem::because(HOST, &error))?;
        Ok(Self {
            client,
            reader,
            follows,
            more: true,
        })
    }

    /// What is to be waited for: something new, once all that there was is read.
    pub fn slot(&self, server: &Server) -> Slot<'_> {
        match server.has_read(self.client) {
            Some(true) => Slot::readable(self.reader.as_fd()),
            _ => Slot::NOTHING,
        }
    }

    /// Tells what there is. False when there is no more, or nobody who reads it.
    pub fn go_on(&mut self, server: &mut Server) -> bool {
        match server.has_read(self.client) {
            None => return false,
            Some(false) => return true,
            Some(true) => {}
        }
        while let Ok(lines @ [_, ..]) = self.lines().as_deref() {
            server.push(self.client, lines);
            match server.has_read(self.client) {
                None => return false,
                Some(false) => return true,
                Some(true) => {}
            }
        }
        if !self.follows {
            server.end(self.client);
        }
        self.follows
    }

    fn lines(&mut self) -> io::Result<Vec<u8>> {
        if !std::mem::take(&mut self.more) {
            self.reader.take_notice()?;
        }
        let mut lines = Vec::new();
        while let Some(event) = self.reader.next()? {
            serde_json::to_writer(&mut lines, &Event::from(event))?;
            lines.push(b'\n');
            if lines.len() >= AT_ONCE {
                self.more = true;
                break;
            }
        }
        Ok(lines)
    }
}
