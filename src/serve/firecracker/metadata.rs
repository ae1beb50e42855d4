//! What a guest is told of itself (MMDS), and who tells it.

use super::fault::{Fault, fault_message};
use super::machine::Machine;
use super::phase::Phase;
use crate::http::Answer;
use crate::metadata::{Config, Counted, Service, Store, Unstored};
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use kvmlet_sys::frames::FrameSocket;

/// The data, and who answers the guest, if it can ask.
#[derive(Debug)]
pub struct Metadata {
    store: Store,
    service: Option<Service>,
}

impl Default for Metadata {
    fn default() -> Self {
        let store = Store::new(0);
        let service = None;
        Self { store, service }
    }
}

impl Metadata {
    /// Data of a bounded length, which a file may give.
    pub fn new(most_bytes: usize, text: Option<&str>) -> Result<Self, Fault> {
        let mut store = Store::new(most_bytes);
        if let Some(text) = text {
            let wrong = |why: &dyn std::fmt::Display| {
                Fault(format!("Populating MMDS from file failed: {why}."))
            };
            let value = serde_json::from_str(text).map_err(|error| wrong(&error))?;
            let stored = store.put(value);
            stored.map_err(|_| wrong(&"it is longer than --mmds-size-limit allows"))?;
        }
        let service = None;
        Ok(Self { store, service })
    }

    /// Starts who answers the guest of this machine, instead of who did so before: for each interface by which that can be
    /// asked its number, the address, and the socket by which frames come.
    pub fn serve(
        &mut self,
        machine: &Machine,
        log: Option<File>,
    ) -> Result<Vec<(usize, Ipv4Addr, OwnedFd)>, Fault> {
        self.service = None;
        let Some(asked) = &machine.mmds_config else {
            return Ok(Vec::new());
        };
        let no_host = |error: io::Error| Fault(format!("No metadata service starts: {error}"));
        let address = asked.address();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for interface in machine.with_metadata() {
            let (near, far) = FrameSocket::pair().map_err(no_host)?;
            ours.push(near.into());
            theirs.push((interface, address, far.into()));
        }
        let config = Config {
            address,
            version: asked.version,
            imds_compat: asked.imds_compat,
        };
        let service = Service::start(&config, &ours, log).map_err(no_host)?;
        if let Some(data) = self.store.value() {
            service.tell(data).map_err(no_host)?;
        }
        self.service = Some(service);
        Ok(theirs)
    }

    /// What somebody has to know who has stored something.
    pub fn warning(&self, machine: &Machine) -> Option<&'static str> {
        let is_unheard = self.store.value().is_some() && machine.mmds_config.is_none();
        is_unheard.then_some(
            "there are metadata, and the guest can ask for them on no interface (PUT /mmds/config names some)",
        )
    }

    /// What was done for the guest, if it can ask.
    pub fn counted(&self) -> Counted {
        self.service
            .as_ref()
            .map(Service::counted)
            .unwrap_or_default()
    }

    /// All of the data. There are none once the VM runs, if nobody has given some or made them reachable before.
    pub fn told(&self, phase: Phase) -> Result<Value, Fault> {
        match self.store.value() {
            Some(value) => Ok(value.clone()),
            None if self.is_there(phase) => Ok(json!({})),
            None => Err(no_store()),
        }
    }

    /// Replaces the data.
    pub fn put(&mut self, data: Value, phase: Phase) -> Result<Answer, Fault> {
        self.change(phase, |store| store.put(data))
    }

    /// Changes some of the data.
    pub fn merge(&mut self, data: Value, phase: Phase) -> Result<Answer, Fault> {
        self.change(phase, |store| store.merge(data))
    }

    fn is_there(&self, phase: Phase) -> bool {
        phase == Phase::NotStarted || self.service.is_some() || self.store.value().is_some()
    }

    fn change(
        &mut self,
        phase: Phase,
        change: impl FnOnce(&mut Store) -> Result<(), Unstored>,
    ) -> Result<Answer, Fault> {
        if !self.is_there(phase) {
            return Err(no_store());
        }
        let mut store = self.store.clone();
        match change(&mut store) {
            Ok(()) => {}
            Err(Unstored::Empty) => return Err(no_store()),
            Err(Unstored::TooLong) => {
                let why = "MMDS limit exceeded error: The MMDS patch request doesn't fit.";
                return Ok(Answer::new(413, Some(fault_message(why))));
            }
        }
        if let (Some(service), Some(data)) = (&self.service, store.value()) {
            service.tell(data).map_err(|error| {
                Fault(format!("The metadata service takes nothing more: {error}"))
            })?;
        }
        self.store = store;
        Ok(Answer::done())
    }
}

fn no_store() -> Fault {
    Fault("MMDS error: The MMDS data store is not initialized.".into())
}
