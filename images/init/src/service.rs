//! Starting the service: a job in the foreground of the console's terminal, and the program in it.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::{CStr, c_void};
use core::ptr::null;

use kvmlet_contract::{ConsoleSize, ServiceSpec, User, exec_error_code};

use crate::sys::{self, Errno, File, Pid};
use crate::{Failure, read_text};

const DEFAULT_COMMAND: &str = "/bin/sh";
const DEFAULT_ENV: [(&str, &str); 3] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/"),
    // The kernel's own default; the terminal is behind a serial line.
    ("TERM", "linux"),
];

/// For the child, in units of 16 bytes: 16 KiB.
const STACK_SIZE: usize = 1024;

/// A step of the child that failed.
enum Step {
    User,
    Workdir,
    Execute,
}

/// What the child needs, in the kernel's form, and what it leaves to its parent.
struct Launch {
    terminal: Option<File>,
    size: Option<ConsoleSize>,
    user: Option<User>,
    workdir: CString,
    /// Where the program may be, in the order of trying.
    candidates: Vec<CString>,
    /// With a null pointer at the end.
    argv: Vec<*const i8>,
    envp: Vec<*const i8>,
    failure: Option<(Step, Errno)>,
}

/// Starts the service, or says why it does not start.
pub fn start(mut spec: ServiceSpec, size: Option<ConsoleSize>) -> Result<Pid, Failure> {
    if spec.command.is_empty() {
        spec.command.push(DEFAULT_COMMAND.into());
    }
    for (name, value) in DEFAULT_ENV {
        if !spec.env.iter().any(|(known, _)| known == name) {
            spec.env.push((name.into(), value.into()));
        }
    }
    let program = &spec.command[0];
    let workdir = spec.workdir.as_deref().unwrap_or("/");
    let arguments: Vec<CString> = spec.command.iter().map(|text| c_string(text)).collect();
    let env: Vec<CString> = spec
        .env
        .iter()
        .map(|(name, value)| c_string(&format!("{name}={value}")))
        .collect();
    let mut launch = Launch {
        terminal: open_terminal(),
        size,
        user: spec.user,
        workdir: c_string(workdir),
        candidates: candidates(program, &spec.env),
        argv: pointers(&arguments),
        envp: pointers(&env),
        failure: None,
    };
    let mut stack = vec![0u128; STACK_SIZE];
    let argument = (&raw mut launch).cast::<c_void>();
    // SAFETY: `launch` and all it points to outlive the call, which returns only when the child
    // no longer uses them; the child calls nothing deep.
    let pid = unsafe { sys::spawn(&mut stack, run_child, argument) }
        .map_err(|e| format!("start a process for \"{program}\": {e}"))?;
    match launch.failure {
        None => Ok(pid),
        Some((Step::User, error)) => {
            let (uid, gid) = spec.user.map_or((0, 0), |user| (user.uid, user.gid));
            Err(format!("become user {uid}:{gid}: {error}").into())
        }
        Some((Step::Workdir, error)) => {
            Err(format!("enter the working directory \"{workdir}\": {error}").into())
        }
        Some((Step::Execute, error)) => Err(Failure {
            message: format!("run \"{program}\": {}", execute_error(program, error)),
            code: exec_error_code(error.number()),
        }),
    }
}

fn execute_error(program: &str, error: Errno) -> String {
    match error {
        Errno::ENOENT if !program.contains('/') => "it is in no directory of PATH".into(),
        // The kernel says the same of a missing interpreter or dynamic loader.
        Errno::ENOENT => "no such file, or the interpreter that it names is missing".into(),
        other => format!("{other}"),
    }
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

/// Where to look for `program` (execvp(3)).
fn candidates(program: &str, env: &[(String, String)]) -> Vec<CString> {
    if program.contains('/') {
        return vec![c_string(program)];
    }
    let path = env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value);
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| c_string(&format!("{directory}/{program}")))
        .collect()
}

/// What holds a NUL byte was refused where it was read, so nothing is replaced here.
fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn pointers(strings: &[CString]) -> Vec<*const i8> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([null()])
        .collect()
}

/// The child: it shares the parent's memory, so it changes nothing there but `failure`.
extern "C" fn run_child(argument: *mut c_void) -> ! {
    // SAFETY: `start` passes its `launch` and is suspended meanwhile.
    let launch = unsafe { &mut *argument.cast::<Launch>() };
    launch.failure = Some(launch.execute());
    sys::exit(kvmlet_contract::EXIT_INIT_FAILED)
}

impl Launch {
    /// Becomes the service; returns only on failure.
    fn execute(&self) -> (Step, Errno) {
        self.take_terminal();
        if let Some(user) = self.user
            && let Err(error) = become_user(user)
        {
            return (Step::User, error);
        }
        if let Err(error) = sys::chdir(&self.workdir) {
            return (Step::Workdir, error);
        }
        sys::unblock_all_signals();
        let mut worst = Errno::ENOENT;
        for path in &self.candidates {
            // SAFETY: both arrays end with a null pointer, and their strings live in `start`.
            match unsafe { sys::execve(path, self.argv.as_ptr(), self.envp.as_ptr()) } {
                Errno::ENOENT | Errno::ENOTDIR => {}
                // Another one further on may be accessible.
                Errno::EACCES => worst = Errno::EACCES,
                error => return (Step::Execute, error),
            }
        }
        (Step::Execute, worst)
    }

    /// Becomes the job that has the terminal. Without one the service keeps init's own standard streams, and only misses
    /// job control.
    fn take_terminal(&self) {
        let _ = sys::start_process_group();
        let Some(terminal) = &self.terminal else {
            return;
        };
        // All signals are blocked, SIGTTOU among them.
        let _ = sys::set_foreground(terminal.number(), &sys::getpid());
        if let Some(ConsoleSize { columns, rows }) = self.size {
            let _ = sys::set_window_size(terminal.number(), &[rows, columns, 0, 0]);
        }
        for fd in 0..3 {
            let _ = sys::dup3(terminal.number(), fd);
        }
        if let Some(user) = self.user {
            // So that the service may open /dev/stdout and the like again.
            let _ = sys::fchown(0, user.uid);
        }
    }
}

fn become_user(user: User) -> Result<(), Errno> {
    sys::clear_groups()?;
    sys::setgid(user.gid)?;
    sys::setuid(user.uid)
}
