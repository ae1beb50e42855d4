//! `kvmlet run` and `exec` over the agent of a Linux guest. The service, and what is executed beside it, is this test.

use crate::harness::Test;
use crate::script::{Script, put_root};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[(
    "an_instance_has_its_streams_and_commands_over_its_agent",
    run,
)];

/// The first argument by which this executable is the program in the guest.
const PROGRAM: &str = "--in-an-instance";

static TOLD: AtomicBool = AtomicBool::new(false);

/// As a program: `--in-an-instance serve` tells about itself and goes on until it is sent SIGUSR1; `echo` copies its input and ends
/// with 3; `size` tells how big its terminal is. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != PROGRAM {
        return None;
    }
    Some(match arguments.next()?.as_str() {
        "serve" => serve(&arguments.collect::<Vec<_>>()),
        "echo" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).unwrap();
            std::io::stdout().write_all(&text).unwrap();
            eprintln!("{} bytes", text.len());
            ExitCode::from(3)
        }
        _ => {
            // SAFETY: all-zero is a valid value of the structure, and the call only fills it.
            let size = unsafe {
                let mut size: libc::winsize = std::mem::zeroed();
                assert_eq!(libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size), 0);
                size
            };
            println!("size={}x{}", size.ws_col, size.ws_row);
            ExitCode::SUCCESS
        }
    })
}

extern "C" fn on_signal(_: i32) {
    TOLD.store(true, Ordering::Relaxed);
}

fn serve(arguments: &[String]) -> ExitCode {
    let value = std::env::var("BIG").unwrap_or_default();
    // SAFETY: neither has a condition, and the handler stores a number.
    let ids = unsafe {
        let handler: extern "C" fn(i32) = on_signal;
        libc::signal(libc::SIGUSR1, handler as usize);
        (libc::getuid(), libc::getgid())
    };
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    eprintln!("to standard error");
    println!(
        "{arguments:?} as {ids:?} on {} with {} bytes",
        name.trim(),
        value.len()
    );
    while !TOLD.load(Ordering::Relaxed) {
        // It comes at any time, and ends the pause.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    println!("stopped");
    ExitCode::from(5)
}

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    put_root(place.path());
    let script = r#"
        set -eu; mount -t tmpfs tmpfs /var/lib; trap '$K rm -f web >/dev/null' EXIT
        $K run -d --name web -e BIG=$(printf '%0100000d' 1) -u 7:8 --hostname tenant --stop-signal USR1 --stop-timeout 120 \
            root /test --in-an-instance serve 'a b' ''
        until $K logs web 2>/dev/null | grep bytes; do sleep 0.2; done
        $K logs web 2>&1 >/dev/null
        code=0; printf 'a\nb' | $K exec -i web /test --in-an-instance echo >out 2>err || code=$?
        echo $code; cat out err
        script -qec "stty cols 100 rows 30; $K exec -it web /test --in-an-instance size" /dev/null </dev/null | tr -d '\r' | grep -o 'size=.*'
        code=0; $K exec web /nothing 2>err || code=$?
        echo $code; grep -o 'run "/nothing": no such file' err
        mkdir tree; printf '%0300000d' 7 >tree/big; ln -s big tree/link; chmod 640 tree/big
        $K cp tree web:/tmp/in; $K cp web:/tmp/in out-of-it; $K cp web:/tmp/in/. new/; $K cp tree/. web:/tmp
        $K cp web:/tmp/big big; cmp big tree/big
        for copy in out-of-it new; do diff -r tree $copy; echo $(readlink $copy/link) $(stat -c %a $copy/big); done
        mkdir untar; $K cp web:/tmp/in - | tar -x -C untar; diff -r tree untar/in
        tar -c --transform 's,^tree,tarred,' tree | $K cp - web:/tmp; $K cp web:/tmp/tarred again; diff -r tree again; stat -c %a again/big
        ! $K cp 'web:/nothing' - >none 2>err; stat -c %s none; grep -o 'no such file' err
        for wrong in 'tree/big web:/no/where' 'web:/nothing here' 'a b' 'web:/a web:/b'; do
            ! $K cp $wrong 2>err; grep -o 'no such file\|neither path\|both paths' err
        done
        $K top --format '{{.PID}} {{.User}} {{.Command}}' web | grep -c '^1 0 /init'
        $K top --format '{{.User}} {{.Command}}' web | grep in-an; $K top web | head -n 1 | tr -s ' '
        rm tree/big; $K cp tree web:/new; $K diff web
        ! $K commit web 2>err; grep -o 'runs no image of the store' err
        $K stop web; $K wait web; ! $K diff web 2>err; grep -o 'it does not run' err
        ! $K cp web:/tmp/big big 2>err; ! $K top web 2>>err; grep -c 'it does not run' err
        $K logs web 2>/dev/null | tail -n 1; $K logs --console web 2>&1 | grep -o 'sent SIGUSR1'
        "#;
    let script = Script::new(script, place.path(), 2);
    let (out, err) = script.run();
    let (id, rest) = out.split_once('\n').unwrap();
    assert_eq!(id.len(), 64, "{out}");
    let expected = "[\"a b\", \"\"] as (7, 8) on tenant with 100000 bytes\nto standard error\n3\na\nb3 bytes\n\
                    size=100x30\n127\nrun \"/nothing\": no such file\nbig 640\nbig 640\n640\n\
                    0\nno such file\n\
                    no such file\nno such file\nneither path\nboth paths\n1\n7 /test --in-an-instance serve a b\n\
                    PID PPID USER TIME RSS COMMAND\nA /new\nA /new/link\nruns no image of the store\n\
                    web\n5\nit does not run\n2\nstopped\nsent SIGUSR1\n";
    assert_eq!(rest, expected, "{err}");
}
