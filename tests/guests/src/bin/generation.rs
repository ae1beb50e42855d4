//! Watches the machine's generation on two CPUs, one at CPL3 and one at CPL0, both with interrupts on, and tells of each new
//! one: `generation=ID taken=N,N acpi=N late=N,N`, the first without having been told. Never ends by itself: `q` ends it with 0.
//!
//! A CPU is `late` where it finds another generation in memory than the one that its interrupt handler has seen last: it
//! has executed an instruction before that interrupt.
#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::machine::{GENERATION_ADDRESS, GENERATION_PIN, GENERATION_PORT};
use kvmlet_guests::mmio::read64;
use kvmlet_guests::{interrupts, ioapic, lapic, port, println, serial, smp};

kvmlet_guests::program!(run);

const VECTOR: u8 = 0x3e;
const ACPI_VECTOR: u8 = 0x32;
/// Between two looks whether there is something to be told.
const LOOKS: u32 = 1_000_000;

/// What the handler of a CPU has seen last, how often it has run, and how often that CPU was late.
struct Cpu {
    seen: &'static AtomicU64,
    taken: &'static AtomicU64,
    late: &'static AtomicU64,
}

static FIRST_SEEN: AtomicU64 = AtomicU64::new(0);
static SECOND_SEEN: AtomicU64 = AtomicU64::new(0);
static FIRST_TAKEN: AtomicU64 = AtomicU64::new(0);
static SECOND_TAKEN: AtomicU64 = AtomicU64::new(0);
static FIRST_LATE: AtomicU64 = AtomicU64::new(0);
static SECOND_LATE: AtomicU64 = AtomicU64::new(0);

static CPUS: [Cpu; 2] = [
    Cpu {
        seen: &FIRST_SEEN,
        taken: &FIRST_TAKEN,
        late: &FIRST_LATE,
    },
    Cpu {
        seen: &SECOND_SEEN,
        taken: &SECOND_TAKEN,
        late: &SECOND_LATE,
    },
];
static QUIT: AtomicBool = AtomicBool::new(false);
/// The second CPU takes interrupts.
static WATCHING: AtomicU64 = AtomicU64::new(0);
static ACPI: AtomicU64 = AtomicU64::new(0);

fn generation() -> u64 {
    read64(GENERATION_ADDRESS)
}

fn run(_: &BootInfo) -> u8 {
    for cpu in &CPUS {
        cpu.seen.store(generation(), Relaxed);
    }
    interrupts::set_handler(VECTOR, renewed);
    interrupts::set_handler(ACPI_VECTOR, notified);
    lapic::enable();
    ioapic::route_edge(GENERATION_PIN, ACPI_VECTOR, lapic::id());
    port::outb(GENERATION_PORT, VECTOR);
    smp::prepare();
    smp::start_in(1, watch_at_cpl0);
    while WATCHING.load(Relaxed) == 0 {
        core::hint::spin_loop();
    }
    serial::on_input(listen);
    interrupts::enable();
    let [first, second] = &CPUS;
    let mut told = 0;
    loop {
        for _ in 0..LOOKS {
            look(first);
        }
        let now = first.seen.load(Relaxed);
        // The other CPU is told at the same time, and may take its interrupt a little later.
        if now != told && second.seen.load(Relaxed) == now {
            told = now;
            let numbers =
                |of: fn(&Cpu) -> &AtomicU64| CPUS.each_ref().map(|cpu| of(cpu).load(Relaxed));
            let ([a, b], [c, d]) = (numbers(|cpu| cpu.taken), numbers(|cpu| cpu.late));
            let acpi = ACPI.load(Relaxed);
            println!("generation={now:x} taken={a},{b} acpi={acpi} late={c},{d}");
        }
        if QUIT.load(Relaxed) {
            return 0;
        }
    }
}

/// In between, the handler may have run: then nothing is said.
fn look(cpu: &Cpu) {
    let before = cpu.seen.load(Relaxed);
    let now = generation();
    if cpu.seen.load(Relaxed) == before && now != before {
        cpu.late.fetch_add(1, Relaxed);
    }
}

fn renewed() {
    let cpu = &CPUS[lapic::id() as usize];
    cpu.seen.store(generation(), Relaxed);
    cpu.taken.fetch_add(1, Relaxed);
}

fn listen() {
    while let Some(byte) = serial::try_read() {
        QUIT.fetch_or(byte == b'q', Relaxed);
    }
}

fn notified() {
    ACPI.fetch_add(1, Relaxed);
}

unsafe extern "C" {
    fn watch_at_cpl0() -> !;
}

// As `look`, of few instructions: where CPL0 is interpreted, compilers use some that KVM does not know.
global_asm!(
    r#"
    .globl watch_at_cpl0
watch_at_cpl0:
    sti
    mov qword ptr [{watching}], 1
2:  mov rax, qword ptr [{seen}]
    mov rcx, qword ptr [{address}]
    mov rdx, qword ptr [{seen}]
    cmp rax, rdx
    jne 2b
    cmp rax, rcx
    je 2b
    inc qword ptr [{late}]
    jmp 2b
"#,
    watching = sym WATCHING,
    seen = sym SECOND_SEEN,
    late = sym SECOND_LATE,
    address = const GENERATION_ADDRESS,
);
