//! When KVM cannot go on: which instruction, where, at what privilege, and what it usually means.

use crate::arch::x86_64::diagnosis::{Instruction, instruction};
use crate::config::{Advice, Remedy, Setting, advice};
use crate::memory::GuestMemory;
use kvm_bindings::{KVM_INTERNAL_ERROR_EMULATION, kvm_run};
use kvm_ioctls::VcpuFd;
use kvmlet_sys::process;
use std::fmt;
use vm_memory::{Bytes, GuestAddress};

/// The longest instruction of the architecture, in bytes (Intel SDM vol. 2A §2.3.11).
const LONGEST_INSTRUCTION: usize = 15;

/// What stopped a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// KVM_INTERNAL_ERROR_EMULATION: an instruction that KVM had to emulate and could not.
    Emulation,
    /// Another KVM_EXIT_INTERNAL_ERROR, with its suberror.
    Internal(u32),
    /// KVM_EXIT_FAIL_ENTRY: the processor refused to enter the guest, with its reason.
    Entry(u64),
    /// An exit reason that kvmlet does not expect.
    Unexpected(String),
    /// KVM_RUN itself failed, with its errno.
    Run(i32),
}

/// A vCPU that KVM cannot run on, with where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Number of the vCPU.
    pub vcpu: u8,
    /// What happened.
    pub cause: Cause,
    /// Instruction pointer, where KVM tells it.
    pub rip: Option<u64>,
    /// Current privilege level: 0 kernel, 3 user.
    pub privilege: Option<u8>,
    /// Up to 15 bytes at RIP.
    pub instruction: Vec<u8>,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {}: ", self.vcpu)?;
        match &self.cause {
            Cause::Emulation => write!(f, "KVM cannot emulate an instruction")?,
            Cause::Internal(suberror) => write!(f, "KVM internal error, suberror {suberror}")?,
            Cause::Entry(reason) => write!(
                f,
                "the processor refused to enter the guest, reason {reason:#x}"
            )?,
            Cause::Unexpected(exit) => write!(f, "unexpected exit from the guest ({exit})")?,
            Cause::Run(errno) => {
                write!(
                    f,
                    "KVM_RUN failed ({})",
                    std::io::Error::from_raw_os_error(*errno)
                )?;
            }
        }
        if !self.instruction.is_empty() {
            write!(f, "; bytes")?;
            self.instruction
                .iter()
                .try_for_each(|byte| write!(f, " {byte:02x}"))?;
            if let Some(known) = instruction(&self.instruction) {
                write!(f, " ({})", name(&known))?;
            }
        }
        if let Some(rip) = self.rip {
            write!(f, " at RIP {rip:#x}")?;
        }
        match self.privilege {
            Some(0) => write!(f, ", CPL 0 (kernel)"),
            Some(3) => write!(f, ", CPL 3 (user)"),
            Some(level) => write!(f, ", CPL {level}"),
            None => Ok(()),
        }
    }
}

/// What it usually means.
impl Remedy for Failure {
    fn remedy(&self) -> Option<Advice> {
        Some(match (&self.cause, instruction(&self.instruction)) {
            (Cause::Emulation, Some(known)) => {
                let kernel = format!(
                    "this host's KVM interprets guest kernel code and lacks {} there; boot a kernel made for such hosts \
                     (`kernels/build software-kvm`)",
                    name(&known)
                );
                without(&known, kernel)
            }
            (Cause::Emulation, None) => {
                "the guest probably jumped to a place that holds no code, or used an instruction on device \
                 memory that KVM does not emulate"
                    .into()
            }
            (Cause::Entry(_), _) => {
                "the guest set its CPU to a state that the processor does not allow; \
                 `dmesg` on the host may say more"
                    .into()
            }
            (Cause::Run(libc::EAGAIN), _) => advice!(
                "KVM could not start a thread of its own in this process: {}",
                process::MORE_PROCESSES
            ),
            _ => "`dmesg` on the host may say more; `kvmlet doctor` tells what its KVM can do".into(),
        })
    }
}

impl Failure {
    /// Looks at a vCPU that has just stopped.
    pub(super) fn examine(vcpu: u8, cause: Cause, fd: &mut VcpuFd, ram: &GuestMemory) -> Self {
        let rip = fd.get_regs().ok().map(|registers| registers.rip);
        let special = fd.get_sregs().ok();
        let mut instruction = reported_bytes(&cause, fd.get_kvm_run());
        if let (true, Some(rip), Some(special)) = (instruction.is_empty(), rip, &special) {
            instruction = bytes_at(fd, ram, special.cs.base.wrapping_add(rip));
        }
        Self {
            vcpu,
            cause,
            rip,
            privilege: special.map(|s| s.cs.dpl),
            instruction,
        }
    }

