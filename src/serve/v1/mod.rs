//! kvmlet's own API, for all VMs of a user: HTTP on a Unix socket, over the book of instances. It is no supervisor: VMs are as they
//! are without it, and go on when it ends.

#![allow(clippy::result_large_err)] // one a request

mod acts;
mod alone;
mod call;
mod changes;
mod config;
mod copies;
mod describe;
mod events;
mod heard;
mod history;
mod ids;
mod keepers;
mod limits;
mod model;
mod openapi;
mod operations;
mod parts;
mod path;
mod problem;
mod rate;
#[cfg(test)]
mod reference;
mod route;
mod runs;
mod saving;
mod serving;
mod streams;
mod subject;
mod table;
mod table_alone;
mod table_copies;
mod table_streams;
mod turns;
mod unique;
mod vms;
mod words;

use heard::Heard;
use kvmlet_command::serve::SERVE_LINE;
use kvmlet_command::{FAILED, Failed};
use kvmlet_control::ConnectionError;
use kvmlet_manager::Book;
use kvmlet_run::vsock::SocketName;
use kvmlet_sys::{environment, standard_error};
use serving::Serving;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subject::{Alone, Subject};

/// What the server calls itself.
const SERVER: &str = "kvmlet";
/// The longest body: a description has some thousand bytes.
const BODY_BYTES: usize = 256 << 10;
/// Programs that are served at a time.
const SEATS: usize = 64;
/// Of those, who may be told events.
const WATCHERS: usize = 16;
/// The socket's name, in the directory of the book.
const SOCKET: &str = "api.sock";

/// The document that describes all of it.
pub fn document() -> serde_json::Value {
    openapi::document(&table::TABLES)
}

/// Why there is no VM to be served.
fn unheard(socket: &Path, error: ConnectionError) -> Failed {
    // The socket's own words are behind those of it.
    let why: Box<dyn std::error::Error> = match error {
        ConnectionError::Io(error) => error.into(),
        error => error.into(),
    };
    let told = Failed::in_vain(
        format!("the VM at `{}` tells nothing", socket.display()),
        why,
    );
    told.help("name the control socket of a VM that runs: `control.sock` in the directory of an instance, or what `kvmlet boot --control-fd` was given")
}

/// Runs a command line, and returns the exit code.
pub fn run(words: &[OsString]) -> u8 {
    let code = serve(words).unwrap_or_else(|failed| {
        failed.print();
        FAILED
    });
    standard_error::finish();
    code
}

fn serve(words: &[OsString]) -> Result<u8, Failed> {
    let given = SERVE_LINE
        .read(words)
        .map_err(|why| Failed::new(why).help("`kvmlet help serve` tells all that can be said"))?;
    if given.has("help") {
        kvmlet_command::print(SERVE_LINE.help())?;
        return Ok(0);
    }
    environment::disarm().map_err(Failed::of_environment)?;
    let (subject, heard, socket) = match (given.value("vm"), given.value("socket")) {
        (Some(vm), Some(socket)) => {
            let vm = Arc::new(Alone::new(Path::new(&vm)));
            let heard = Heard::of(&vm).map_err(|error| unheard(&vm.socket, error))?;
            (Subject::Vm(vm), Some(heard), PathBuf::from(socket))
        }
        (Some(_), None) => {
            return Err(Failed::new("the server of one VM has no socket of its own")
                .help("say where it is to be with --socket"));
        }
        (None, socket) => {
            let book = Book::of_user()?;
            let own = || book.directory().path().join(SOCKET);
            let socket = socket.map_or_else(own, PathBuf::from);
            (Subject::Book(Arc::new(book)), None, socket)
        }
    };
    let made = SocketName::make(&socket);
    let (listener, _name) = made.map_err(|error| {
        let help = error.help();
        Failed::with(error, help)
    })?;
    let lost = |error| Failed::in_vain("the host gives no events", error);
    let serving = Serving::new(listener, subject, heard).map_err(lost)?;
    standard_error::say(format_args!("kvmlet: serves at {}", socket.display()));
    let ended = serving.run().map_err(lost)?;
    Ok(ended.map_or(0, |signal| 128 + signal as u8))
}
