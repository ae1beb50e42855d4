//! Filters as the kernel takes them: classic BPF (Linux Documentation/userspace-api/seccomp_filter.rst).
//!
//! The kernel runs a filter once for each system call there is when it is installed, to know those that it always
//! allows, and at each call that it does not. So a call is found by halving the list, not by going through it: in
//! five steps of 24.

use super::{Check, Rule};
use std::collections::BTreeMap;
use std::io;

/// A filter for one kind of thread.
#[derive(Clone, Debug)]
pub struct Program(Vec<libc::sock_filter>);

/// linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Set in the numbers of the x32 ABI (asm/unistd.h).
const X32: u32 = 0x4000_0000;
/// Places in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;
/// The call is not made, and answered with EPERM.
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

impl Program {
    /// A filter that allows what one of the rules allows and traps at all else.
    ///
    /// # Errors
    /// When there are more rules for one call than jumps reach over.
    pub fn new(rules: impl Iterator<Item = &'static Rule>) -> io::Result<Self> {
        Self::with(rules, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_TRAP)
    }

    /// A filter that allows what one of the rules allows and answers all else with EPERM.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn refusing(rules: impl Iterator<Item = &'static Rule>) -> io::Result<Self> {
        Self::with(rules, libc::SECCOMP_RET_ALLOW, REFUSE)
    }

    /// A filter that answers what one of the rules names with EPERM and allows all else.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn denying(rules: impl Iterator<Item = &'static Rule>) -> io::Result<Self> {
        Self::with(rules, REFUSE, libc::SECCOMP_RET_ALLOW)
    }

    /// What becomes of calls that a rule names, and of others.
    fn with(
        rules: impl Iterator<Item = &'static Rule>,
        named: u32,
        otherwise: u32,
    ) -> io::Result<Self> {
        let mut calls: BTreeMap<u32, Vec<Check>> = BTreeMap::new();
        for rule in rules {
            calls.entry(rule.call as u32).or_default().push(rule.check);
        }
        let calls: Vec<(u32, Vec<Check>)> = calls.into_iter().collect();
        let mut draft = Draft(vec![
            Step::Load(ARCHITECTURE),
            Step::Test {
                condition: libc::BPF_JEQ,
                value: AUDIT_ARCH_X86_64,
                holds: Next::Step,
                fails: Next::End(End::Kill),
            },
            Step::Load(NUMBER),
        ]);
        if otherwise == libc::SECCOMP_RET_ALLOW {
            // The same calls by other numbers.
            draft.test(libc::BPF_JGE, X32, Next::End(End::Kill), Next::Step);
        }
        draft.find(&calls);
        draft.program(named, otherwise)
    }

    /// Holds the calling thread, and those that it starts, to this program for good.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn install(&self) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(io::Error::other)?,
            // The kernel only reads it.
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the program is as long as is told.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// How a program ends; the numbers are the order of these steps.
#[derive(Clone, Copy)]
enum End {
    /// A rule names it.
    Named,
    /// No rule does.
    Otherwise,
    /// Numbers mean other calls on other architectures.
    Kill,
}

/// Where a program goes on.
#[derive(Clone, Copy)]
enum Next {
    /// With the next step.
    Step,
    /// With the step of this number.
    At(usize),
    End(End),
}

#[derive(Clone, Copy)]
enum Step {
    /// Loads four bytes of `struct seccomp_data`.
    Load(u32),
    /// Compares them.
    Test {
        condition: u32,
        value: u32,
        holds: Next,
        fails: Next,
    },
    /// Goes on elsewhere, however far.
    Jump(Next),
    /// The end; the first one of three, in their order.
    End(End),
}

/// A program whose jumps have no distances yet.
struct Draft(Vec<Step>);

/// More calls than that have ends of their own for each half: a test's jumps reach over 255 steps, and no further.
const MANY: usize = 100;

const ENDS: [End; 3] = [End::Named, End::Otherwise, End::Kill];