    /// Tells the kinds of internal error apart.
    pub(super) fn internal_error(fd: &mut VcpuFd) -> Cause {
        // SAFETY: the caller has just seen KVM_EXIT_INTERNAL_ERROR, for which `internal` is the union's member.
        let suberror = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        match suberror {
            KVM_INTERNAL_ERROR_EMULATION => Cause::Emulation,
            other => Cause::Internal(other),
        }
    }
}

/// An instruction for people, with the extension that it came with.
fn name(known: &Instruction) -> String {
    match (known.mnemonic, known.set) {
        (Some(mnemonic), Some(set)) => format!("`{mnemonic}` of {}", set.name),
        (Some(mnemonic), None) => format!("`{mnemonic}`"),
        (None, Some(set)) => format!("an instruction of {}", set.name),
        (None, None) => "this instruction".into(),
    }
}

/// How the kernel at hand may do without an instruction set, beside another way out.
fn without(known: &Instruction, kernel: String) -> Advice {
    let Some(mask) = known.set.and_then(|set| set.mask) else {
        return kernel.into();
    };
    let unpacking = match known.set {
        Some(set) if set.name.starts_with("BMI") => {
            "; if it was unpacking a zstd initrd, pass that uncompressed (`zstd -d`)"
        }
        _ => "",
    };
    advice!(
        "{}|hide it from this one with {}{}",
        kernel,
        (Setting::CpuMask, mask),
        unpacking
    )
}

/// The bytes that KVM itself reports with an emulation failure (api.rst, KVM_EXIT_INTERNAL_ERROR).
fn reported_bytes(cause: &Cause, run: &kvm_run) -> Vec<u8> {
    const BYTES_ARE_VALID: u64 = 1;
    if *cause != Cause::Emulation {
        return Vec::new();
    }
    // SAFETY: `cause` says KVM_EXIT_INTERNAL_ERROR with the emulation suberror; `emulation_failure` is its
    // layout, and any bit pattern is valid for its integers.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    // SAFETY: as above; the inner union only exists to allow for more flags.
    let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    if failure.ndata < 3 || failure.flags & BYTES_ARE_VALID == 0 {
        return Vec::new();
    }
    let count = usize::from(bytes.insn_size).min(LONGEST_INSTRUCTION);
    bytes.insn_bytes[..count].to_vec()
}

/// The bytes at a linear address, as far as the guest's page tables and RAM have them.
fn bytes_at(fd: &VcpuFd, ram: &GuestMemory, linear: u64) -> Vec<u8> {
    let Ok(translation) = fd.translate_gva(linear) else {
        return Vec::new();
    };
    if translation.valid == 0 {
        return Vec::new();
    }
    let mut bytes = vec![0; LONGEST_INSTRUCTION];
    let count = ram
        .read(&mut bytes, GuestAddress(translation.physical_address))
        .unwrap_or(0);
    bytes.truncate(count);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dialect;

    #[test]
    fn the_message_has_bytes_place_and_privilege() {
        let failure = Failure {
            vcpu: 1,
            cause: Cause::Emulation,
            rip: Some(0xffff_ffff_8100_0000),
            privilege: Some(0),
            instruction: vec![0x9b, 0x90],
        };
        assert_eq!(
            failure.to_string(),
            "vCPU 1: KVM cannot emulate an instruction; bytes 9b 90 (`fwait`) at RIP 0xffffffff81000000, \
             CPL 0 (kernel)"
        );
        assert!(
            failure
                .remedy()
                .unwrap()
                .to_string()
                .contains("software-kvm")
        );
        // What Linux's zstd decompressor does where it sees BMI2.
        let shlx = vec![0xc4, 0xe2, 0xf9, 0xf7, 0xc1];
        let failure = Failure {
            instruction: shlx,
            ..failure
        };
        assert!(
            failure.to_string().contains("(`shlx` of BMI2)"),
            "{failure}"
        );
        let help = failure.remedy().unwrap().in_words_of(Dialect::Flags);
        for way_out in ["software-kvm", "--cpu-mask bmi2", "`zstd -d`"] {
            assert!(help.contains(way_out), "{help}");
        }
    }
}
