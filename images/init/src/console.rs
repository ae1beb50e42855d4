//! What init itself has to say, on the guest's console.

use core::fmt::{self, Write};

use crate::sys::{self, File};

/// Collects a line, so that it leaves in one write and is not torn by the kernel's messages.
struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - 1 - self.length;
        let count = text.len().min(room);
        self.bytes[self.length..self.length + count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

/// Writes `kvmlet-init: MESSAGE` to standard error. A message that cannot be written is lost:
/// there is nobody left to tell.
pub fn say(message: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; 512],
        length: 0,
    };
    let _ = write!(line, "kvmlet-init: {message}");
    line.bytes[line.length] = b'\n';
    let _ = sys::write(2, &line.bytes[..=line.length]);
}

/// Opens the console as standard input, output and error if the kernel could not, which is so
/// when the initramfs or root has no `/dev/console` of its own.
pub fn ensure_stdio() {
    if sys::check_open(0).is_ok() {
        return;
    }
    let Ok(console) = File::open(c"/dev/console", sys::O_RDWR | sys::O_NOCTTY) else {
        return;
    };
    for number in 0..3 {
        // Onto itself, dup3 fails; there it has to lose its close-on-exec flag.
        if number == console.number() {
            let _ = sys::keep_on_exec(number);
        } else {
            let _ = sys::dup3(console.number(), number);
        }
    }
    console.leak();
}
