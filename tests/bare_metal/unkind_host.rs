//! Instances on a host that is not as kind as most: readers are slow, umasks odd, directories open to others.

use crate::harness::Test;
use crate::instances::script;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::ioctl_fionbio;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("what_is_printed_waits_for_a_slow_reader", slow),
    ("the_book_stays_where_it_is", place),
];

fn slow() {
    script(
        r#"
        line=err=$(printf '%03000d' 1); $K run --name web --kernel "$AGENT" root $(for i in $(seq 40); do echo $line; done) exit=0 2>/dev/null
        $K logs web 2>&1 >/dev/null | { sleep 1.5; grep -c '^0*1$'; }
        "#,
        "40\n",
    );
    // What others share may not wait.
    let (mut reader, writer) = std::io::pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let kvmlet = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        command.args(["completions", "bash"]);
        command
    };
    let mut child = kvmlet().stdout(writer).spawn().unwrap();
    assert!(
        wait::one(
            Slot::readable(reader.as_fd()),
            Until::after(Duration::from_secs(60))
        )
        .unwrap()
    );
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let whole = kvmlet().stderr(Stdio::inherit()).output().unwrap().stdout;
    assert!(
        whole.len() > 8192 && said == whole,
        "{} of {}",
        said.len(),
        whole.len()
    );
}

fn place() {
    script(
        r#"
        ( umask 777; $K run -d --name web --kernel "$AGENT" root out=ready stay >/dev/null )
        $K stop web
        stat -c %a /var/lib/kvmlet/instances/*/{log,state,spec.json,lock} | tr '\n' ' '; echo
        chmod 775 /var/lib
        ! $K ps -a 2>err && grep -o 'cannot hold the book of instances' err
        chmod 755 /var/lib
        $K ps -a --format '{{.Names}}'
        "#,
        "web\n600 600 600 600 \ncannot hold the book of instances\nweb\n",
    );
}