impl Draft {
    /// What comes once the call's number is loaded. Calls are in order.
    fn find(&mut self, calls: &[(u32, Vec<Check>)]) {
        match calls {
            // Only of an empty list: nothing has this number.
            [] => self.test(
                libc::BPF_JEQ,
                u32::MAX,
                Next::End(End::Otherwise),
                Next::End(End::Otherwise),
            ),
            [(number, checks)] => {
                let listed = match checks.contains(&Check::None) {
                    true => Next::End(End::Named),
                    false => Next::Step,
                };
                self.test(libc::BPF_JEQ, *number, listed, Next::End(End::Otherwise));
                if matches!(listed, Next::Step) {
                    self.check(checks);
                }
            }
            _ if calls.len() > MANY => {
                let (lower, upper) = calls.split_at(calls.len() / 2);
                let below = Next::At(self.0.len() + 2);
                self.test(libc::BPF_JGE, upper[0].0, Next::Step, below);
                let jump = self.0.len();
                self.0.push(Step::Jump(Next::Step));
                self.find(lower);
                self.0.extend(ENDS.map(Step::End));
                self.0[jump] = Step::Jump(Next::At(self.0.len()));
                self.find(upper);
            }
            _ => {
                let (lower, upper) = calls.split_at(calls.len() / 2);
                let branch = self.0.len();
                self.test(libc::BPF_JGE, upper[0].0, Next::Step, Next::Step);
                self.find(lower);
                let above = Next::At(self.0.len());
                if let Step::Test { holds, .. } = &mut self.0[branch] {
                    *holds = above;
                }
                self.find(upper);
            }
        }
    }

    /// Tells whether one of a call's checks holds.
    fn check(&mut self, checks: &[Check]) {
        let mut loaded = None;
        for (number, check) in checks.iter().enumerate() {
            let named = Next::End(End::Named);
            let other = match number + 1 == checks.len() {
                true => Next::End(End::Otherwise),
                false => Next::Step,
            };
            let (argument, condition, value, holds, fails) = match *check {
                Check::None => return,
                Check::Equal(argument, value) => (argument, libc::BPF_JEQ, value, named, other),
                Check::Without(argument, bits) => (argument, libc::BPF_JSET, bits, other, named),
                Check::With(argument, bits) => (argument, libc::BPF_JSET, bits, named, other),
                Check::OwnProcess(argument) => {
                    let own = std::process::id();
                    (argument, libc::BPF_JEQ, own, named, other)
                }
            };
            if loaded.replace(argument) != Some(argument) {
                // The lower half: this machine is little endian.
                let place = ARGUMENTS + ARGUMENT_BYTES * u32::from(argument);
                self.0.push(Step::Load(place));
            }
            self.test(condition, value, holds, fails);
        }
    }

    fn test(&mut self, condition: u32, value: u32, holds: Next, fails: Next) {
        self.0.push(Step::Test {
            condition,
            value,
            holds,
            fails,
        });
    }

    /// Measures all jumps. They lead forward, from behind their step; to an end, to the next one of its kind.
    fn program(mut self, named: u32, otherwise: u32) -> io::Result<Program> {
        self.0.extend(ENDS.map(Step::End));
        let steps = self.0.iter().enumerate();
        let ends = steps.filter_map(|(at, step)| match step {
            Step::End(End::Named) => Some(at),
            _ => None,
        });
        let ends: Vec<usize> = ends.collect();
        let distance = |at: usize, next: Next| {
            let target = match next {
                Next::Step => at + 1,
                Next::At(step) => step,
                Next::End(end) => {
                    let first = ends.iter().find(|ends| **ends > at);
                    first.map_or(self.0.len(), |first| first + end as usize)
                }
            };
            target - at - 1
        };
        let short = |at, next| u8::try_from(distance(at, next)).map_err(io::Error::other);
        let one = |(at, step): (usize, &Step)| {
            Ok(match *step {
                Step::Load(place) => {
                    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, place, 0, 0)
                }
                Step::Test {
                    condition,
                    value,
                    holds,
                    fails,
                } => {
                    let code = libc::BPF_JMP | condition | libc::BPF_K;
                    instruction(code, value, short(at, holds)?, short(at, fails)?)
                }
                Step::Jump(next) => {
                    let distance = u32::try_from(distance(at, next)).map_err(io::Error::other)?;
                    instruction(libc::BPF_JMP | libc::BPF_JA, distance, 0, 0)
                }
                Step::End(end) => {
                    let action = match end {
                        End::Named => named,
                        End::Otherwise => otherwise,
                        End::Kill => libc::SECCOMP_RET_KILL_PROCESS,
                    };
                    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
                }
            })
        };
        let steps: io::Result<Vec<_>> = self.0.iter().enumerate().map(one).collect();
        Ok(Program(steps?))
    }
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    // Codes have 8 bits (linux/bpf_common.h).
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
