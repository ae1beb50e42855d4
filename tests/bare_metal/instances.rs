//! Instances: services with a name, in the background, of a book of their own.

use crate::harness::{Test, program, ready_guest};
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("an_instance_is_run_followed_stopped_and_removed", life),
    (
        "an_instance_in_the_foreground_ends_with_its_code",
        foreground,
    ),
    ("an_instance_is_started_again_as_it_was_asked", restarts),
    ("a_start_that_fails_is_told", failure),
];

/// Runs a script in which `K` is kvmlet, and whose book is in a file system that goes with it. What it prints is compared.
fn script(text: &str, expected: &str) {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("root")).unwrap();
    std::fs::write(place.path().join("root/file"), "text").unwrap();
    let prelude = "set -eu; mount -t tmpfs tmpfs /var/lib; trap 'ids=$($K ps -aq); [ -z \"$ids\" ] || $K rm -f $ids >/dev/null' EXIT\n\
                   wait_for() { for _ in $(seq 200); do [ \"$($K inspect --format '{{.State.Status}}' $1)\" != $2 ] || return 0; sleep 0.05; done; echo \"$1 is never $2\"; exit 1; }\n";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-c"])
        .arg(format!("{prelude}{text}"))
        .current_dir(place.path())
        .env("K", env!("CARGO_BIN_EXE_kvmlet"))
        .env("STAY", ready_guest("ready_stay"))
        .env("PANIC", program("panic"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out, expected, "{err}");
}

fn life() {
    script(
        r#"
        id=$($K run -d --name web --label tier=front --kernel "$STAY" root)
        $K ps --format '{{.Names}} {{.State}} {{.Image}} {{.Labels}}'
        until $K logs web | grep ready; do sleep 0.05; done
        [ "$($K inspect --format '{{.State.Status}} {{.Id}}' ${id::7})" = "running $id" ]
        ! $K run -d --name web --kernel "$STAY" root 2>err && grep -o 'the name `web` is taken' err
        $K rename web front
        ! $K rm front 2>err && grep -o 'is running' err
        $K stop front
        $K ps -a --filter label=tier --format '{{.Names}} {{.State}}'
        $K wait front
        $K start front
        $K ps --format '{{.Names}} {{.State}}'
        # A supervisor that is killed takes its VM along, and that is told.
        kill -9 "$($K inspect --format '{{.State.Pid}}' front)"
        wait_for front dead
        $K rm front
        $K ps -aq
        ls /var/lib/kvmlet/instances /var/lib/kvmlet/names /var/lib/kvmlet/pending | grep -v : | tr -d '\n'
        $K events --since '#0' --until 0s | sed 's/.*"event":"\([a-z]*\)".*/\1/' | tr '\n' ' '
        "#,
        "web running root tier=front\nready\nthe name `web` is taken\nis running\nfront\nfront exited\n143\nfront\n\
         front running\nfront\ncreate start rename stop die start destroy ",
    );
}

fn foreground() {
    script(
        r#"
        code=0; $K run --rm --kernel "$PANIC" root >out 2>err || code=$?
        echo $code; $K ps -aq
        $K run --name web --kernel "$STAY" root >out & run=$!
        until grep ready out; do sleep 0.05; done
        kill $run; code=0; wait $run || code=$?
        echo $code; $K ps -a --format '{{.Names}} {{.State}}'
        "#,
        "134\nready\n143\nweb exited\n",
    );
}

fn restarts() {
    script(
        r#"
        $K run -d --name again --restart on-failure:1 --kernel "$PANIC" root >/dev/null
        $K wait again
        $K inspect --format '{{.RestartCount}} {{.State.Status}} {{.RestartPolicy}}' again
        $K prune --force >/dev/null
        $K ps -aq
        "#,
        "134\n1 exited on-failure:1\n",
    );
}

fn failure() {
    script(
        r#"
        echo no >kernel
        ! $K run -d --name web --kernel kernel root 2>err && grep -c '^error: ' err
        $K ps -a --format '{{.Names}} {{.State}}'
        $K rm web
        ! $K run -d --name web --rm --kernel kernel root 2>/dev/null
        ! $K run -d root/none 2>err && grep -o 'as a root: no such file' err
        ! $K run -d --name 'a b' root 2>err && grep -o 'is not a name of an instance' err
        $K ps -aq
        "#,
        "1\nweb exited\nweb\nas a root: no such file\nis not a name of an instance\n",
    );
}
