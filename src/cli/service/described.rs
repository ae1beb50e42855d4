//! What a service is told beside its machine: flags of docker's that travel to the guest.

use super::env_file;
use crate::Failed;
use crate::signal::signal_number;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use kvmlet_image::config::{Account, ImageConfig, User};
use kvmlet_manager::{Asked, Service, Text};
use kvmlet_spec::ConsoleSize;
use kvmlet_sys::environment;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// How the service runs.
#[derive(Args)]
pub(super) struct Described {
    /// Set an environment variable; without a value, pass on the one set here.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable())]
    env: Vec<OsString>,
    /// File of environment variables, a line each, which come before those of --env; can be given again.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Program to run instead of the image's own, with the words behind the image as its arguments.
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<OsString>,
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
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// An address by a name of its own, for the guest's /etc/hosts; can be given again.
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<String>,
    /// Which signal asks the service to end [default: the image's, or TERM].
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
    /// Has it variables of whoever runs it? A file may name some, and a word that is no other flag's value.
    pub fn takes_variables(&self, words: &[OsString]) -> bool {
        let said = |word: &OsString| {
            let word = word.as_bytes();
            let rest = word.strip_prefix(b"--env=");
            rest.or_else(|| word.strip_prefix(b"-e"))
                .is_some_and(|rest| !rest.is_empty() && !rest.contains(&b'='))
        };
        let is_flag = |word: &OsString| word == "-e" || word == "--env";
        let apart = words
            .windows(2)
            .any(|pair| is_flag(&pair[0]) && !pair[1].as_bytes().contains(&b'='));
        !self.env_file.is_empty() || (!self.env.is_empty() && (apart || words.iter().any(said)))
    }

    /// What runs: the image's entry point, or another, with the words behind the image or else the image's own. Nothing
    /// is what the guest's file of its service says.
    pub fn command(
        &self,
        image: Option<&ImageConfig>,
        words: Vec<OsString>,
    ) -> Result<Vec<Text>, Failed> {
        let text = |words: &[String]| words.iter().map(|word| Text::Utf8(word.clone())).collect();
        let mut command: Vec<Text> = match (&self.entrypoint, image) {
            (Some(program), _) if program.is_empty() => Vec::new(),
            (Some(program), _) => vec![program.clone().into_vec().into()],
            (None, Some(image)) => text(&image.entrypoint),
            (None, None) => Vec::new(),
        };
        match image.filter(|_| words.is_empty() && self.entrypoint.is_none()) {
            Some(image) => command.extend::<Vec<Text>>(text(&image.command)),
            None => command.extend(words.into_iter().map(|word| word.into_vec().into())),
        }
        match (command.is_empty(), image) {
            (true, Some(_)) => Err(Failed::new("the image does not say what it runs")
                .help("say it behind the image: `kvmlet run IMAGE COMMAND`")),
            _ => Ok(command),
        }
    }

