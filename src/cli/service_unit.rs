//! `kvmlet service-unit`: what makes instances outlive a reboot of the host, without a daemon.

use super::boot::StartedBy;
use super::exit_code::ExitCode;
use super::instances::{book, look, look_again, signal};
use super::keep::{NotStarted, keeper};
use super::{Failed, Outcome, beside};
use clap::Args;
use kvmlet_manager::restart::is_due_after_boot;
use kvmlet_manager::starting::Starting;
use kvmlet_manager::supervision::HOST_ENDS;
use kvmlet_manager::{Book, Error, State, View};
use kvmlet_sys::environment;
use rustix::process::Signal;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// As many are being started at a time.
const AT_ONCE: usize = 8;

/// Print a systemd unit that starts this user's instances again when the host has started, as their --restart says.
///
/// `always` has an instance come back in any case, `unless-stopped` if nobody had stopped it. Root has it in
/// /etc/systemd/system/kvmlet.service, another user in ~/.config/systemd/user/kvmlet.service; the unit itself says how it is
/// enabled. It ends instances in order, too, when the host goes down.
#[derive(Args)]
pub(super) struct ServiceUnit {
    /// Start what is due instead, which the unit does when the host has started.
    #[arg(long)]
    up: bool,
    /// Stop what runs instead, to be started again, which the unit does when the host goes down.
    #[arg(long, conflicts_with = "up")]
    down: bool,
}

impl ServiceUnit {
    pub fn run(self) -> Outcome {
        match (self.up, self.down) {
            (true, _) => up(&book()?),
            (_, true) => down(&book()?),
            _ => {
                let kvmlet = beside::machine()?;
                let is_root = rustix::process::geteuid().is_root();
                let state = environment::variable("XDG_STATE_HOME").map(PathBuf::from);
                let state = state.filter(|path| path.is_absolute() && !is_root);
                kvmlet_command::print(unit(
                    Path::new(kvmlet.get_program()),
                    is_root,
                    state.as_deref(),
                )?)?;
                Ok(0)
            }
        }
    }
}

/// The text of the unit. What systemd would take for something else is refused.
fn unit(program: &Path, is_root: bool, state: Option<&Path>) -> Result<String, Failed> {
    let plain = |path: &Path| {
        let text = path.to_str().filter(|text| text.chars().all(is_plain));
        text.map(str::to_owned).ok_or_else(|| {
            let text = format!("`{}` cannot be named in a unit of systemd", path.display());
            Failed::new(text)
                .help("have it at a path of letters, digits, spaces and the signs /._+:@,=~-")
        })
    };
    let program = plain(program)?;
    let environment = match state {
        Some(state) => format!("Environment=\"XDG_STATE_HOME={}\"\n", plain(state)?),
        None => String::new(),
    };
    let (file, enable, network, target) = match is_root {
        true => (
            "/etc/systemd/system/kvmlet.service",
            "systemctl enable --now kvmlet",
            "Wants=network-online.target\nAfter=network-online.target\n",
            "multi-user.target",
        ),
        false => (
            "~/.config/systemd/user/kvmlet.service",
            "systemctl --user enable --now kvmlet, and loginctl enable-linger, without which it waits for a login",
            "",
            "default.target",
        ),
    };
    Ok(format!(
        "# Made by `kvmlet service-unit`, for {file}.\n\
         # To enable it: {enable}\n\
         [Unit]\n\
         Description=kvmlet's instances\n\
         {network}\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         {environment}\
         # An instance that cannot be started is no reason to end the others.\n\
         ExecStart=-\"{program}\" service-unit --up\n\
         ExecStop=-\"{program}\" service-unit --down\n\
         # Each VM's supervisor ends it, in the time that it has.\n\
         KillMode=process\n\
         TimeoutStopSec=5min\n\
         # VMs with shares have cgroups in here. One that is killed for its memory is killed alone.\n\
         Delegate=yes\n\
         OOMPolicy=continue\n\
         TasksMax=infinity\n\
         \n\
         [Install]\n\
         WantedBy={target}\n"
    ))
}

/// What means nothing to systemd within quotes, and to nobody else.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || " /._+:@,=~-".contains(c)
}

