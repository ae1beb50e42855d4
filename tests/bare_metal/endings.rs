//! Each way in which a guest ends its VM.

use crate::cli::{kvmlet, run, text};
use crate::harness::{Guest, Test};
use crate::stop::KINDS;
use kvmlet_spec::Remedy;
use kvmlet_sys::kvm::Execution;
use kvmlet_vmm::ExitReason;
use kvmlet_vmm::vm::Cause;
use std::process::Stdio;

pub const TESTS: &[Test] = &[
    ("power_off_with_an_exit_code", power_off),
    ("reset_by_the_keyboard_controller", reset),
    ("panic_by_pvpanic", panic),
    ("who_crashed_unseen_is_told_of_with_its_last_lines", unseen),
    ("triple_fault", triple_fault),
    ("an_instruction_that_kvm_cannot_emulate", bad_instruction),
];

fn power_off() {
    for code in [0, 7, 255] {
        let guest = Guest::boot_with("power_off", |c| c.cmdline(format!("code={code}")));
        assert_eq!(guest.finish().0, ExitReason::Shutdown { code });
    }
}

fn reset() {
    assert_eq!(Guest::boot("reset").finish().0, ExitReason::Reset);
}

fn panic() {
    let guest = Guest::boot("panic");
    assert_eq!(guest.wait().unwrap(), ExitReason::Panic);
    assert_eq!(guest.vm.last_lines(), [r"\u{1b}[2Jpanicking"]);
    assert!(!guest.vm.lost_output());
}

/// Who crashed unseen is told of with its last lines, and a terminal takes no orders from them.
fn unseen() {
    let boot = |name: &str, arguments: &[&str], output: Stdio| {
        let mut command = kvmlet(name);
        let output = run(command.args(arguments).stdout(output));
        (output.status.code(), text(&output.stderr))
    };
    let null = || Stdio::null();
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    };
    for arguments in KINDS {
        for output in [null as fn() -> Stdio, gone] {
            let (code, message) = boot("panic", arguments, output());
            assert_eq!(code, Some(134), "{message}");
            let expected = "::last_lines] the guest kernel panicked; the last lines of its console, which nobody \
                            saw:\n    \\u{1b}[2Jpanicking\n";
            assert!(message.contains(expected), "{message}");
            let (_, message) = boot("triple_fault", arguments, output());
            assert!(message.contains("saw:\n    triple fault\n"), "{message}");
        }
        // It is there to be read; or there was no crash.
        let (_, message) = boot("panic", arguments, Stdio::piped());
        assert!(!message.contains("panicking"), "{message}");
        for name in ["ready", "reset"] {
            assert_eq!(boot(name, arguments, null()).1, "", "{name}");
        }
    }
}

fn triple_fault() {
    assert_eq!(
        Guest::boot("triple_fault").finish().0,
        ExitReason::TripleFault
    );
}

/// Only an interpreting KVM has gaps in supervisor mode; elsewhere the program runs to its end.
fn bad_instruction() {
    let guest = Guest::boot("bad_instruction");
    match Execution::detect().unwrap() {
        Execution::Hardware => {
            guest.finish();
        }
        Execution::Interpreted => {
            let Err(kvmlet_vmm::Error::Failed(failure)) = guest.wait() else {
                panic!("KVM went on: {:?}", guest.output.text());
            };
            assert_eq!((failure.cause.clone(), failure.vcpu), (Cause::Emulation, 0));
            assert_eq!(failure.privilege, Some(0));
            assert!(failure.rip.is_some_and(|rip| rip >= 1 << 20), "{failure}");
            assert!(failure.to_string().contains("bytes 9b"), "{failure}");
            assert!(
                failure.remedy().unwrap().to_string().contains("fwait"),
                "{}",
                failure.remedy().unwrap()
            );
            let guest = Guest::boot_with("bad_instruction", |c| c.cmdline("which=shlx"));
            let Err(kvmlet_vmm::Error::Failed(failure)) = guest.wait() else {
                panic!("KVM went on: {:?}", guest.output.text());
            };
            let text = failure.to_string();
            assert!(text.contains("(`shlx` of BMI2)"), "{failure}");
            assert!(
                failure
                    .remedy()
                    .unwrap()
                    .to_string()
                    .contains(r#""cpu_mask": ["bmi2"]"#),
                "{}",
                failure.remedy().unwrap()
            );
        }
    }
}
