//! The keys that leave a process to itself.

/// Ctrl-p and then Ctrl-q, as docker has it.
const DETACH: [u8; 2] = [0x10, 0x11];

/// What is typed, looked through for the keys that detach.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The first of them was pressed, and is not passed on until it is known what comes next.
    held: bool,
}

impl Keys {
    /// What of this is for the process, and whether it is left to itself then.
    pub fn look(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let [first, second] = DETACH;
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            match (std::mem::take(&mut self.held), *byte) {
                (true, byte) if byte == second => return (passed, true),
                (held, byte) => {
                    passed.extend(held.then_some(first));
                    self.held = byte == first;
                    passed.extend((!self.held).then_some(byte));
                }
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_one_after_the_other_detach() {
        for (typed, passed, left) in [
            (&[&b"ab"[..]][..], &b"ab"[..], false),
            (&[b"a\x10\x11b"], b"a", true),
            (&[b"a\x10", b"\x11b"], b"a", true),
            (&[b"\x10", b"\x10", b"b"], b"\x10\x10b", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11\x10x\x11"], b"\x11\x10x\x11", false),
        ] {
            let (mut keys, mut all, mut detached) = (Keys::default(), Vec::new(), false);
            for part in typed.iter().filter(|part| !part.is_empty()) {
                let (passed, left) = keys.look(part);
                all.extend(passed);
                detached |= left;
            }
            assert_eq!((&all[..], detached), (passed, left), "{typed:?}");
        }
    }
}
