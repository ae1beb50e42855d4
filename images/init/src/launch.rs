//! Starting a program: as whom, where, with what, and how it is told what went wrong.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::{CStr, c_void};
use core::ptr::null;

use kvmlet_contract::{Account, ConsoleSize, Identity, User, exec_error_code};

use crate::identity::identify;
use crate::sys::{self, Errno, File, Pid};
use crate::{Failure, place};

/// Variables that every program has; HOME is the user's own if the image knows one.
const DEFAULTS: [&CStr; 2] = [
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    // The kernel's own default; the terminal is behind a serial line.
    c"TERM=linux",
];

/// For the child, in units of 16 bytes: 16 KiB.
const STACK_SIZE: usize = 1024;

/// The kernel's PATH_MAX.
const LONGEST_PATH: usize = 4096;

/// A program that is to be started.
pub struct Launch<'a> {
    /// What is executed, if it is not the first argument.
    pub program: Option<&'a CStr>,
    /// The program and its arguments, of which there is one at least.
    pub arguments: Vec<&'a CStr>,
    /// Each `NAME=VALUE`. PATH, HOME and TERM are added if they are not there.
    pub variables: Vec<&'a CStr>,
    /// Where to start.
    pub workdir: &'a CStr,
    /// Whether that is made if it is missing.
    pub make_workdir: bool,
    /// Whom to run as; root, with root's rights and nothing asked, if nobody.
    pub user: Option<User>,
    /// Further groups.
    pub groups: Vec<Account>,
    /// What it reads from and writes to.
    pub stdio: Stdio<'a>,
}

/// Standard input, output and error of a program.
pub enum Stdio<'a> {
    /// The job in the foreground of the console's terminal, in init's own session.
    Console {
        /// Without one the program keeps init's own, and only misses job control.
        terminal: Option<&'a File>,
        size: Option<ConsoleSize>,
    },
    /// These descriptors, in a session of its own.
    Streams([i32; 3]),
    /// This terminal, which is that of a session of its own.
    Terminal(i32),
}

/// A step of the child that failed.
enum Step {
    User,
    Workdir,
    Execute,
}

/// What the child needs, in the kernel's form, and what it leaves to its parent.
struct Child<'a> {
    stdio: &'a Stdio<'a>,
    identity: Option<&'a Identity>,
    workdir: &'a CStr,
    program: &'a CStr,
    /// Where a program without a slash may be, separated by colons.
    path: &'a [u8],
    /// With a null pointer at the end.
    argv: Vec<*const i8>,
    envp: Vec<*const i8>,
    failure: Option<(Step, Errno)>,
}

impl Launch<'_> {
    /// Starts the program, or says why it does not start.
    pub fn start(mut self) -> Result<Pid, Failure> {
        let identity = match &self.user {
            None => None,
            Some(user) => Some(identify(user, &self.groups)?),
        };
        let home = identity.as_ref().and_then(|it| it.home.as_deref());
        let home = format!("HOME={}\0", home.unwrap_or("/"));
        let home = CStr::from_bytes_with_nul(home.as_bytes()).unwrap_or(c"HOME=/");
        let mut variables = core::mem::take(&mut self.variables);
        for default in DEFAULTS.into_iter().chain([home]) {
            if !variables.iter().any(|it| name(it) == name(default)) {
                variables.push(default);
            }
        }
        if self.make_workdir {
            // What it cannot make, it cannot enter, which is told.
            let _ = place::open_made(self.workdir);
        }
        let path = variables.iter().find(|it| name(it) == b"PATH");
        let mut child = Child {
            stdio: &self.stdio,
            identity: identity.as_ref(),
            workdir: self.workdir,
            program: self.program.unwrap_or(self.arguments[0]),
            path: path.map_or(b"", |it| &it.to_bytes()[b"PATH=".len()..]),
            argv: pointers(&self.arguments),
            envp: pointers(&variables),
            failure: None,
        };
        let mut stack = vec![0u128; STACK_SIZE];
        let argument = (&raw mut child).cast::<c_void>();
        // SAFETY: `child` and all it points to outlive the call, which returns only when the process
        // no longer uses them; it calls nothing deep.
        let pid = unsafe { sys::spawn(&mut stack, run_child, argument) };
        let pid = pid.map_err(|e| format!("start a process for {}: {e}", self.program()))?;
        match child.failure {
            None => Ok(pid),
            Some((step, error)) => Err(self.failed(step, error)),
        }
    }

    /// The program's name in quotes.
    fn program(&self) -> String {
        format!("\"{}\"", self.arguments[0].to_string_lossy())
    }

    fn failed(&self, step: Step, error: Errno) -> Failure {
        match step {
            Step::User => {
                let user = self.user.as_ref().unwrap_or(&User::ROOT);
                format!("become user {user}: {error}").into()
            }
            Step::Workdir => {
                let workdir = self.workdir.to_string_lossy();
                format!("enter the working directory \"{workdir}\": {error}").into()
            }
            Step::Execute => {
                let reason = match error {
                    Errno::ENOENT if !self.arguments[0].to_bytes().contains(&b'/') => {
                        "it is in no directory of PATH".into()
                    }
                    // The kernel says the same of a missing interpreter or dynamic loader.
                    Errno::ENOENT => {
                        "no such file, or the interpreter that it names is missing".into()
                    }
                    other => format!("{other}"),
                };
                Failure {
                    message: format!("run {}: {reason}", self.program()),
                    code: exec_error_code(error.number()),
                }
            }
        }
    }
}

