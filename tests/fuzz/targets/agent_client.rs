//! Any bytes as what a guest's agent says to a host that executes a process in it: handed out or refused, and never more kept
//! than is allowed.
#![no_main]

use kvmlet_contract::channel::{
    Client, Event, HEADER, MAX_BACKLOG, MAX_PAYLOAD, OUTPUT_WINDOW, Output, ProcessSpec, Role,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, mut bytes)) = input.split_first() else {
        return;
    };
    let (takes, sends) = (mode & 1 != 0, mode & 2 != 0);
    let mut client = Client::new();
    if client.start(&ProcessSpec::default(), Role::Exec).is_err() {
        return;
    }
    let mut untaken = [0; 2];
    while !bytes.is_empty() {
        let piece = bytes.len().min(usize::from(mode >> 2) + 1);
        let count = client.received(&bytes[..piece]);
        assert!(count > 0, "there is room when all was handed out");
        bytes = &bytes[count..];
        loop {
            let (output, length) = match client.next_event() {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(Event::Output { output, bytes })) => (output, bytes.len()),
                Ok(Some(_)) => continue,
            };
            if takes {
                client.taken(output, length);
            } else {
                let untaken = &mut untaken[usize::from(output == Output::Stderr)];
                *untaken += length;
                assert!(*untaken <= OUTPUT_WINDOW as usize);
            }
        }
        client.input(b"input");
        if sends {
            client.sent(client.outgoing().len());
        }
        assert!(client.outgoing().len() <= MAX_BACKLOG);
        assert!(client.room() <= HEADER + MAX_PAYLOAD);
    }
});
