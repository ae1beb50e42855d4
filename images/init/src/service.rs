//! Starting the service: a job in the foreground of the console's terminal.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;

use kvmlet_contract::{ConsoleSize, ServiceSpec};

use crate::launch::{Launch, Stdio};
use crate::sys::{self, File, Pid};
use crate::{Failure, read_text};

pub const DEFAULT_COMMAND: &CStr = c"/bin/sh";

/// Starts the service, or says why it does not start.
pub fn start(spec: &ServiceSpec, size: Option<ConsoleSize>) -> Result<Pid, Failure> {
    let arguments: Vec<CString> = spec.command.iter().map(|text| c_string(text)).collect();
    let variables = variables(spec);
    let workdir = c_string(spec.workdir.as_deref().unwrap_or("/"));
    let terminal = open_terminal();
    let mut launch = Launch {
        program: None,
        arguments: arguments.iter().map(|it| &**it).collect(),
        variables: variables.iter().map(|it| &**it).collect(),
        workdir: &workdir,
        make_workdir: false,
        user: spec.user.clone(),
        groups: Vec::new(),
        stdio: Stdio::Console {
            terminal: terminal.as_ref(),
            size,
        },
    };
    if launch.arguments.is_empty() {
        launch.arguments.push(DEFAULT_COMMAND);
    }
    launch.start()
}

/// The service's variables, as the kernel takes them.
pub fn variables(spec: &ServiceSpec) -> Vec<CString> {
    let variables = spec.env.iter();
    variables
        .map(|(name, value)| c_string(&format!("{name}={value}")))
        .collect()
}

/// Opens the console's terminal, by its own name and not as /dev/console, and makes it the terminal of a session of
/// init's own. It is not the service's: a session that loses its leader loses its terminal, too, with what was written
/// there and has not left yet (`disassociate_ctty` in Linux's drivers/tty/tty_jobctrl.c).
fn open_terminal() -> Option<File> {
    // The console that /dev/console stands for is the last one.
    let active = read_text(c"/sys/class/tty/console/active").unwrap_or_default();
    let name = active.split_ascii_whitespace().last().unwrap_or("console");
    let open = |path: &CStr| File::open(path, sys::O_RDWR | sys::O_NOCTTY);
    let terminal = open(&c_string(&format!("/dev/{name}"))).or_else(|_| open(c"/dev/console"));
    let terminal = terminal.ok()?;
    let _ = sys::setsid();
    let _ = sys::set_controlling_terminal(terminal.number());
    Some(terminal)
}

/// What holds a NUL byte was refused where it was read, so nothing is replaced here.
pub fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
