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
    /// When there are more rules than jumps reach over; a hundred are no matter.
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

/// How a program ends; the places are those at its end, which all its paths share.
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
}

/// A program whose jumps have no distances yet.
struct Draft(Vec<Step>);

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

    /// Measures all jumps. They lead forward, from behind their step.
    fn program(self, named: u32, otherwise: u32) -> io::Result<Program> {
        let length = self.0.len();
        let distance = |at: usize, next: Next| {
            let target = match next {
                Next::Step => at + 1,
                Next::At(step) => step,
                Next::End(end) => length + end as usize,
            };
            u8::try_from(target - at - 1).map_err(io::Error::other)
        };
        let instruction = |(at, step): (usize, &Step)| {
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
                    instruction(code, value, distance(at, holds)?, distance(at, fails)?)
                }
            })
        };
        let steps: io::Result<Vec<_>> = self.0.iter().enumerate().map(instruction).collect();
        let mut program = steps?;
        let ends = [named, otherwise, libc::SECCOMP_RET_KILL_PROCESS];
        program.extend(ends.map(|end| self::instruction(libc::BPF_RET | libc::BPF_K, end, 0, 0)));
        Ok(Program(program))
    }
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    // Codes have 8 bits (linux/bpf_common.h).
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program says to a call, and after how many steps: an interpreter of what is used here.
    fn run(program: &Program, architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
        let (mut at, mut steps, mut value) = (0, 0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program.0[at];
            (at, steps) = (at + 1, steps + 1);
            let code = u32::from(code);
            let mut jump_if = |holds| at += usize::from(if holds { jt } else { jf });
            match code & 0x07 {
                libc::BPF_LD => {
                    value = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        _ => arguments[(k - ARGUMENTS) as usize / 8] as u32,
                    };
                }
                libc::BPF_RET => return (k, steps),
                _ => match code & 0xf0 {
                    libc::BPF_JEQ => jump_if(value == k),
                    libc::BPF_JGE => jump_if(value >= k),
                    libc::BPF_JSET => jump_if(value & k != 0),
                    other => panic!("{other:#x}"),
                },
            }
        }
    }

    fn holds(check: Check, arguments: [u64; 6]) -> bool {
        let argument = |number: u8| arguments[usize::from(number)] as u32;
        match check {
            Check::None => true,
            Check::Equal(number, value) => argument(number) == value,
            Check::Without(number, bits) => argument(number) & bits == 0,
            Check::With(number, bits) => argument(number) & bits != 0,
            Check::OwnProcess(number) => argument(number) == std::process::id(),
        }
    }

    /// A list with rules of all sorts, some of them for one call.
    const RULES: [Rule; 9] = [
        Rule::any(libc::SYS_read),
        Rule::any(libc::SYS_exit_group),
        Rule::equal(libc::SYS_ioctl, 1, 0xae80),
        Rule::equal(libc::SYS_ioctl, 1, 0x4040_ae79),
        Rule::equal(libc::SYS_ioctl, 2, 7),
        Rule::without(libc::SYS_openat, 2, 3),
        Rule::with(libc::SYS_mmap, 2, 4),
        Rule {
            call: libc::SYS_tgkill,
            check: Check::OwnProcess(0),
        },
        Rule::any(454),
    ];

    #[test]
    fn a_program_says_what_its_rules_say() {
        let program = Program::new(RULES.iter()).unwrap();
        // Every value that a rule asks for, beside others, in every place.
        let asked = RULES.iter().map(|rule| match rule.check {
            Check::Equal(_, value) | Check::Without(_, value) | Check::With(_, value) => value,
            Check::OwnProcess(_) => std::process::id(),
            Check::None => 0,
        });
        let values: Vec<u64> = asked
            .flat_map(|value| [value, !value])
            .map(u64::from)
            .collect();
        for number in 0..600 {
            for value in &values {
                let arguments = [*value | 1 << 40; 6];
                let mut rules = RULES.iter().filter(|rule| rule.call as u32 == number);
                let allowed = rules.any(|rule| holds(rule.check, arguments));
                let (says, steps) = run(&program, AUDIT_ARCH_X86_64, number, arguments);
                let expected = match allowed {
                    true => libc::SECCOMP_RET_ALLOW,
                    false => libc::SECCOMP_RET_TRAP,
                };
                assert_eq!(says, expected, "{number} {value:#x}");
                assert!(steps < 40, "{number}: {steps} steps");
            }
        }
    }

    #[test]
    fn calls_of_other_architectures_end_the_process() {
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        let program = Program::new(RULES.iter()).unwrap();
        let read = libc::SYS_read as u32;
        let says = |architecture, number| run(&program, architecture, number, [0; 6]).0;
        assert_eq!(says(AUDIT_ARCH_X86_64, read), libc::SECCOMP_RET_ALLOW);
        assert_eq!(says(AUDIT_ARCH_I386, read), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(says(AUDIT_ARCH_X86_64, X32 | read), libc::SECCOMP_RET_TRAP);
    }

    #[test]
    fn what_is_denied_has_no_other_number() {
        const EXECVE: u32 = libc::SYS_execve as u32;
        const DENIED: [Rule; 2] = [
            Rule::any(libc::SYS_execve),
            Rule::with(libc::SYS_mmap, 2, libc::PROT_EXEC as u32),
        ];
        let program = Program::denying(DENIED.iter()).unwrap();
        let says = |number, arguments| run(&program, AUDIT_ARCH_X86_64, number, arguments).0;
        assert_eq!(says(EXECVE, [0; 6]), REFUSE);
        // The x32 ABI has a number of its own for it, and takes the usual one, too.
        for number in [X32 | EXECVE, X32 | 520] {
            assert_eq!(says(number, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        }
        let mmap = libc::SYS_mmap as u32;
        let [write, execute] = [libc::PROT_WRITE, libc::PROT_EXEC].map(|bits| bits as u64);
        let map = |bits| says(mmap, [0, 4096, bits, 0, 0, 0]);
        assert_eq!(map(write), libc::SECCOMP_RET_ALLOW);
        assert_eq!((map(execute), map(write | execute)), (REFUSE, REFUSE));
        assert_eq!(
            says(libc::SYS_openat as u32, [0; 6]),
            libc::SECCOMP_RET_ALLOW
        );
    }

    /// A list of this many calls, with even numbers.
    fn list(calls: usize) -> impl Iterator<Item = &'static Rule> {
        static LIST: [Rule; 400] = {
            let check = Check::Equal(0, 7);
            let mut list = [Rule { call: 0, check }; 400];
            let mut at = 0;
            while at < list.len() {
                list[at].call = at as libc::c_long * 2;
                at += 1;
            }
            list
        };
        LIST[..calls].iter()
    }

    #[test]
    fn lists_are_of_any_length_within_reason() {
        for calls in 0..60 {
            let program = Program::new(list(calls)).unwrap();
            for number in 0..200 {
                let (says, _) = run(&program, AUDIT_ARCH_X86_64, number, [7; 6]);
                let listed = number % 2 == 0 && number < 2 * calls as u32;
                assert_eq!(
                    says == libc::SECCOMP_RET_ALLOW,
                    listed,
                    "{number} of {calls}"
                );
            }
        }
        assert!(Program::new(list(400)).is_err());
    }
}
