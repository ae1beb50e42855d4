//! What a service is told beside its machine: flags of docker's that travel to the guest.

use crate::Failed;
use crate::signal::signal_number;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use kvmlet_manager::{Asked, Service};
use kvmlet_spec::ConsoleSize;
use kvmlet_sys::environment;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// How the service runs.
#[derive(Args)]
pub(super) struct Described {
    /// Set an environment variable; without a value, pass on the one set here.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable())]
    env: Vec<OsString>,
    /// Directory in which the service starts.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Whom the service runs as, by names or numbers of the image [default: whom the image says, or root].
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// One more group of the service's user; can be given again.
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Host name of the guest [default: the beginning of the id].
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Which signal asks the service to end [default: TERM].
    #[arg(long, value_name = "SIGNAL", value_parser = signal_number)]
    stop_signal: Option<u8>,
    /// Seconds that the service may take to end when it is stopped [default: 10].
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// The service has a terminal: this one, unless it is detached.
    #[arg(short, long)]
    tty: bool,
    /// Standard input goes to the service.
    #[arg(short, long)]
    interactive: bool,
}

impl Described {
    /// What the guest of a new instance is told.
    pub fn service(&self, asked: &Asked) -> Result<Service, Failed> {
        let mut service = Service {
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            groups: self.group_add.clone(),
            hostname: Some((self.hostname.clone()).unwrap_or_else(|| asked.id.short().into())),
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            terminal: self.tty,
            input: self.interactive,
            ..Service::default()
        };
        for variable in &self.env {
            let Some((name, value)) = variable_of(variable) else {
                continue;
            };
            let (name, value) = (name.into(), value.into());
            service.env.retain(|(other, _)| *other != name);
            service.env.push((name, value));
        }
        // What the guest would refuse is refused before there is one.
        let size = ConsoleSize {
            columns: 80,
            rows: 24,
        };
        let described = service.describe(&asked.command, size).encode();
        described.map_err(|error| Failed::in_vain("the service cannot be described", error))?;
        Ok(service)
    }
}

/// How a variable is read, for `run` and `exec`.
pub(in super::super) fn variable() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|text| match text.as_bytes() {
        [] | [b'=', ..] => Err("a variable has a name: NAME=VALUE"),
        _ => Ok(text),
    })
}

/// Name and value that are given to a service; none if only a name is, which has no value here, as docker has it.
pub(in super::super) fn variable_of(written: &OsString) -> Option<(Vec<u8>, Vec<u8>)> {
    let bytes = written.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => Some((bytes[..at].to_vec(), bytes[at + 1..].to_vec())),
        None => {
            let value = environment::data(written)?.into_vec();
            Some((bytes.to_vec(), value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use kvmlet_manager::InstanceId;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        described: Described,
    }

    fn service(words: &[OsString]) -> Result<Service, String> {
        let words = [OsString::from("run")]
            .into_iter()
            .chain(words.iter().cloned());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let asked = Asked::new(InstanceId::random().unwrap(), "image");
        line.described
            .service(&asked)
            .map_err(|failed| failed.to_string())
    }

    #[test]
    fn variables_are_any_bytes_and_the_last_of_a_name_counts() {
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let big = format!("-eBIG={}", "x".repeat(100_000));
        let words = [&b"-eA=1"[..], b"-eB=a\n\xff=", b"-eA=2", big.as_bytes()].map(bytes);
        let env = service(&words).unwrap().env;
        let names: Vec<_> = env.iter().map(|(name, _)| name.as_bytes()).collect();
        assert_eq!(names, [b"B".as_slice(), b"A", b"BIG"]);
        assert_eq!(env[0].1.as_bytes(), b"a\n\xff=");
        assert_eq!(env[1].1.as_bytes(), b"2");
    }

    #[test]
    fn what_a_guest_would_refuse_is_refused_here() {
        let word = |text: String| [OsString::from(text)];
        let error = service(&word(format!("-eA={}", "x".repeat(140_000)))).unwrap_err();
        assert!(
            error.contains("variable 1 is longer than 131071 bytes"),
            "{error}"
        );
        let error = service(&word("--env==x".into())).unwrap_err();
        assert!(
            error.contains("--env <NAME[=VALUE]>") && error.contains("has a name"),
            "{error}"
        );
        let error = service(&word("--stop-signal=NONE".into())).unwrap_err();
        assert!(error.contains("is not a signal"), "{error}");
        for (text, number) in [
            ("INT", 2),
            ("SIGQUIT", 3),
            ("sigterm", 15),
            ("9", 9),
            ("RTMIN+3", 37),
        ] {
            let service = service(&word(format!("--stop-signal={text}"))).unwrap();
            assert_eq!(service.stop_signal, Some(number), "{text}");
        }
    }
}
