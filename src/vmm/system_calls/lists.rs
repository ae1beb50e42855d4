//! The lists. A bare-metal test watches all calls of VMs that do all there is to do, and finds each entry used
//! and no other needed, but for what is for [other hosts](elsewhere()).

use crate::thread::ThreadKind;
use kvmlet_sys::seccomp::{Check, Rule, elsewhere};
use kvmlet_sys::vhost;
use kvmlet_sys::written::{PAGEMAP_SCAN, UFFDIO_REGISTER};

/// The list for a kind of thread.
pub fn rules(kind: ThreadKind) -> impl Iterator<Item = &'static Rule> {
    shared_rules(kind)
        .chain(own_rules(kind))
        .chain(elsewhere().map(|elsewhere| &elsewhere.rule))
}

/// The part of its list that a kind of thread has in common with others.
pub fn shared_rules(kind: ThreadKind) -> impl Iterator<Item = &'static Rule> {
    let end = match kind {
        ThreadKind::EventLoop => &[],
        _ => THREAD_END,
    };
    EVERY.iter().chain(end)
}

/// The part of its list that is for one kind of thread.
pub fn own_rules(kind: ThreadKind) -> impl Iterator<Item = &'static Rule> {
    let own = match kind {
        ThreadKind::EventLoop => EVENT_LOOP,
        ThreadKind::Vcpu => VCPU,
        ThreadKind::Block => BLOCK,
        ThreadKind::Net => NET,
        ThreadKind::Vhost => VHOST,
        ThreadKind::Rng => RNG,
        ThreadKind::Balloon => BALLOON,
        ThreadKind::Vsock => VSOCK,
    };
    own.iter()
}

const fn ioctl(request: u32) -> Rule {
    Rule::equal(libc::SYS_ioctl, 1, request)
}

/// What every thread does: wait for others and wake them, write to the log and to events, close what it has,
/// and end the process when something is wrong.
const EVERY: &[Rule] = &[
    Rule::any(libc::SYS_close),
    Rule::any(libc::SYS_exit_group),
    Rule::any(libc::SYS_futex),
    Rule::any(libc::SYS_munmap),
    Rule::any(libc::SYS_read),
    Rule::any(libc::SYS_rt_sigprocmask),
    Rule::any(libc::SYS_write),
    // Rust's debug builds look whether a descriptor is open before they close it.
    #[cfg(debug_assertions)]
    Rule::equal(libc::SYS_fcntl, 1, libc::F_GETFD as u32),
];

/// What the end of a thread takes, unless it is the first: that ends with its process.
const THREAD_END: &[Rule] = &[
    Rule::any(libc::SYS_exit),
    Rule::equal(libc::SYS_madvise, 2, libc::MADV_DONTNEED as u32),
];

/// Attends the VM: polls, moves input to the serial port, sends statistics (with how much guest memory is
/// resident), takes orders, presses the power button, pauses and stops vCPUs, leaves code to the page cache, tells of a VM
/// that is saved, with what its guest writes meanwhile, wakes the devices of one that was, and looks how large a disk has become.
const EVENT_LOOP: &[Rule] = &[
    Rule::any(libc::SYS_fdatasync),
    Rule::any(libc::SYS_fstat),
    Rule::any(libc::SYS_getpid),
    ioctl(BLKGETSIZE64),
    ioctl(KVM_GET_CLOCK),
    ioctl(PAGEMAP_SCAN),
    ioctl(UFFDIO_REGISTER),
    ioctl(KVM_IOEVENTFD),
    ioctl(KVM_SIGNAL_MSI),
    ioctl(libc::TUNSETOFFLOAD as u32),
    ioctl(libc::TUNSETQUEUE as u32),
    Rule::equal(libc::SYS_madvise, 2, libc::MADV_DONTNEED as u32),
    Rule::any(libc::SYS_mincore),
    Rule::any(libc::SYS_ppoll),
    Rule::any(libc::SYS_recvmsg),
    Rule::any(libc::SYS_sendto),
    kick(),
    Rule::any(libc::SYS_timerfd_create),
];

/// Runs the guest, sets interrupt routes, connects and disconnects queues, saves and restores registers for kernels that cannot,
/// looks at a guest that failed, and tells all of one that is saved.
const VCPU: &[Rule] = &[
    Rule::equal(libc::SYS_fcntl, 1, libc::F_DUPFD_CLOEXEC as u32),
    Rule::any(libc::SYS_getpid),
    ioctl(KVM_RUN),
    ioctl(KVM_IOEVENTFD),
    ioctl(KVM_KVMCLOCK_CTRL),
    ioctl(KVM_SET_GSI_ROUTING),
    ioctl(KVM_GET_REGS),
    ioctl(KVM_GET_SREGS),
    ioctl(KVM_TRANSLATE),
    ioctl(KVM_GET_MP_STATE),
    ioctl(KVM_GET_CPUID2),
    ioctl(KVM_GET_XSAVE),
    ioctl(KVM_SET_XSAVE),
    ioctl(KVM_GET_XCRS),
    ioctl(KVM_GET_DEBUGREGS),
    ioctl(KVM_GET_LAPIC),
    ioctl(KVM_GET_MSRS),
    ioctl(KVM_GET_TSC_KHZ),
    ioctl(KVM_GET_VCPU_EVENTS),
    ioctl(libc::TUNSETOFFLOAD as u32),
    ioctl(libc::TUNSETQUEUE as u32),
    Rule::any(libc::SYS_rt_sigreturn),
    kick(),
    Rule::any(libc::SYS_timerfd_create),
];

