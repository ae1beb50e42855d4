//! Writes to memory all the time, and looks at each page that it comes to whether it is as it was left: one that is from another
//! moment than the rest is found once the guest comes round to it.
//!
//! `pages=N` pages are filled at first; of these, the first `window=N` are written to one after the other, `spins=N` turns of a loop
//! apart. Every so often it prints `count=N`, how many it has written. What is wrong it prints, and ends with 1. `q` ends it with 0,
//! once it has looked at all pages.
//!
//! With `steps=1` it prints `round=N start=ADDRESS` after each round of its window instead, and goes on when it is told `w`.
#![no_std]
#![no_main]

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU8, Ordering};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::{PAGE_BYTES, next_free};
use kvmlet_guests::mmio::{read64, write64};
use kvmlet_guests::{interrupts, println, serial};

kvmlet_guests::program!(run);

/// Between two looks at whether somebody has said something.
const OFTEN: u64 = 1024;

static SAID: AtomicU8 = AtomicU8::new(0);

fn run(info: &BootInfo) -> u8 {
    let pages = info.number("pages").unwrap_or(1024);
    let window = info.number("window").unwrap_or(pages).min(pages);
    let spins = info.number("spins").unwrap_or(0);
    let steps = info.number("steps").is_some();
    match steps {
        true => serial::on_input(listen),
        false => serial::take_input(),
    }
    let start = next_free().next_multiple_of(PAGE_BYTES);
    let page = |number: u64| start + number * PAGE_BYTES;
    for number in 0..pages {
        leave(page(number), filled(number));
    }
    println!("filled");
    for count in 0u64.. {
        let (round, number) = (count / window, count % window);
        let said = match (steps, number) {
            (true, 0) if round > 0 => {
                println!("round={round} start={start:#x}");
                wait()
            }
            (false, _) if count.is_multiple_of(OFTEN) => serial::try_read(),
            _ => None,
        };
        if said == Some(b'q') {
            // Those before this one were left in this round.
            let wrong = (0..pages).find(|other| {
                let rounds = round + u64::from(*other < number);
                !is_left(page(*other), expected(*other, window, rounds))
            });
            return u8::from(wrong.is_some());
        }
        if !is_left(page(number), expected(number, window, round)) {
            return 1;
        }
        leave(page(number), expected(number, window, round + 1));
        if count.is_multiple_of(OFTEN) && !steps {
            println!("count={count}");
        }
        (0..spins).for_each(|_| spin_loop());
    }
    0
}

fn listen() {
    while let Some(byte) = serial::try_read() {
        SAID.store(byte, Ordering::Relaxed);
    }
}

/// What is said next.
fn wait() -> Option<u8> {
    loop {
        match SAID.swap(0, Ordering::Relaxed) {
            0 => interrupts::wait(),
            said => return Some(said),
        }
    }
}

fn filled(number: u64) -> u64 {
    number ^ 0x5aa5_0ff0_c33c_9669
}

/// What is in a page that was written to in as many rounds. In every seventh round that is nothing.
fn expected(number: u64, window: u64, rounds: u64) -> u64 {
    match rounds {
        _ if number >= window || rounds == 0 => filled(number),
        rounds if rounds.is_multiple_of(7) => 0,
        rounds => filled(number).wrapping_add(rounds << 20),
    }
}

/// At both ends of the page.
fn leave(page: u64, value: u64) {
    // SAFETY: RAM behind all that the program has, of which nothing else is taken.
    unsafe {
        write64(page, value);
        write64(page + PAGE_BYTES - 8, value);
    }
}

fn is_left(page: u64, value: u64) -> bool {
    let found = [read64(page), read64(page + PAGE_BYTES - 8)];
    if found != [value; 2] {
        println!("failed: {page:#x}: left {value:#x}, found {found:x?}");
    }
    found == [value; 2]
}
