//! kvmlet's own API, for all VMs of a user: HTTP on a Unix socket, over the book of instances. It is no supervisor: VMs are as they
//! are without it, and go on when it ends.

#![allow(clippy::result_large_err)] // one a request

mod acts;
mod call;
mod changes;
mod config;
mod copies;
mod describe;
mod events;
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
mod serving;
mod streams;
mod table;
mod table_copies;
mod table_streams;
mod turns;
mod unique;
mod vms;
mod words;

use kvmlet_command::serve::SERVE_LINE;
use kvmlet_command::{FAILED, Failed};
use kvmlet_manager::Book;
use kvmlet_run::vsock::SocketName;
use kvmlet_sys::output::write_whole;
use kvmlet_sys::{environment, standard_error};
use serving::Serving;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

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
    openapi::document()
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
        let help = SERVE_LINE.help();
        write_whole(io::stdout().as_fd(), help.as_bytes()).map_err(Failed::new)?;
        return Ok(0);
    }
    environment::disarm().map_err(Failed::of_environment)?;
    let book = Book::of_user()?;
    let socket = match given.value("socket") {
        Some(path) => PathBuf::from(path),
        None => book.directory().path().join(SOCKET),
    };
    let made = SocketName::make(&socket);
    let (listener, _name) = made.map_err(|error| {
        let help = error.help();
        Failed::with(error, help)
    })?;
    let lost = |error| Failed::in_vain("the host gives no events", error);
    let serving = Serving::new(listener, book).map_err(lost)?;
    standard_error::say(format_args!("kvmlet: serves at {}", socket.display()));
    let signal = serving.run().map_err(lost)?;
    Ok(128 + signal as u8)
}
