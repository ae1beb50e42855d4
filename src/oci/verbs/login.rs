//! `kvmlet login` and `logout`.

use crate::confined::{NOT_DONE, apart};
use crate::credentials::{Credentials, Keyring, Shown};
use crate::registry::{Options, Registry, Trust};
use kvmlet_command::oci::{Login, Logout};
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_sys::standard_error;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Read};

/// The longest password.
const MAX_PASSWORD: u64 = 64 << 10;

pub(super) fn login(flags: &Login) -> Outcome {
    let registry = name(&flags.registry);
    let user = match &flags.username {
        Some(user) => user.clone(),
        None if flags.password_stdin => {
            return Err(Failed::new("a password of whom?").help("say --username"));
        }
        None => ask("Username: ")?,
    };
    if user.is_empty() || user.contains(':') {
        return Err(Failed::new(
            "a name has at least one character, and no colon",
        ));
    }
    let password = match &flags.password {
        Some(password) => password.clone(),
        None if flags.password_stdin => piped()?,
        None => secret("Password: ")?,
    };
    if password.is_empty() {
        return Err(Failed::new("the password is empty"));
    }
    let options = Options {
        plain_http: flags.talk.plain_http,
        is_insecure: false,
        shown: Shown::default(),
        trust: Trust::look_up([&*registry]),
    };
    let credentials = Credentials::Password {
        user: user.clone(),
        password: password.clone(),
    };
    let is_taken = apart(None, || {
        let asked = Registry::connect(&registry, &options)?;
        asked.check(&credentials)?;
        Ok(0)
    })?;
    if !is_taken {
        return Ok(NOT_DONE);
    }
    let path = Keyring::of_user().keep(&registry, &user, &password)?;
    log::info!("kept in {}", path.display());
    print("Login Succeeded\n")?;
    Ok(0)
}

pub(super) fn logout(flags: &Logout) -> Outcome {
    let registry = name(&flags.registry);
    match Keyring::of_user().forget(&registry)? {
        true => print(format!("Removing login credentials for {registry}\n"))?,
        false => print(format!("Not logged in to {registry}\n"))?,
    }
    Ok(0)
}

/// A registry as names of images have it.
fn name(text: &str) -> String {
    let plain = text
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = plain.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" | "" => "docker.io".into(),
        host => host.into(),
    }
}

fn no_terminal() -> Failed {
    Failed::new("nobody is there to be asked for a name and a password")
        .help("say --username NAME --password-stdin")
}

fn ask(prompt: &str) -> Result<String, Failed> {
    if !io::stdin().is_terminal() {
        return Err(no_terminal());
    }
    standard_error::write(prompt.as_bytes());
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(MAX_PASSWORD)
        .read_line(&mut line)
        .map_err(Failed::new)?;
    Ok(line.trim_end_matches(['\r', '\n']).into())
}

/// All of standard input, without the end of its line.
fn piped() -> Result<String, Failed> {
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(MAX_PASSWORD)
        .read_to_string(&mut text);
    read.map_err(|error| Failed::in_vain("the password cannot be read", error))?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

/// A line that nobody sees. Keys that would end this process are read like others: the terminal is put back first.
fn secret(prompt: &str) -> Result<String, Failed> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const ERASE: [u8; 2] = [8, 127];
    let terminal = io::stdin();
    if !terminal.is_terminal() {
        return Err(no_terminal());
    }
    let failed = |error: rustix::io::Errno| Failed::in_vain("the terminal cannot be set up", error);
    let before = tcgetattr(&terminal).map_err(failed)?;
    let mut hidden = before.clone();
    hidden.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    standard_error::write(prompt.as_bytes());
    tcsetattr(&terminal, OptionalActions::Flush, &hidden).map_err(failed)?;
    let mut typed = Vec::new();
    let ended = loop {
        let mut byte = [0];
        match rustix::io::read(&terminal, &mut byte) {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => break Err(Failed::in_vain("the password cannot be read", error)),
        }
        match byte[0] {
            b'\n' | b'\r' | END => break Ok(()),
            INTERRUPT => break Err(Failed::new("interrupted")),
            byte if ERASE.contains(&byte) => drop(typed.pop()),
            byte if (typed.len() as u64) < MAX_PASSWORD => typed.push(byte),
            _ => {}
        }
    };
    let restored = tcsetattr(&terminal, OptionalActions::Flush, &before);
    standard_error::write(b"\n");
    ended?;
    restored.map_err(failed)?;
    String::from_utf8(typed).map_err(|_| Failed::new("the password is not UTF-8"))
}
