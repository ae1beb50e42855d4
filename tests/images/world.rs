//! A user of a test's own, with a store and passwords, and Debian's registry.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A home, a store, and nothing in them.
pub struct User(tempfile::TempDir);

impl User {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program, with this user's places.
    pub fn command(&self, arguments: &[&str]) -> Command {
        const OCI: &str = env!("CARGO_BIN_EXE_kvmlet-oci");
        let mut command = match rustix::process::geteuid().is_root() {
            // Root's store is always in one place.
            true => {
                let alone = "mount --bind \"$0\" /var/lib && exec \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-c", alone]);
                fs::create_dir_all(self.path("lib")).unwrap();
                command.arg(self.path("lib")).arg(OCI);
                command
            }
            false => Command::new(OCI),
        };
        command
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        for name in [
            "DOCKER_CONFIG",
            "REGISTRY_AUTH_FILE",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
        ] {
            command.env_remove(name);
        }
        for name in [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.0.path())
            .env("XDG_DATA_HOME", self.path("lib"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command prints that is done.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command says that is not done: one error, with exit code 1.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        let errors = text
            .lines()
            .filter(|line| line.starts_with("error: "))
            .count();
        assert_eq!(errors, 1, "{arguments:?}: {text}");
        text
    }

    /// Files of the store, but for locks.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.path("lib")];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => waiting.push(path),
                    false if fs::metadata(&path).unwrap().len() > 4096 => found.push(path),
                    false => {}
                }
            }
        }
        found
    }
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn is_installed(program: &str) -> bool {
    let found = std::env::var("PATH").unwrap();
    found
        .split(':')
        .any(|place| Path::new(place).join(program).exists())
}

pub fn tool(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}

/// Debian's registry, which ends with this value.
pub struct Registry {
    pub port: u16,
    child: Child,
    _place: tempfile::TempDir,
}

/// What a registry wants.
#[derive(Default)]
pub struct Wants<'a> {
    /// A file of htpasswd's.
    pub passwords: Option<&'a Path>,
    /// A certificate and its key.
    pub tls: Option<(&'a Path, &'a Path)>,
}

impl Registry {
    pub fn start(wants: &Wants<'_>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let storage = place.path().join("storage");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            storage.display()
        );
        if let Some((certificate, key)) = wants.tls {
            config.push_str(&format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            ));
        }
        if let Some(file) = wants.passwords {
            config.push_str(&format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                file.display()
            ));
        }
        let file = place.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(place.path().join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&file)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let registry = Self {
            port,
            child,
            _place: place,
        };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "the registry does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
