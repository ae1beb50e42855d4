//! Filters on the sockets for news, by which the kernel leaves out what nobody here looks at: with a hundred guests, each
//! one that starts would wake a hundred supervisors.
//!
//! They are of the classic kind (`linux/filter.h`): numbers are loaded as if the network had sent them, and those of
//! netlink are this machine's own.

use super::message::Kind;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Length and type of a message.
const LENGTH: u32 = 0;
const TYPE: u32 = 4;
/// Behind the header and a `netconfmsg` comes its first attribute, the interface's number, with a header of its own.
const SETTING: u32 = 20;
const SETTING_VALUE: u32 = 24;
/// NETCONFA_IFINDEX, of 8 bytes in all.
const OF_INTERFACE: [u8; 4] = {
    let ([a, b], [c, d]) = (8_u16.to_ne_bytes(), 1_u16.to_ne_bytes());
    [a, b, c, d]
};
/// NETCONFA_IFINDEX_ALL
const ALL: [u8; 4] = (-1_i32).to_ne_bytes();
/// The number of a transaction, which ends it. (NFT_MSG_NEWGEN)
const NEW_GENERATION: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | 15;
/// The kernel puts messages of one transaction together in datagrams of a page. A datagram with more of them is heard. The first
/// of these makes too long a filter where a socket may have 20 KiB of them (`net.core.optmem_max` before Linux 6.7).
const MESSAGES: [usize; 3] = [64, 32, 16];

const HEARD: u32 = u32::MAX;
const LEFT_OUT: u32 = 0;

/// Leaves out datagrams that tell of nothing but elements that have come.
pub(super) fn but_for_losses(socket: impl AsFd) {
    let kinds = [Kind::NewElement.message_type(), NEW_GENERATION];
    let no_room = |done: &io::Result<()>| {
        let error = done.as_ref().err().and_then(io::Error::raw_os_error);
        error == Some(libc::ENOMEM)
    };
    let mut done = Ok(());
    for most in MESSAGES {
        done = attach(&socket, &coming(kinds, most));
        if !no_room(&done) {
            break;
        }
    }
    tell(done);
}

/// Leaves out settings of single interfaces.
pub(super) fn but_for_all(socket: impl AsFd) {
    tell(attach(socket, &of_one_interface()));
}

fn step(code: u32, k: u32) -> libc::sock_filter {
    test(code, k, 0, 0)
}

fn test(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}

fn half(number: u16) -> u32 {
    u16::from_be_bytes(number.to_ne_bytes()).into()
}

fn coming(kinds: [u16; 2], most: usize) -> Vec<libc::sock_filter> {
    use libc::*;
    // X is where a message begins.
    let mut program = vec![step(BPF_LDX | BPF_IMM, 0)];
    for _ in 0..most {
        program.extend([
            step(BPF_STX, 0),
            step(BPF_LD | BPF_W | BPF_LEN, 0),
            test(BPF_JMP | BPF_JGT | BPF_X, 0, 1, 0),
            step(BPF_RET, LEFT_OUT),
            step(BPF_LD | BPF_H | BPF_IND, TYPE),
            test(BPF_JMP | BPF_JEQ, half(kinds[0]), 2, 0),
            test(BPF_JMP | BPF_JEQ, half(kinds[1]), 1, 0),
            step(BPF_RET, HEARD),
            // The two low bytes of the length, and what it is filled up to.
            step(BPF_LD | BPF_B | BPF_IND, LENGTH + LOW[1]),
            step(BPF_ALU | BPF_LSH, 8),
            step(BPF_ST, 1),
            step(BPF_LD | BPF_B | BPF_IND, LENGTH + LOW[0]),
            step(BPF_LDX | BPF_MEM, 1),
            step(BPF_ALU | BPF_OR | BPF_X, 0),
            step(BPF_ALU | BPF_ADD, 3),
            step(BPF_ALU | BPF_AND, !3),
            step(BPF_LDX | BPF_MEM, 0),
            step(BPF_ALU | BPF_ADD | BPF_X, 0),
            step(BPF_MISC | BPF_TAX, 0),
        ]);
    }
    program.push(step(BPF_RET, HEARD));
    program
}

