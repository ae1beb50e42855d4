//! `kvmlet port`.

use super::instances::{book, look};
use super::ports::{Ports, ends, guest};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_spec::PortMapping;
use std::num::NonZeroU16;
use std::time::Duration;

/// How long a supervisor may take to tell.
const PATIENCE: Duration = Duration::from_secs(20);

/// List which ports of the host lead to an instance.
#[derive(Args)]
pub(super) struct Port {
    /// Its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// Only those that lead to this port of the guest: PORT, PORT/tcp or PORT/udp.
    #[arg(value_name = "PORT", value_parser = port_of_guest)]
    port: Option<String>,
}

impl Port {
    pub fn run(self) -> Outcome {
        let book = book()?;
        let (instance, view) = look(&book, &self.instance)?;
        let published = match view.sleeps() {
            true => Ports::of(&book).held(&view).unwrap_or_default(),
            false => instance.control(view.called())?.published(PATIENCE)?,
        };
        let published: Vec<PortMapping> = published
            .iter()
            .filter_map(|port| port.parse().ok())
            .collect();
        let text = match &self.port {
            None => {
                let lines = published.iter().flat_map(|port| {
                    let guest = guest(port);
                    ends(port).map(move |end| format!("{guest} -> {end}\n"))
                });
                lines.collect::<String>()
            }
            Some(wanted) => {
                let ports = published.iter().filter(|port| guest(port) == *wanted);
                let lines: String = ports.flat_map(ends).map(|end| format!("{end}\n")).collect();
                if lines.is_empty() {
                    let called = view.called();
                    return Err(Failed::new(format!(
                        "no port of the host leads to {wanted} of `{called}`"
                    )));
                }
                lines
            }
        };
        kvmlet_command::print(text)?;
        Ok(0)
    }
}

/// A port as it is written to be looked for, in the form that [`guest`] has.
fn port_of_guest(text: &str) -> Result<String, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (number, protocol) = lower.split_once('/').unwrap_or((&lower, "tcp"));
    match number.parse::<NonZeroU16>() {
        Ok(number) if matches!(protocol, "tcp" | "udp") => Ok(format!("{number}/{protocol}")),
        _ => Err("a port is a number from 1 to 65535, with /tcp or /udp behind it if need be"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_any_case_and_are_numbers() {
        for (text, expected) in [
            ("80", "80/tcp"),
            ("53/UDP", "53/udp"),
            ("080/tcp", "80/tcp"),
        ] {
            assert_eq!(port_of_guest(text).unwrap(), expected);
        }
        for text in ["", "abc", "0", "65536", "80/sctp", "80/", "/tcp", "-1"] {
            assert!(port_of_guest(text).is_err(), "{text}");
        }
    }
}
