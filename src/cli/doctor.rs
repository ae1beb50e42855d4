//! `kvmlet doctor`: what this host can do, and what to do where it cannot.

use super::{Failed, Outcome, defaults};
use crate::config::{Memory, thousandths};
use crate::host::cgroup::{Controller, Hierarchies};
use crate::host::facts::{self, ReservedPages};
use crate::host::jail::{self, Missing, Wall};
use crate::host::kvm::{self, Execution};
use crate::host::ledger::{Host, Ledger};
use crate::host::{runtime_directory, seccomp, total_memory_bytes};
use clap::{Args, ValueEnum};
use kvm_ioctls::{Cap, Kvm};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

/// Tell what this host offers for microVMs, and what to do about what it lacks.
///
/// Ends with 0 if microVMs can run here, with 1 if not.
#[derive(Args)]
pub(super) struct Doctor {
    /// How to print the findings.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A line each, for people.
    #[default]
    Text,
    /// One object with a list, for programs.
    Json,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// Something works less well, or not for everyone.
    Warning,
    /// No microVM can run.
    Error,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    level: Level,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

fn ok(name: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        name,
        level: Level::Ok,
        text: text.into(),
        help: None,
    }
}

fn warning(name: &'static str, text: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding {
        name,
        level: Level::Warning,
        text: text.into(),
        help: Some(help.into()),
    }
}

fn error(name: &'static str, text: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding {
        name,
        level: Level::Error,
        text: text.into(),
        help: Some(help.into()),
    }
}

impl Doctor {
    pub fn run(self) -> Outcome {
        let findings = examine();
        let text = match self.format {
            Format::Text => text(&findings, io::stdout().is_terminal()),
            Format::Json => {
                let report = serde_json::json!({ "findings": findings });
                serde_json::to_string_pretty(&report).map_err(Failed::new)? + "\n"
            }
        };
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failed::new(error)),
            _ => Ok(u8::from(
                findings.iter().any(|finding| finding.level == Level::Error),
            )),
        }
    }
}

fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    match kvm::open() {
        Ok(kvm) => {
            findings.push(ok("kvm", format!("{} can be used", kvm::DEVICE)));
            findings.push(execution());
            findings.extend(capabilities(&kvm));
        }
        Err(cause) => findings.push(error("kvm", cause.to_string(), cause.help())),
    }
    findings.push(guest_file("kernel", defaults::kernel(), "kernels/build"));
    findings.push(guest_file(
        "initrd",
        defaults::initrd("minimal"),
        "images/build minimal",
    ));
    findings.push(ok(
        "memory",
        format!(
            "{} in all",
            Memory::from_bytes(total_memory_bytes() >> 20 << 20)
        ),
    ));
    findings.push(huge_pages());
    findings.extend(quotas());
    findings.extend(jail());
    findings.push(promises());
    findings.push(tap());
    findings
}

fn execution() -> Finding {
    match Execution::detect() {
        Ok(Execution::Hardware) => ok(
            "execution",
            "guest kernels run on the processor (VT-x or SVM)",
        ),
        Ok(Execution::Interpreted) => warning(
            "execution",
            "guest kernel code is interpreted: right, but about a thousand times slower than on hardware",
            "boot times here say nothing about other hosts; a kernel of the `software-kvm` flavour is needed",
        ),
        Err(cause) => warning(
            "execution",
            format!("cannot read /proc/cpuinfo: {cause}"),
            "mount /proc",
        ),
    }
}

