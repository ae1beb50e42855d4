//! Somebody who is told what happens.

use super::call::Call;
use super::model::Event;
use super::problem::{HOST, Problem};
use super::subject::{Alone, Subject};
use crate::http::{ClientId, Server};
use kvmlet_manager::events::{EventReader, EventSelection};
use kvmlet_sys::wait::Slot;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// What is told at once, in bytes: more when that was read.
const AT_ONCE: usize = 64 << 10;

/// A client that is told events.
#[derive(Debug)]
pub struct Watcher {
    client: ClientId,
    source: Source,
    follows: bool,
    /// There may be more that was not told yet.
    more: bool,
}

/// Where events come from.
#[derive(Debug)]
enum Source {
    /// The book's file.
    Book(EventReader),
    /// What is known of one VM, and the number of the last change that was told.
    Vm(Arc<Alone>, u64),
}

impl Watcher {
    /// What is asked for.
    pub fn new(client: ClientId, call: &Call) -> Result<Self, Problem> {
        let follows = call.text("follow").is_none() || call.flag("follow")?;
        let since = call.number("since", 0..=9_007_199_254_740_991)?;
        let of_all = match &call.subject {
            Subject::Book(book) => book,
            Subject::Vm(vm) => {
                let new = if follows { vm.history().last() } else { 0 };
                return Ok(Self {
                    client,
                    source: Source::Vm(Arc::clone(vm), since.unwrap_or(new)),
                    follows,
                    more: false,
                });
            }
        };
        let selection = match since {
            Some(number) => EventSelection::After(number),
            // Without an end there would be nothing to tell.
            None if !follows => EventSelection::All,
            None => EventSelection::New,
        };
        let reader = EventReader::open(of_all, selection);
        let reader = reader.map_err(|error| Problem::because(HOST, &error))?;
        Ok(Self {
            client,
            source: Source::Book(reader),
            follows,
            more: true,
        })
    }

    /// What is to be waited for: something new, once all that there was is read.
    pub fn slot(&self, server: &Server) -> Slot<'_> {
        match (server.has_read(self.client), &self.source) {
            (Some(true), Source::Book(reader)) => Slot::readable(reader.as_fd()),
            // The VM's connection is waited for by itself.
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
        let goes_on = self.follows && !self.is_over();
        if !goes_on {
            server.end(self.client);
        }
        goes_on
    }

    /// Nothing more happens.
    fn is_over(&self) -> bool {
        matches!(&self.source, Source::Vm(vm, _) if vm.history().has_ended())
    }

    fn lines(&mut self) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        let reader = match &mut self.source {
            Source::Book(reader) => reader,
            Source::Vm(vm, told) => {
                for change in vm.history().after(*told) {
                    serde_json::to_writer(&mut lines, change)?;
                    lines.push(b'\n');
                    *told = change.sequence;
                    if lines.len() >= AT_ONCE {
                        break;
                    }
                }
                return Ok(lines);
            }
        };
        if !std::mem::take(&mut self.more) {
            reader.take_notice()?;
        }
        while let Some(event) = reader.next()? {
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
