//! From the VMM's entry point to Rust at CPL3.
//!
//! Hosts without hardware virtualization interpret CPL0 code (about a million
//! instructions a second) but run CPL3 natively. So CPL0 does some forty instructions:
//! descriptor tables, page tables that the linker has already filled in, and `iretq`
//! to CPL3 with all ports open. The rest of the set-up (.bss, memory above 4 GiB, the IDT)
//! happens there.
//!
//! Two protocols lead here: the Linux 64-bit boot protocol (Linux
//! Documentation/arch/x86/boot.rst, "64-bit Boot Protocol") and, for a program with
//! [`pvh_note!`](crate::pvh_note), PVH (Xen docs/misc/pvh.pandoc).

use core::arch::global_asm;

/// Code segment of the handlers and of [`crate::interrupts::in_kernel`].
pub const KERNEL_CS: u16 = 0x10;
/// Data segment at CPL3 (RPL 3).
pub const USER_DS: u16 = 0x23;
/// 64-bit code segment at CPL3 (RPL 3).
pub const USER_CS: u16 = 0x2b;
/// RFLAGS at CPL3: interrupts off, and IOPL 3.
pub const USER_RFLAGS: u64 = 0x3002;
/// Number of vectors in the IDT.
pub const VECTORS: u8 = 0x40;

/// Makes `$main`, a `fn(&BootInfo) -> u8`, what the guest runs at CPL3; its result is
/// the exit code.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        core::arch::global_asm!(
            ".section .text.start, \"ax\"",
            ".globl _start",
            "_start:",
            "jmp guest_entry_linux",
            ".text",
        );

        /// What the runtime calls at CPL3.
        #[unsafe(no_mangle)]
        fn guest_main(info: &'static $crate::boot_info::BootInfo) -> u8 {
            $main(info)
        }

        // Every program carries the note when the crate is built for VMMs that load
        // ELF files by PVH only.
        #[cfg(feature = "pvh")]
        $crate::pvh_note!();
    };
}

/// Adds the ELF note XEN_ELFNOTE_PHYS32_ENTRY (type 18), so that a VMM enters the program
/// by PVH, at the runtime's entry or at a symbol of the program's own.
#[macro_export]
macro_rules! pvh_note {
    () => {
        $crate::pvh_note!("guest_entry_pvh");
    };
    ($entry:literal) => {
        core::arch::global_asm!(
            ".section .note.Xen, \"a\", @note",
            ".balign 4",
            ".long 4", // size of the name
            ".long 8", // size of the value
            ".long 18",
            ".asciz \"Xen\"",
            concat!(".quad ", $entry),
            ".text",
        );
    };
}