/// Serves a disk, by a ring that was made before or by system calls.
const BLOCK: &[Rule] = &[
    // No other modes: some give a file blocks beyond its end, which RLIMIT_FSIZE does not prevent.
    Rule::equal(
        libc::SYS_fallocate,
        1,
        (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32,
    ),
    Rule::equal(libc::SYS_fallocate, 1, libc::FALLOC_FL_ZERO_RANGE as u32),
    Rule::any(libc::SYS_fdatasync),
    Rule::any(libc::SYS_io_uring_enter),
    Rule::any(libc::SYS_ppoll),
    Rule::any(libc::SYS_preadv),
    Rule::any(libc::SYS_preadv2),
    // What musl makes of the next where it has no flags.
    #[cfg(target_env = "musl")]
    Rule::any(libc::SYS_pwritev),
    Rule::any(libc::SYS_pwritev2),
    Rule::any(libc::SYS_sched_yield),
    Rule::any(libc::SYS_timerfd_settime),
];

/// Serves a tap.
const NET: &[Rule] = &[
    ioctl(libc::TUNSETOFFLOAD as u32),
    ioctl(libc::TUNSETQUEUE as u32),
    Rule::any(libc::SYS_ppoll),
    Rule::any(libc::SYS_readv),
    Rule::any(libc::SYS_sched_yield),
    Rule::any(libc::SYS_timerfd_settime),
    Rule::any(libc::SYS_writev),
];

/// Has the kernel serve a queue pair, for as long as the guest runs: no frame passes through the thread.
const VHOST: &[Rule] = &[
    ioctl(libc::TUNSETOFFLOAD as u32),
    ioctl(libc::TUNSETQUEUE as u32),
    Rule::any(libc::SYS_ppoll),
    ioctl(vhost::SET_OWNER),
    ioctl(vhost::SET_FEATURES),
    ioctl(vhost::SET_MEM_TABLE),
    ioctl(vhost::SET_VRING_NUM),
    ioctl(vhost::SET_VRING_BASE),
    ioctl(vhost::SET_VRING_ADDR),
    ioctl(vhost::SET_VRING_KICK),
    ioctl(vhost::SET_VRING_CALL),
    ioctl(vhost::SET_VRING_ERR),
    ioctl(vhost::NET_SET_BACKEND),
    ioctl(vhost::GET_VRING_BASE),
];

/// Serves random bytes.
const RNG: &[Rule] = &[
    Rule::any(libc::SYS_getrandom),
    Rule::any(libc::SYS_ppoll),
    Rule::any(libc::SYS_timerfd_settime),
];

/// Gives guest memory back, by the advice that every thread may give.
const BALLOON: &[Rule] = &[Rule::any(libc::SYS_ppoll)];

/// Serves connected streams, which it receives and does not open.
const VSOCK: &[Rule] = &[
    Rule::any(libc::SYS_epoll_ctl),
    Rule::any(libc::SYS_epoll_pwait),
    Rule::any(libc::SYS_readv),
    Rule::any(libc::SYS_recvmsg),
    Rule::any(libc::SYS_sendto),
    Rule::any(libc::SYS_shutdown),
    Rule::any(libc::SYS_writev),
];

/// A signal to a thread of this process: calls a vCPU back.
const fn kick() -> Rule {
    Rule {
        call: libc::SYS_tgkill,
        check: Check::OwnProcess(0),
    }
}

// linux/kvm.h
/// linux/fs.h
const BLKGETSIZE64: u32 = 0x8008_1272;
const KVM_RUN: u32 = 0xae80;
const KVM_KVMCLOCK_CTRL: u32 = 0xaead;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;
const KVM_SIGNAL_MSI: u32 = 0x4020_aea5;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;
const KVM_GET_CLOCK: u32 = 0x8030_ae7c;
const KVM_GET_MP_STATE: u32 = 0x8004_ae98;
const KVM_GET_CPUID2: u32 = 0xc008_ae91;
const KVM_GET_XSAVE: u32 = 0x9000_aea4;
const KVM_SET_XSAVE: u32 = 0x5000_aea5;
const KVM_GET_XCRS: u32 = 0x8188_aea6;
const KVM_GET_DEBUGREGS: u32 = 0x8080_aea1;
const KVM_GET_LAPIC: u32 = 0x8400_ae8e;
const KVM_GET_MSRS: u32 = 0xc008_ae88;
const KVM_GET_TSC_KHZ: u32 = 0xaea3;
const KVM_GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
const KVM_GET_REGS: u32 = 0x8090_ae81;
const KVM_GET_SREGS: u32 = 0x8138_ae83;
const KVM_TRANSLATE: u32 = 0xc018_ae85;