/// Starts what is due, some at a time, those first that were made first.
fn up(book: &Book) -> Outcome {
    let listing = book.list()?;
    let mut due: VecDeque<View> = listing.instances.into_iter().filter(is_due).collect();
    let mut starting: VecDeque<(String, Starting)> = VecDeque::new();
    let mut exit = 0;
    let mut fail = |failed: Failed| {
        failed.print();
        exit = ExitCode::NotDone.number();
    };
    loop {
        while starting.len() < AT_ONCE
            && let Some(view) = due.pop_back()
        {
            match begin(book, &view) {
                Ok(None) => {}
                Ok(Some(one)) => starting.push_back((view.called().to_owned(), one)),
                Err(failed) => fail(failed),
            }
        }
        let Some((called, one)) = starting.pop_front() else {
            return Ok(exit);
        };
        match one.wait() {
            // The others are started, whoever reads that.
            Ok(_) => kvmlet_command::print_name(&called, "instance runs:"),
            Err(error) => fail(NotStarted::from(error).failed),
        }
    }
}

/// Starts one, unless somebody else does that, or removes it.
fn begin(book: &Book, view: &View) -> Result<Option<Starting>, Failed> {
    let found = book.find(view.id.as_str());
    let turn = found.and_then(|instance| Ok(instance.try_turn()?.map(|turn| (instance, turn))));
    let (instance, turn) = match turn {
        Ok(Some(turn)) => turn,
        Ok(None) | Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match is_due(&look_again(book, &instance)?) {
        true => {
            let starting = Starting::begin(keeper(StartedBy::Again)?, &view.id, turn);
            Ok(Some(starting.map_err(NotStarted::from)?))
        }
        false => Ok(None),
    }
}

/// Is it to be started with its host?
fn is_due(view: &View) -> bool {
    let has_ended = matches!(view.state, State::Exited | State::Dead);
    has_ended && is_due_after_boot(view.asked.restart, view.record.stopped)
}

/// Stops all that runs, all at once, and waits for the end of each.
fn down(book: &Book) -> Outcome {
    let ends = Signal::from_named_raw(HOST_ENDS).unwrap_or(Signal::TERM);
    let mut told = Vec::new();
    let mut exit = 0;
    for view in book.list()?.instances {
        let told_of = look(book, view.id.as_str()).and_then(|(instance, view)| {
            let runs = signal(&instance, &view, ends)?;
            Ok(runs.then_some((instance, view)))
        });
        match told_of {
            Ok(one) => told.extend(one),
            Err(failed) => {
                failed.print();
                exit = ExitCode::NotDone.number();
            }
        }
    }
    for (instance, view) in told {
        instance.wait_for_run()?;
        kvmlet_command::print_name(&view.called(), "instance has ended:");
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// systemd's own opinion, where there is one.
    #[test]
    fn systemd_finds_nothing_wrong_with_it() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("a program");
        std::fs::copy("/bin/true", &program).unwrap();
        for (is_root, scope) in [(true, "--system"), (false, "--user")] {
            let text = unit(&program, is_root, Some(Path::new("/srv/my state"))).unwrap();
            let path = place.path().join("kvmlet.service");
            std::fs::write(&path, &text).unwrap();
            let verified = Command::new("systemd-analyze")
                .args(["verify", "--man=no", scope])
                .arg(&path)
                .env("XDG_RUNTIME_DIR", place.path())
                .output();
            match verified {
                Err(error) => println!("SKIPPED: no systemd-analyze: {error}"),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    let about_it = said.lines().filter(|line| line.contains("kvmlet"));
                    assert_eq!(about_it.collect::<Vec<_>>(), [""; 0], "{said}\n{text}");
                }
            }
        }
    }

    #[test]
    fn each_user_has_a_unit_of_their_own() {
        let program = Path::new("/usr/bin/kvmlet");
        let of_root = unit(program, true, None).unwrap();
        let of_user = unit(program, false, Some(Path::new("/srv/state"))).unwrap();
        for (text, has, has_not) in [
            (&of_root, "WantedBy=multi-user.target\n", "Environment="),
            (&of_user, "WantedBy=default.target\n", "network-online"),
            (
                &of_user,
                "Environment=\"XDG_STATE_HOME=/srv/state\"\n",
                "multi-user",
            ),
        ] {
            assert!(text.contains(has) && !text.contains(has_not), "{text}");
            let start = "ExecStart=-\"/usr/bin/kvmlet\" service-unit --up\n";
            assert!(text.contains(start), "{text}");
        }
    }

    #[test]
    fn what_systemd_would_expand_is_refused() {
        for odd in [
            "/opt/100%/kvmlet",
            "/opt/$HOME/kvmlet",
            "/opt/a\"b",
            "/opt/a\nb",
            "/opt/caf\u{e9}",
            "/opt/a\\b",
        ] {
            let failed = unit(Path::new(odd), true, None).unwrap_err().to_string();
            assert!(failed.contains("cannot be named in a unit"), "{failed}");
            assert!(unit(Path::new("/bin/kvmlet"), false, Some(Path::new(odd))).is_err());
        }
    }
}