    /// What the guest of a new instance is told.
    pub fn service(&self, asked: &Asked, image: Option<&ImageConfig>) -> Result<Service, Failed> {
        let of_image = image.map(|image| image.working_directory.clone());
        let stop_signal = image.and_then(|image| image.stop_signal.as_deref());
        let stop_signal = stop_signal.filter(|_| self.stop_signal.is_none());
        let stop_signal = stop_signal.map(signal_number).transpose();
        let stop_signal = stop_signal.map_err(|error| {
            Failed::in_vain("cannot stop what this image runs as it says", error)
        })?;
        let mut service = Service {
            make_workdir: self.workdir.is_none() && of_image.is_some(),
            workdir: self.workdir.clone().or(of_image),
            user: self
                .user
                .clone()
                .or_else(|| image.and_then(|image| user(&image.user))),
            hosts: self.add_host.clone(),
            groups: self.group_add.clone(),
            hostname: Some((self.hostname.clone()).unwrap_or_else(|| asked.id.short().into())),
            stop_signal: self.stop_signal.or(stop_signal),
            stop_timeout: self.stop_timeout,
            terminal: self.tty,
            input: self.interactive,
            ..Service::default()
        };
        let of_image = image.iter().flat_map(|image| &image.environment);
        let of_image =
            of_image.map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()));
        let mut variables: Vec<_> = of_image.collect();
        for file in &self.env_file {
            variables.extend(env_file::read(file)?.iter().filter_map(variable_of));
        }
        variables.extend(self.env.iter().filter_map(variable_of));
        for (name, value) in variables {
            let (name, value) = (Text::from(name), Text::from(value));
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

/// As it is written for the guest, whose own files have the names.
fn user(user: &User) -> Option<String> {
    let text = |account: &Account| match account {
        Account::Id(number) => number.to_string(),
        Account::Name(name) => name.clone(),
    };
    match (&user.user, &user.group) {
        (None, None) => None,
        (Some(user), None) => Some(text(user)),
        (Some(user), Some(group)) => Some(format!("{}:{}", text(user), text(group))),
        (None, Some(group)) => Some(format!("0:{}", text(group))),
    }
}

/// A line for /etc/hosts.
fn host(text: &str) -> Result<String, &'static str> {
    let expected = "a name and an address: db:10.0.0.5, or db=fd00::5";
    let (name, address) = text.split_once(['=', ':']).ok_or(expected)?;
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = match bare.unwrap_or(address) {
        "host-gateway" => return Err("this host has no name among its guests: say its address"),
        address => address.parse::<IpAddr>().map_err(|_| expected)?,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_name) {
        true => Ok(format!("{address}\t{name}")),
        false => Err(expected),
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
    #[command(disable_help_flag = true)]
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
            .service(&asked, None)
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

    fn image(config: &str) -> ImageConfig {
        let json = format!(
            r#"{{"architecture": "amd64", "os": "linux", "rootfs": {{"type": "layers", "diff_ids": []}}, "config": {config}}}"#
        );
        ImageConfig::parse(json.as_bytes()).unwrap()
    }

    fn line(words: &str) -> Described {
        let words = std::iter::once("run").chain(words.split_whitespace());
        Line::try_parse_from(words).unwrap().described
    }

    #[test]
    fn entry_points_commands_and_words_go_together_as_docker_has_it() {
        let both = image(r#"{"Entrypoint": ["/entry", "-x"], "Cmd": ["serve", "all"]}"#);
        let command_only = image(r#"{"Cmd": ["sh"]}"#);
        for (flags, words, image, expected) in [
            ("", "", &both, "/entry -x serve all"),
            ("", "a b", &both, "/entry -x a b"),
            ("--entrypoint /own", "", &both, "/own"),
            ("--entrypoint /own", "a", &both, "/own a"),
            ("--entrypoint=", "a", &both, "a"),
            ("", "", &command_only, "sh"),
            ("", "ls -l", &command_only, "ls -l"),
        ] {
            let words = words.split_whitespace().map(OsString::from).collect();
            let command = line(flags).command(Some(image), words).unwrap();
            let command: Vec<_> = command.iter().map(Text::to_string_lossy).collect();
            assert_eq!(command.join(" "), expected, "{flags}");
        }
        for (flags, image) in [("", &image("{}")), ("--entrypoint=", &both)] {
            let error = line(flags).command(Some(image), vec![]).unwrap_err();
            assert!(
                error.to_string().contains("does not say what it runs"),
                "{error}"
            );
        }
        // The guest's own file of its service says it.
        assert_eq!(line("").command(None, vec![]).unwrap(), []);
        let own = line("--entrypoint x")
            .command(None, vec!["y".into()])
            .unwrap();
        assert_eq!(own, ["x".into(), "y".into()]);
    }

    #[test]
    fn what_an_image_says_stands_unless_somebody_says_otherwise() {
        let image = image(
            r#"{"Env": ["PATH=/bin", "A=image", "B=image"], "WorkingDir": "srv/x", "User": "app:staff", "StopSignal": "SIGQUIT"}"#,
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "B=file\nC=file\n").unwrap();
        let asked = Asked::new(InstanceId::random().unwrap(), "image");
        let told = |words: &str| line(words).service(&asked, Some(&image)).unwrap();
        let service = told("");
        assert_eq!(
            (service.workdir.as_deref(), service.make_workdir),
            (Some("/srv/x"), true)
        );
        assert_eq!(
            (service.user.as_deref(), service.stop_signal),
            (Some("app:staff"), Some(3))
        );
        let words = format!(
            "-w /y -u 7 --stop-signal INT -e C=said -e A= --env-file {}",
            file.path().display()
        );
        let service = told(&words);
        assert_eq!(
            (service.workdir.as_deref(), service.make_workdir),
            (Some("/y"), false)
        );
        assert_eq!(
            (service.user.as_deref(), service.stop_signal),
            (Some("7"), Some(2))
        );
        let env: Vec<_> = service
            .env
            .iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect();
        assert_eq!(env, ["PATH=/bin", "B=file", "C=said", "A="]);
    }

    #[test]
    fn users_are_written_for_the_guests_files() {
        for (said, expected) in [
            ("", None),
            ("app", Some("app")),
            ("1000", Some("1000")),
            ("1000:2000", Some("1000:2000")),
            (":staff", Some("0:staff")),
        ] {
            let image = image(&format!(r#"{{"User": "{said}"}}"#));
            assert_eq!(user(&image.user).as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn hosts_are_lines_of_a_file() {
        for (text, line) in [
            ("db:10.0.0.5", "10.0.0.5\tdb"),
            ("db=fd00::5", "fd00::5\tdb"),
            ("db:fd00::5", "fd00::5\tdb"),
            ("db.local:[fd00::5]", "fd00::5\tdb.local"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(line));
        }
        for text in [
            "db",
            "db:",
            ":10.0.0.5",
            "db:x",
            "a b:10.0.0.5",
            "a\n:10.0.0.5",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
        assert!(host("x:host-gateway").unwrap_err().contains("its address"));
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