/// Where the lowest two of a number's four bytes are.
const LOW: [u32; 2] = match cfg!(target_endian = "little") {
    true => [0, 1],
    false => [3, 2],
};

fn of_one_interface() -> [libc::sock_filter; 8] {
    use libc::*;
    [
        step(BPF_LD | BPF_H | BPF_ABS, TYPE),
        test(BPF_JMP | BPF_JEQ, half(RTM_NEWNETCONF), 0, 4),
        step(BPF_LD | BPF_W | BPF_ABS, SETTING),
        test(BPF_JMP | BPF_JEQ, u32::from_be_bytes(OF_INTERFACE), 0, 3),
        step(BPF_LD | BPF_W | BPF_ABS, SETTING_VALUE),
        test(BPF_JMP | BPF_JEQ, u32::from_be_bytes(ALL), 1, 0),
        step(BPF_RET, LEFT_OUT),
        step(BPF_RET, HEARD),
    ]
}

/// Without a filter all is heard, which is only more to do.
fn tell(attached: io::Result<()>) {
    if let Err(error) = attached {
        log::debug!("this process hears of all guests' networks: {error}");
    }
}

fn attach(socket: impl AsFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program is as long as is told, and copied.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::isolation::isolated;
    use super::super::super::table::Table;
    use super::super::{Change, News, Socket, data, nest};
    use super::*;
    use crate::net::tests::run;
    use kvmlet_sys::wait::{self, Slot, Until};

    /// Is there news, and how much? There is none any more.
    fn heard(news: &News) -> (bool, usize) {
        let slots = news.fds().map(Slot::readable);
        let come = wait::any(slots, Until::after(std::time::Duration::ZERO)).unwrap();
        let mut count = 0;
        news.read(|change| count += usize::from(!matches!(change, Change::Lost)));
        (come != [false; 2], count)
    }

    #[test]
    fn what_comes_with_other_guests_wakes_nobody() {
        isolated(
            "net::nft::quiet::tests::what_comes_with_other_guests_wakes_nobody",
            || {
                let mut socket = Socket::open().unwrap();
                let table = Table::named("quiet");
                socket.change(|batch| table.create(batch)).unwrap();
                let news = News::subscribe().unwrap();
                let mut elements = |kind, numbers: std::ops::Range<u32>| {
                    let changed = socket.change(|batch| {
                        for number in numbers.clone() {
                            let element = nest(1, &[data(1, &number.to_ne_bytes())]);
                            let which = [table.attribute(), text(2, "taps"), nest(3, &[element])];
                            batch.push(IPV4, kind, NLM_F_CREATE, &which);
                        }
                    });
                    changed.unwrap();
                };
                elements(Kind::NewElement, 1..2);
                assert_eq!(heard(&news), (false, 0));
                // As many in one datagram as each kernel has room for in a filter.
                elements(Kind::NewElement, 2..16);
                assert_eq!(heard(&news), (false, 0));
                elements(Kind::DelElement, 1..2);
                assert_eq!(heard(&news), (true, 1));
                // What counts comes behind what does not, in one transaction.
                let both = "add element ip kvmlet-quiet taps { \"lo\" }; add table ip other";
                run("nft", &[both]);
                let (woken, count) = heard(&news);
                assert!(woken && count >= 1);
                run("ip", &["tuntap", "add", "kvmlet0", "mode", "tap"]);
                run("ip", &["link", "set", "kvmlet0", "up"]);
                let one = "/proc/sys/net/ipv4/conf/kvmlet0/forwarding";
                std::fs::write(one, "1").unwrap();
                assert_eq!(heard(&news), (false, 0));
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
                assert_eq!(heard(&news), (true, 1));
                run("nft", &["flush", "ruleset"]);
                assert!(heard(&news).1 > 10);
            },
        );
    }

    use super::super::{IPV4, text};
    const NLM_F_CREATE: u16 = 0x400;
}