fn capabilities(kvm: &Kvm) -> Vec<Finding> {
    const NEEDED: [(&str, Cap); 5] = [
        ("split irqchip", Cap::SplitIrqchip),
        ("irqfd", Cap::Irqfd),
        ("ioeventfd", Cap::Ioeventfd),
        ("immediate exit", Cap::ImmediateExit),
        ("user memory", Cap::UserMemory),
    ];
    const WELCOME: [(&str, Cap); 2] = [
        ("TSC deadline timer", Cap::TscDeadlineTimer),
        ("signal MSI", Cap::SignalMsi),
    ];
    let missing = |list: &[(&'static str, Cap)]| {
        let names = list
            .iter()
            .filter(|(_, cap)| !kvm.check_extension(*cap))
            .map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    let mut findings = vec![match missing(&NEEDED).as_str() {
        "" => ok("capabilities", "KVM has all that is needed"),
        names => error(
            "capabilities",
            format!("KVM lacks {names}"),
            "use a host kernel from 4.12 on",
        ),
    }];
    match missing(&WELCOME).as_str() {
        "" => {}
        names => findings.push(warning(
            "capabilities",
            format!("KVM lacks {names}"),
            "guests fall back to slower timers or interrupts",
        )),
    }
    findings.push(ok(
        "vcpus",
        format!("up to {} in a VM", kvm.get_max_vcpus()),
    ));
    findings
}

fn guest_file(name: &'static str, path: Option<PathBuf>, script: &str) -> Finding {
    match path {
        Some(path) if path.exists() => ok(name, path.display().to_string()),
        Some(path) => warning(
            name,
            format!("none at {}", path.display()),
            format!("run `{script}` once, for `kvmlet boot` to work without flags"),
        ),
        None => warning(name, "no cache directory", "set HOME or XDG_CACHE_HOME"),
    }
}

fn huge_pages() -> Finding {
    let ReservedPages { total, free } = ReservedPages::read();
    let transparent = facts::transparent_huge_pages().unwrap_or_else(|| "not there".into());
    let text = format!("reserved: {free} of {total} free (2 MiB each); transparent: {transparent}");
    if total == 0 && transparent == "never" {
        let help = "reserve some with `sysctl vm.nr_hugepages=N`, or allow transparent ones: \
                    `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`";
        return warning("huge pages", text, help);
    }
    ok("huge pages", text)
}

/// What VMs can be held to.
fn quotas() -> Vec<Finding> {
    let hierarchies = match Hierarchies::find() {
        Ok(found) => found,
        Err(cause) => return vec![warning("quotas", cause.to_string(), "mount /proc")],
    };
    let finding = |controller: Controller| {
        let name = match controller {
            Controller::Cpu => "CPU quota",
            Controller::Cpuset => "CPU set",
            Controller::Memory => "memory limit",
        };
        match hierarchies.offer(controller) {
            Ok(place) => ok(name, place),
            Err(cause) => warning(name, cause.to_string(), cause.help().unwrap_or_default()),
        }
    };
    Controller::ALL.into_iter().map(finding).collect()
}

/// What keeps a VM's process from the rest of the host.
fn jail() -> Vec<Finding> {
    let missing = match jail::survey() {
        Ok(missing) => missing,
        Err(cause) => {
            let text = format!("no process can be confined: {cause}");
            return vec![warning("jail", text, "see `ulimit -u` and `dmesg`")];
        }
    };
    let seccomp = seccomp::check_support().err().map(|source| Missing {
        wall: Wall::Seccomp,
        source,
    });
    let mut findings: Vec<Finding> = (missing.iter().chain(&seccomp))
        .map(|missing| {
            let text = format!("{missing}: {}", missing.source);
            warning("jail", text, missing.help())
        })
        .collect();
    if findings.is_empty() {
        let text = "VMs are confined by namespaces, an empty root, a user of their own without capabilities, \
                    seccomp and Landlock";
        findings.push(ok("jail", text));
    }
    findings
}

/// What is left for new VMs.
fn promises() -> Finding {
    let examine = || {
        let host = Host::here()?;
        let ledger = Ledger::lock(&runtime_directory())?;
        let promises = ledger.promises();
        let milli = promises.iter().map(|p| u64::from(p.cpu_milli)).sum();
        let bytes: u64 = promises.iter().map(|p| p.memory_bytes).sum();
        Ok(format!(
            "{} of {} CPUs and {} of {} MiB are promised to running VMs ({})",
            thousandths(milli),
            host.cpus.len(),
            bytes.div_ceil(1 << 20),
            host.memory_bytes >> 20,
            promises.len()
        ))
    };
    match examine() {
        Ok(text) => ok("promises", text),
        Err::<_, crate::host::ledger::Error>(cause) => {
            let help = cause.help();
            let help = help.unwrap_or_else(|| "make the directory usable".into());
            warning("promises", cause.to_string(), help)
        }
    }
}

fn tap() -> Finding {
    match facts::open_tun() {
        Err(cause) => warning(
            "tap",
            format!("/dev/net/tun cannot be opened: {cause}"),
            "load the module (`modprobe tun`) or ask for access to the device",
        ),
        Ok(()) if facts::has_capability(facts::CAP_NET_ADMIN) => ok("tap", "taps can be made"),
        Ok(()) => warning(
            "tap",
            "this user may use taps that exist, and make none (no CAP_NET_ADMIN)",
            "let root make one for you: `ip tuntap add NAME mode tap user $USER`",
        ),
    }
}

fn text(findings: &[Finding], color: bool) -> String {
    let mut text = String::new();
    for Finding {
        name,
        level,
        text: what,
        help,
    } in findings
    {
        let (mark, code) = match level {
            Level::Ok => ("ok     ", "32"),
            Level::Warning => ("warning", "33"),
            Level::Error => ("error  ", "31"),
        };
        let mark = if color {
            format!("\x1b[{code}m{mark}\x1b[0m")
        } else {
            mark.into()
        };
        text += &format!("{mark}  {name:<12}  {what}\n");
        if let Some(help) = help {
            text += &format!("{:23}help: {help}\n", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_print_with_their_help_below() {
        let findings = [ok("kvm", "fine"), error("tap", "gone", "fetch it")];
        assert_eq!(
            text(&findings, false),
            "ok       kvm           fine\nerror    tap           gone\n                       help: fetch it\n"
        );
        assert!(text(&findings, true).contains("\x1b[31merror"));
    }

    #[test]
    fn whatever_is_not_ok_has_a_way_out() {
        for finding in examine() {
            assert_eq!(
                finding.level == Level::Ok,
                finding.help.is_none(),
                "{finding:?}"
            );
        }
    }
}