/// NAME of `NAME=VALUE`.
pub fn name(variable: &CStr) -> &[u8] {
    let bytes = variable.to_bytes();
    let end = bytes.iter().position(|byte| *byte == b'=');
    &bytes[..end.unwrap_or(bytes.len())]
}

fn pointers(strings: &[&CStr]) -> Vec<*const i8> {
    let mut pointers = Vec::with_capacity(strings.len() + 1);
    pointers.extend(strings.iter().map(|string| string.as_ptr()));
    pointers.push(null());
    pointers
}

/// The child: it shares the parent's memory, so it changes nothing there but `failure`.
extern "C" fn run_child(argument: *mut c_void) -> ! {
    // SAFETY: `start` passes its `child` and is suspended meanwhile.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    child.failure = Some(child.execute());
    sys::exit(kvmlet_contract::EXIT_INIT_FAILED)
}

impl Child<'_> {
    /// Becomes the program; returns only on failure.
    fn execute(&self) -> (Step, Errno) {
        self.take_stdio();
        if let Some(identity) = self.identity
            && let Err(error) = become_user(identity)
        {
            return (Step::User, error);
        }
        if let Err(error) = sys::chdir(self.workdir) {
            return (Step::Workdir, error);
        }
        sys::unblock_all_signals();
        (Step::Execute, self.execute_program())
    }

    /// Looks for the program as execvp(3) does.
    fn execute_program(&self) -> Errno {
        let program = self.program.to_bytes();
        if program.contains(&b'/') {
            return self.execute_at(self.program);
        }
        let mut worst = Errno::ENOENT;
        let mut buffer = [0; LONGEST_PATH];
        for directory in self.path.split(|byte| *byte == b':') {
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            match joined(directory, program, &mut buffer).map(|path| self.execute_at(path)) {
                None | Some(Errno::ENOENT | Errno::ENOTDIR) => {}
                // Another one further on may be accessible.
                Some(Errno::EACCES) => worst = Errno::EACCES,
                Some(error) => return error,
            }
        }
        worst
    }

    fn execute_at(&self, path: &CStr) -> Errno {
        // SAFETY: both arrays end with a null pointer, and their strings live in `start`.
        unsafe { sys::execve(path, self.argv.as_ptr(), self.envp.as_ptr()) }
    }

    fn take_stdio(&self) {
        match self.stdio {
            Stdio::Console { terminal, size } => self.take_console(*terminal, *size),
            Stdio::Streams(files) => {
                let _ = sys::setsid();
                for (fd, file) in (0..).zip(files) {
                    let _ = sys::dup3(*file, fd);
                    self.own(fd);
                }
            }
            Stdio::Terminal(file) => {
                let _ = sys::setsid();
                let _ = sys::set_controlling_terminal(*file);
                for fd in 0..3 {
                    let _ = sys::dup3(*file, fd);
                }
                self.own(0);
            }
        }
    }

    /// Becomes the job that has the terminal.
    fn take_console(&self, terminal: Option<&File>, size: Option<ConsoleSize>) {
        let _ = sys::start_process_group();
        let Some(terminal) = terminal else {
            return;
        };
        // All signals are blocked, SIGTTOU among them.
        let _ = sys::set_foreground(terminal.number(), &sys::getpid());
        if let Some(size) = size {
            let _ = sys::set_window_size(terminal.number(), size);
        }
        for fd in 0..3 {
            let _ = sys::dup3(terminal.number(), fd);
        }
        self.own(0);
    }

    /// Gives a descriptor to the user, so that the program may open /dev/stdout and the like again.
    fn own(&self, fd: i32) {
        if let Some(identity) = self.identity {
            let _ = sys::fchown(fd, identity.uid);
        }
    }
}

/// `DIRECTORY/PROGRAM`, unless that is too long to be a path.
fn joined<'b>(directory: &[u8], program: &[u8], buffer: &'b mut [u8]) -> Option<&'b CStr> {
    let length = directory.len() + 1 + program.len();
    let path = buffer.get_mut(..length + 1)?;
    path[..directory.len()].copy_from_slice(directory);
    path[directory.len()] = b'/';
    path[directory.len() + 1..length].copy_from_slice(program);
    path[length] = 0;
    CStr::from_bytes_with_nul(path).ok()
}

fn become_user(identity: &Identity) -> Result<(), Errno> {
    sys::set_groups(&identity.groups)?;
    sys::setgid(identity.gid)?;
    sys::setuid(identity.uid)
}
