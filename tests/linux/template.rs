//! A guest for tests of what runs in it, whose boot they are not about: the first of them boots it, and others go on from there.

use crate::script::{Script, put_root};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// The first argument by which this executable is the service in the guest.
const PROGRAM: &str = "--wait-in-a-template";

/// As a program: waits, for what is executed beside it. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    if std::env::args().nth(1)? != PROGRAM {
        return None;
    }
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// The book of all of these tests, with the image beside it.
struct Shared {
    place: TempDir,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

fn shared() -> &'static Path {
    let made = || {
        let place = tempfile::tempdir().unwrap();
        put_root(place.path());
        std::fs::create_dir(place.path().join("book")).unwrap();
        let packed = Command::new("mkfs.erofs")
            .args(["--quiet", "root.erofs", "root"])
            .current_dir(place.path())
            .status();
        assert!(packed.unwrap().success());
        std::fs::remove_dir_all(place.path().join("root")).unwrap();
        Shared { place }
    };
    SHARED.get_or_init(made).place.path()
}

/// Removes what these tests have shared.
pub fn end() {
    if let Some(shared) = SHARED.get() {
        std::fs::remove_dir_all(shared.place.path()).unwrap();
    }
}

/// A script in that book, in which `guest NAME` is an instance that has this program as `/test`.
pub fn script(text: &str, directory: &Path) -> (String, String) {
    let text = format!(
        r#"
        set -eu; mount -t tmpfs tmpfs /var/lib; mkdir -m 700 /var/lib/kvmlet; mount --bind "$SHARED/book" /var/lib/kvmlet
        guest() {{ $K run -d --warm --name "$1" "$SHARED/root.erofs" /test {PROGRAM} >/dev/null; }}
        {text}"#
    );
    let script = Script::new(&text, directory, 2).env("SHARED", shared());
    script.env("T", std::env::current_exe().unwrap()).run()
}
