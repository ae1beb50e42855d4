//! A process that is killed, or finds the disk full, at a system call that is chosen: between two of them nothing that
//! others see changes, so all instants are tried by trying all calls.

use std::io;
use std::ptr::null_mut;

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is killed before its Nth system call, from 0.
    KilledAt(usize),
    /// Its Nth system call that takes space, from 0, finds none.
    NoSpaceAt(usize),
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// It was killed.
    Killed,
    /// It ended with this code, after the fault.
    Ended(i32),
    /// It ended before it came to the fault.
    Unharmed(i32),
}

/// Runs `body` in a process of its own, which does with this fault what its code says.
pub fn run(fault: Fault, body: impl FnOnce() -> i32) -> Went {
    // SAFETY: this process has one thread that does something (see `alone`).
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: asks to be traced, and waits for that.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
        }
        let code = body();
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    wait(pid);
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, pid, options as usize);
    Tracer {
        pid,
        fault,
        seen: 0,
        done: false,
    }
    .until_end()
}

struct Tracer {
    pid: libc::pid_t,
    fault: Fault,
    seen: usize,
    done: bool,
}

impl Tracer {
    fn until_end(mut self) -> Went {
        loop {
            if let Some(code) = self.next_stop() {
                return self.ended(code);
            }
            // It has begun a system call.
            let mut registers = registers(self.pid);
            let counts = match self.fault {
                Fault::KilledAt(_) => true,
                Fault::NoSpaceAt(_) => takes_space(&registers),
            };
            let hit = match self.fault {
                Fault::KilledAt(at) | Fault::NoSpaceAt(at) => counts && self.seen == at,
            };
            self.seen += usize::from(counts);
            if hit {
                self.done = true;
                if let Fault::KilledAt(_) = self.fault {
                    // SAFETY: our own child, which was not waited for.
                    unsafe { libc::kill(self.pid, libc::SIGKILL) };
                    wait(self.pid);
                    return Went::Killed;
                }
                registers.orig_rax = u64::MAX;
                set_registers(self.pid, &registers);
            }
            if let Some(code) = self.next_stop() {
                return self.ended(code);
            }
            if hit {
                registers = self::registers(self.pid);
                registers.rax = -i64::from(libc::ENOSPC) as u64;
                set_registers(self.pid, &registers);
            }
        }
    }

    fn ended(self, code: i32) -> Went {
        match self.done {
            true => Went::Ended(code),
            false => Went::Unharmed(code),
        }
    }

    /// Lets it go on to the begin or end of a system call; its code when it has ended.
    fn next_stop(&self) -> Option<i32> {
        loop {
            ptrace(libc::PTRACE_SYSCALL, self.pid, 0);
            let status = wait(self.pid);
            if libc::WIFEXITED(status) {
                return Some(libc::WEXITSTATUS(status));
            }
            assert!(libc::WIFSTOPPED(status), "{status:x}");
            if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
                return None;
            }
        }
    }
}

fn takes_space(registers: &libc::user_regs_struct) -> bool {
    const CREATES: u64 = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u64;
    match registers.orig_rax as i64 {
        libc::SYS_openat => registers.rdx & CREATES != 0,
        // musl has the older calls where they do.
        libc::SYS_open => registers.rsi & CREATES != 0,
        libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_writev
        | libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_symlink
        | libc::SYS_link
        | libc::SYS_rename
        | libc::SYS_symlinkat
        | libc::SYS_linkat
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_fallocate
        | libc::SYS_fsync
        | libc::SYS_fdatasync => true,
        _ => false,
    }
}

fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: stores a number.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

/// What the C library numbers requests by.
#[cfg(target_env = "gnu")]
type Request = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
type Request = libc::c_int;

fn ptrace(request: Request, pid: libc::pid_t, data: usize) {
    // SAFETY: of these requests none stores anything in this process.
    let result = unsafe { libc::ptrace(request, pid, null_mut::<u8>(), data) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn registers(pid: libc::pid_t) -> libc::user_regs_struct {
    // SAFETY: all-zero is a valid value of this structure of numbers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let to = &raw mut registers;
    // SAFETY: stores the registers in a variable that outlives the call.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, null_mut::<u8>(), to) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    registers
}

fn set_registers(pid: libc::pid_t, registers: &libc::user_regs_struct) {
    let from = std::ptr::from_ref(registers);
    // SAFETY: reads the registers.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, null_mut::<u8>(), from) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
