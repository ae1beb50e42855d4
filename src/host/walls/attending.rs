//! What a supervisor has no use for once all is set up: calls that start a program, make code of data, reach into
//! another process, change what the kernel is made of, or go around these lists.
//!
//! It has rights of its caller's until the end, and no list that allows: whom it serves then decides on what it calls
//! (a firewall that is reloaded, statistics, cgroups of either version), and a call that is missing on such a list would
//! leave a VM without its end. So this is a list of what is refused.

use kvmlet_sys::seccomp::Rule;

/// What is refused (EPERM).
pub(crate) const DENIED: &[Rule] = &[
    // Programs, and code.
    Rule::any(libc::SYS_execve),
    Rule::any(libc::SYS_execveat),
    Rule::with(libc::SYS_mmap, 2, libc::PROT_EXEC as u32),
    Rule::with(libc::SYS_mprotect, 2, libc::PROT_EXEC as u32),
    Rule::with(libc::SYS_pkey_mprotect, 2, libc::PROT_EXEC as u32),
    Rule::any(libc::SYS_personality),
    Rule::any(libc::SYS_modify_ldt),
    Rule::any(libc::SYS_userfaultfd),
    // Other processes.
    Rule::any(libc::SYS_ptrace),
    Rule::any(libc::SYS_process_vm_readv),
    Rule::any(libc::SYS_process_vm_writev),
    Rule::any(libc::SYS_process_madvise),
    Rule::any(libc::SYS_pidfd_getfd),
    Rule::any(libc::SYS_kcmp),
    // Mounts and namespaces.
    Rule::any(libc::SYS_mount),
    Rule::any(libc::SYS_umount2),
    Rule::any(libc::SYS_mount_setattr),
    Rule::any(libc::SYS_move_mount),
    Rule::any(libc::SYS_open_tree),
    Rule::any(libc::SYS_fsopen),
    Rule::any(libc::SYS_fsconfig),
    Rule::any(libc::SYS_fsmount),
    Rule::any(libc::SYS_fspick),
    Rule::any(libc::SYS_pivot_root),
    Rule::any(libc::SYS_chroot),
    Rule::any(libc::SYS_setns),
    Rule::any(libc::SYS_unshare),
    // Files without their path.
    Rule::any(libc::SYS_open_by_handle_at),
    // The kernel and its machine.
    Rule::any(libc::SYS_bpf),
    Rule::any(libc::SYS_perf_event_open),
    Rule::any(libc::SYS_init_module),
    Rule::any(libc::SYS_finit_module),
    Rule::any(libc::SYS_delete_module),
    Rule::any(libc::SYS_kexec_load),
    Rule::any(libc::SYS_kexec_file_load),
    Rule::any(libc::SYS_reboot),
    Rule::any(libc::SYS_iopl),
    Rule::any(libc::SYS_ioperm),
    Rule::any(libc::SYS_swapon),
    Rule::any(libc::SYS_swapoff),
    Rule::any(libc::SYS_acct),
    Rule::any(libc::SYS_quotactl),
    Rule::any(libc::SYS_add_key),
    Rule::any(libc::SYS_keyctl),
    Rule::any(libc::SYS_request_key),
    // Calls that no list sees.
    Rule::any(libc::SYS_io_uring_enter),
    Rule::any(libc::SYS_io_uring_register),
    Rule::any(libc::SYS_io_uring_setup),
];
