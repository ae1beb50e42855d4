//! Programs are run by an interpreter of what is used here.

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
                libc::BPF_JA => at += k as usize,
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
fn a_list_may_be_longer_than_jumps_reach() {
    static LONG: [Rule; 250] = {
        let mut all = [Rule::any(0); 250];
        let mut number = 0;
        while number < all.len() {
            // Every second call, each third of which asks for an argument.
            let call = 2 * number as libc::c_long;
            all[number] = match number % 3 {
                0 => Rule::equal(call, 0, 5),
                _ => Rule::any(call),
            };
            number += 1;
        }
        all
    };
    let program = Program::refusing(LONG.iter()).unwrap();
    for number in 0..600 {
        for value in [5, 6] {
            let is_named = number % 2 == 0 && number < 500;
            let expected = match is_named && (number % 3 != 0 || value == 5) {
                true => libc::SECCOMP_RET_ALLOW,
                false => REFUSE,
            };
            let arguments = [value, 0, 0, 0, 0, 0];
            let (says, steps) = run(&program, AUDIT_ARCH_X86_64, number, arguments);
            assert_eq!(says, expected, "{number} {value}");
            assert!(steps < 30, "{number}: {steps} steps");
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
