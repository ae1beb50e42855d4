//! The service as a bare child process: what all others are compared with.

use super::{Contestant, Kind, Presence, Service};
use crate::launch::Launch;
use crate::workshop::Programs;
use std::ffi::OsStr;
use std::path::PathBuf;

pub(super) struct Process {
    program: PathBuf,
}

impl Process {
    pub fn new(programs: &Programs) -> Self {
        Self {
            program: programs.service(),
        }
    }
}

impl Contestant for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn about(&self) -> &'static str {
        "the service as a child process, without isolation"
    }

    fn kind(&self) -> Kind {
        Kind::Process
    }

    fn probe(&self) -> Presence {
        Presence::Present {
            version: "static, without a C library".into(),
        }
    }

    fn launch(&self, _number: usize, service: Service) -> Result<Launch, String> {
        let stay = (service == Service::Stays).then_some(OsStr::new("stay"));
        Ok(Launch::new(
            [self.program.as_os_str()].into_iter().chain(stay),
        ))
    }
}
