//! `kvmlet doctor`: what this host can do, and what to do where it cannot.

mod kernel;
mod machine;
mod network;
mod shares;
mod walls;

use super::{ExitCode, Outcome};
use clap::{Args, ValueEnum};
use kvmlet_command::plain::pretty_json;
use kvmlet_command::print;
use kvmlet_host::state::built;
use kvmlet_spec::{Advice, Dialect};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::Path;

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

fn warning(name: &'static str, text: impl Into<String>, help: impl Into<Advice>) -> Finding {
    Finding {
        name,
        level: Level::Warning,
        text: text.into(),
        help: Some(help.into().in_words_of(Dialect::Flags)),
    }
}

fn error(name: &'static str, text: impl Into<String>, help: impl Into<Advice>) -> Finding {
    Finding {
        name,
        level: Level::Error,
        text: text.into(),
        help: Some(help.into().in_words_of(Dialect::Flags)),
    }
}

impl Doctor {
    #[inline(never)] // see `kvmlet_cli::run`
    pub fn run(self) -> Outcome {
        let findings = examine();
        let text = match self.format {
            Format::Text => text(&findings, io::stdout().is_terminal()),
            Format::Json => {
                let report = serde_json::json!({ "findings": findings });
                pretty_json(&report)? + "\n"
            }
        };
        print(text)?;
        let unfit = findings.iter().any(|finding| finding.level == Level::Error);
        let code = if unfit {
            ExitCode::Unfit
        } else {
            ExitCode::Done
        };
        Ok(code.number())
    }
}

fn examine() -> Vec<Finding> {
    let mut findings = machine::kvm();
    let files = [
        (
            "kernel",
            built::kernel(),
            "kernels/build",
            "boot` and `kvmlet run",
        ),
        (
            "initrd",
            built::initrd("minimal"),
            "images/build minimal",
            "boot",
        ),
        ("init", built::initrd("init"), "images/build init", "run"),
    ];
    findings.extend(files.map(|(name, path, script, verb)| guest_file(name, &path, script, verb)));
    findings.extend([kernel::version(), kernel::clock()]);
    findings.extend(machine::memory());
    findings.extend(shares::quotas());
    findings.extend(walls::jail());
    findings.push(shares::promises());
    findings.extend([network::tap(), network::backend()]);
    findings.extend(network::packets());
    findings.push(network::names());
    findings
}

fn guest_file(name: &'static str, path: &Path, script: &str, verb: &str) -> Finding {
    match path.exists() {
        true => ok(name, path.display().to_string()),
        false => warning(
            name,
            format!("none at {}", path.display()),
            format!("run `{script}` once, which `kvmlet {verb}` takes"),
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
