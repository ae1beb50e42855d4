//! Firecracker's API and command line, for a VM of kvmlet's.

mod changes;
mod cpu_config;
mod description;
mod fault;
mod flags;
mod hearing;
mod log;
mod machine;
mod metadata;
mod metrics;
mod model;
mod pending;
mod phase;
mod route;
mod serving;
mod snapshot;
mod starting;
mod vm;
mod vmm;
mod whole;
mod writing;

use crate::http::Request;
use fault::{Fault, fault_message};
use flags::{Flags, Wanted};
use kvmlet_command::Failed;
use kvmlet_run::vsock::SocketName;
use kvmlet_spec::JailMode;
use kvmlet_sys::{environment, regular, standard_error};
use log::Log;
use machine::{Component, Machine};
use metadata::Metadata;
use model::Metrics;
use serving::Serving;
use std::ffi::OsString;
use std::path::Path;
use vm::Vm;

pub use flags::{VERSION, check, id};

/// Exit codes that clients know.
mod code {
    /// Something has failed that has no code of its own.
    pub const FAILED: u8 = 1;
    /// A thread of the VM's made a system call that it is not allowed to.
    pub const FORBIDDEN: u8 = 148;
    /// What was described cannot be.
    pub const CONFIGURATION: u8 = 152;
    /// The command line cannot be.
    pub const ARGUMENTS: u8 = 153;
}

/// What the server calls itself.
const SERVER: &str = "Firecracker API";
/// More than any description has.
const CONFIG_BYTES: u64 = 1 << 20;

/// Does a request ask for something that there is?
pub fn understand(request: &Request) -> Result<(), String> {
    route::route(request)
        .map(drop)
        .map_err(|Fault(why)| fault_message(&why))
}

/// Runs a command line, and returns the exit code.
pub fn run(words: &[OsString]) -> u8 {
    let ended = match flags::read(words) {
        Err(why) => Err((code::ARGUMENTS, format!("Arguments parsing error: {why}"))),
        Ok(Wanted::Print(text)) => match kvmlet_command::print(text) {
            Ok(()) => Ok(0),
            Err(failed) => Err((code::FAILED, failed.first_line())),
        },
        Ok(Wanted::Serve(flags)) => match environment::disarm() {
            Ok(()) => serve(*flags),
            Err(error) => Err((code::FAILED, Failed::of_environment(error).to_string())),
        },
    };
    let code = ended.unwrap_or_else(|(code, why)| {
        standard_error::say(format_args!("error: {}", why.trim_end()));
        code
    });
    standard_error::finish();
    code
}

fn serve(flags: Flags) -> Result<u8, (u8, String)> {
    let failed = |code| move |Fault(why): Fault| (code, why);
    let mut log = Log::new(&flags.id);
    let described = match &flags.config_file {
        Some(path) => Some(read(path).map_err(failed(code::CONFIGURATION))?),
        None => None,
    };
    // Before anything that takes longer: who starts this program waits for it.
    let socket = flags
        .api_socket
        .as_deref()
        .map(SocketName::make)
        .transpose();
    let (listener, _name) = socket
        .map_err(|error| (code::FAILED, error.to_string()))?
        .unzip();
    let show = |shown: bool| shown.then_some(true);
    let (level, origin) = (show(flags.show_level), show(flags.show_log_origin));
    log.set(flags.log_path.as_deref(), flags.level, level, origin)
        .map_err(failed(code::ARGUMENTS))?;
    let mut machine = Machine::default();
    if let Some(metrics_path) = flags.metrics_path {
        let metrics = Component::Metrics(Metrics {
            metrics_path,
            ..Metrics::default()
        });
        machine.set(metrics).map_err(failed(code::ARGUMENTS))?;
    }
    let jail = match flags.no_walls {
        true => JailMode::Off,
        false => JailMode::Auto,
    };
    let mut vm = Vm::new(flags.id, log, machine, jail, flags.start_time_us);
    vm.pci = flags.pci;
    let given = flags.metadata.map(|path| text(&path));
    let given = given.transpose().map_err(failed(code::CONFIGURATION))?;
    vm.metadata = Metadata::new(flags.metadata_bytes, given.as_deref())
        .map_err(failed(code::CONFIGURATION))?;
    if let Some(described) = described {
        vm.describe(described)
            .map_err(failed(code::CONFIGURATION))?;
    }
    let starts = flags.config_file.is_some();
    Serving::new(listener, flags.payload_bytes, vm)
        .and_then(|serving| serving.run(starts))
        .map_err(failed(code::FAILED))
}

fn read(path: &Path) -> Result<Machine, Fault> {
    Machine::of_file(&text(path)?).map_err(|Fault(why)| of_file(path, &why))
}

fn text(path: &Path) -> Result<String, Fault> {
    let text = regular::read(path, CONFIG_BYTES).map_err(|error| of_file(path, &error))?;
    String::from_utf8(text).map_err(|error| of_file(path, &error))
}

fn of_file(path: &Path, why: &dyn std::fmt::Display) -> Fault {
    Fault(format!("`{}`: {why}", path.display()))
}
