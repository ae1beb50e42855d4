//! Each way in which a guest ends its VM.

use crate::harness::{Guest, Test};
use kvmlet::ExitReason;
use kvmlet::host::kvm::Execution;
use kvmlet::vm::Cause;

pub const TESTS: &[Test] = &[
    ("power_off_with_an_exit_code", power_off),
    ("reset_by_the_keyboard_controller", reset),
    ("panic_by_pvpanic", panic),
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
    assert_eq!(Guest::boot("panic").finish().0, ExitReason::Panic);
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
            let Err(kvmlet::Error::Failed(failure)) = guest.wait() else {
                panic!("KVM went on: {:?}", guest.output.text());
            };
            assert_eq!((failure.cause.clone(), failure.vcpu), (Cause::Emulation, 0));
            assert_eq!(failure.privilege, Some(0));
            assert!(failure.rip.is_some_and(|rip| rip >= 1 << 20), "{failure}");
            assert!(failure.to_string().contains("bytes 9b"), "{failure}");
            assert!(failure.help().contains("fwait"), "{}", failure.help());
            let guest = Guest::boot_with("bad_instruction", |c| c.cmdline("which=shlx"));
            let Err(kvmlet::Error::Failed(failure)) = guest.wait() else {
                panic!("KVM went on: {:?}", guest.output.text());
            };
            let text = failure.to_string();
            assert!(text.contains("(`shlx` of BMI2)"), "{failure}");
            assert!(
                failure.help().contains("--cpu-mask bmi2"),
                "{}",
                failure.help()
            );
        }
    }
}
