use crate::channel::Ended;

/// The exit code that says that init itself failed, as `docker run` and `chroot` have it.
pub const EXIT_INIT_FAILED: u8 = 125;
/// The exit code for a command that exists but cannot be executed (POSIX sh 2.8.2).
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The exit code for a command that does not exist (POSIX sh 2.8.2).
pub const EXIT_NOT_FOUND: u8 = 127;

const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;

/// The one-byte exit code for a status from wait(2): the service's own, or 128 + the number of
/// the signal that killed it, as shells have it.
pub const fn exit_code(wait_status: i32) -> u8 {
    Ended::from_wait_status(wait_status).exit_code()
}

/// The exit code for a command for which execve(2) failed with `errno`.
pub const fn exec_error_code(errno: i32) -> u8 {
    match errno {
        ENOENT | ENOTDIR => EXIT_NOT_FOUND,
        _ => EXIT_NOT_EXECUTABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_exit_keeps_its_code() {
        assert_eq!(exit_code(0), 0);
        assert_eq!(exit_code(7 << 8), 7);
        assert_eq!(exit_code(255 << 8), 255);
    }

    #[test]
    fn death_by_signal_is_128_plus_its_number() {
        assert_eq!(exit_code(15), 143);
        assert_eq!(exit_code(9), 137);
        // SIGSEGV with the core-dump flag.
        assert_eq!(exit_code(11 | 0x80), 139);
        // The last real-time signal still fits.
        assert_eq!(exit_code(64), 192);
    }

    #[test]
    fn exec_failures_map_as_in_a_shell() {
        assert_eq!(exec_error_code(2), EXIT_NOT_FOUND);
        assert_eq!(exec_error_code(20), EXIT_NOT_FOUND);
        assert_eq!(exec_error_code(13), EXIT_NOT_EXECUTABLE);
        assert_eq!(exec_error_code(8), EXIT_NOT_EXECUTABLE);
    }
}