global_asm!(
    r#"
    .set CR0_PE_MP_NE, 0x23
    .set CR0_PG, 0x80000000
    .set CR0_EM_TS, 0x0c
    .set CR4_PAE, 0x20
    .set CR4_OSFXSR_OSXMMEXCPT, 0x600
    .set EFER, 0xc0000080
    .set EFER_LME, 0x100
    .set RFLAGS, {rflags}
    .set TSS, 0x30

    .section .text.entry, "ax"

    # Linux 64-bit protocol: long mode, low memory identity mapped, RSI = boot_params.
    .code64
    .globl guest_entry_linux
guest_entry_linux:
    cli
    movl $guest_page_tables, %eax
    movq %rax, %cr3
    movq %cr4, %rax
    orl $CR4_OSFXSR_OSXMMEXCPT, %eax
    movq %rax, %cr4
    movq %cr0, %rax
    andl $~CR0_EM_TS, %eax
    orl $CR0_PE_MP_NE, %eax
    movq %rax, %cr0
    lgdt guest_gdt_pointer
    xorl %ebp, %ebp
    jmp to_user

    # PVH: 32-bit protected mode, no paging, EBX = hvm_start_info.
    .code32
    .globl guest_entry_pvh
guest_entry_pvh:
    cli
    movl $guest_page_tables, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $(CR4_PAE + CR4_OSFXSR_OSXMMEXCPT), %eax
    movl %eax, %cr4
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl %cr0, %eax
    andl $~CR0_EM_TS, %eax
    orl $(CR0_PG + CR0_PE_MP_NE), %eax
    movl %eax, %cr0
    lgdt guest_gdt_pointer
    ljmp $0x10, $pvh_in_long_mode

    .code64
pvh_in_long_mode:
    movl %ebx, %esi
    movl $1, %ebp

    # RSI = what the VMM handed over, EBP = protocol. Neither is touched until Rust.
to_user:
    # The TSS descriptor scatters the address, which no relocation can do.
    movl $guest_tss, %eax
    movw %ax, guest_gdt + TSS + 2
    shrl $16, %eax
    movb %al, guest_gdt + TSS + 4
    movb %ah, guest_gdt + TSS + 7
    lidt guest_idt_pointer
    movl $TSS, %eax
    ltr %ax
    movl $0x23, %eax
    movl %eax, %ds
    movl %eax, %es
    movl $guest_kernel_stack_top, %esp
    pushq $0x23
    pushq $guest_user_stack_top
    pushq $RFLAGS
    pushq $0x2b
    pushq $user_entry
    iretq

    # CPL3, native speed from here on.
user_entry:
    movq %rsi, %rdx
    movl $__bss_start, %edi
    movl $__bss_end, %ecx
    subl %edi, %ecx
    xorl %eax, %eax
    rep stosb
    movq %rdx, %rdi
    movl %ebp, %esi
    xorl %ebp, %ebp
    call guest_start
    ud2

    .section .data.tables, "aw"
    .balign 16
    .globl guest_gdt
guest_gdt:
    .quad 0
    .quad 0
    .quad 0x00af9b000000ffff    # 0x10: 64-bit code, DPL 0, as in the Linux protocol
    .quad 0x00cf93000000ffff    # 0x18: data, DPL 0
    .quad 0x00cff3000000ffff    # 0x20: data, DPL 3
    .quad 0x00affb000000ffff    # 0x28: 64-bit code, DPL 3
    .quad 0x000089000000ffff    # 0x30: available 64-bit TSS, I/O bitmap included
    .quad 0
    .globl guest_gdt_pointer
guest_gdt_pointer:
    .word . - guest_gdt - 1
    .quad guest_gdt
    .globl guest_idt_pointer
guest_idt_pointer:
    .word {idt_limit}
    .quad guest_idt

    .balign 16
guest_tss:
    .long 0
    .quad guest_kernel_stack_top    # RSP0
    .fill 90, 1, 0
    # Ports are open by the I/O permission bitmap, all zeros, and by IOPL: on a host without
    # hardware virtualization CPL3 code does not keep its IOPL, and QEMU (7.2, without KVM) does
    # not look at the bitmap of a busy TSS, which KVM makes of one whose VM goes on from a snapshot.
    .word guest_io_bitmap - . + 102

    .bss
    .balign 16
guest_io_bitmap:
    .skip 0x2001

    # The first 4 GiB in 2 MiB pages: present, writable, user, accessed, dirty.
    .section .data.page_tables, "aw"
    .balign 4096
    .globl guest_page_tables
guest_page_tables:
    .quad guest_pdpt + 0x67
    .fill 511, 8, 0
guest_pdpt:
    .quad guest_pd + 0x0067
    .quad guest_pd + 0x1067
    .quad guest_pd + 0x2067
    .quad guest_pd + 0x3067
    .fill 508, 8, 0
guest_pd:
    .set frame, 0
    .rept 2048
    .quad frame + 0xe7
    .set frame, frame + 0x200000
    .endr

    .section .stack, "aw", @nobits
    .balign 16
    .skip 0x4000
guest_kernel_stack_top:
    .skip 0x20000
    .globl guest_user_stack_top
guest_user_stack_top:

    .text
"#,
    idt_limit = const VECTORS as u16 * 16 - 1,
    rflags = const USER_RFLAGS,
    options(att_syntax)
);
