//! `/v1` of `kvmlet serve` where it needs a guest of Linux: programs beside a service, and archives. The service, what is executed beside it,
//! and the client are this test.

use crate::harness::Test;
use crate::template;
use kvmlet::control::{Client, Ended, Execution, Owners, Program, Said, Streams};
use kvmlet_spec::ConsoleSize;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("programs_and_archives_go_over_the_api", run)];

/// The first argument by which this executable is the program in the guest, or the client.
const PROGRAM: &str = "--in-an-api";
/// Whoever does not answer by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// As a program: `--in-an-api wait` goes on for ever; `say` writes, and ends with 3; `echo` copies its input; `size` tells how big its
/// terminal is; `line` does, and reads a line; `count` how many wait; `client SOCKET` asks for all of that. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (first, rest) = arguments.split_first()?;
    if first != PROGRAM {
        return None;
    }
    match rest[0].as_str() {
        "wait" => {
            println!("waits");
            loop {
                std::thread::sleep(Duration::from_secs(1000));
            }
        }
        "say" => {
            println!("{}", std::env::var("SAID").unwrap_or_default());
            eprintln!("err");
            return Some(ExitCode::from(3));
        }
        "echo" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).unwrap();
            std::io::stdout().write_all(&text).unwrap();
        }
        "size" => size(),
        "line" => {
            size();
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            print!("read {line}");
            return Some(ExitCode::from(4));
        }
        "count" => println!("{} wait", waiting()),
        _ => client(&rest[1]),
    }
    Some(ExitCode::SUCCESS)
}

fn size() {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).unwrap();
    println!("size={}x{}", size.ws_col, size.ws_row);
}

fn waiting() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|process| {
        let path = process.ok()?.path().join("cmdline");
        std::fs::read_to_string(path).ok()
    });
    // That which waits is no service here.
    lines
        .filter(|line| line.ends_with("--in-an-api\0wait\0beside\0"))
        .count()
}

/// What was answered: its status, head and body.
struct Told(u16, String, Vec<u8>);

impl Told {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.2).into_owned()
    }
}

fn connect(socket: &str) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn head(stream: &mut UnixStream) -> (u16, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1);
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
}

fn receive(mut stream: UnixStream) -> Told {
    let (status, head) = head(&mut stream);
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    if head.contains("Transfer-Encoding: chunked") {
        body = whole(&body);
    }
    Told(status, head, body)
}

fn whole(mut rest: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = std::str::from_utf8(&rest[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        rest = &rest[end + 2..];
        all.extend_from_slice(&rest[..length]);
        assert_eq!(&rest[length..length + 2], b"\r\n");
        rest = &rest[length + 2..];
        if length == 0 {
            assert!(rest.is_empty());
            return all;
        }
    }
}

fn ask(socket: &str, method: &str, path: &str, body: &[u8]) -> Told {
    let mut stream = connect(socket);
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    receive(stream)
}

fn exec(socket: &str, body: &str) -> String {
    let told = ask(socket, "POST", "/v1/vms/web/exec", body.as_bytes());
    assert_eq!(told.0, 200, "{}", told.text());
    told.text()
}

fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&[kind, 0, 0, 0], &length[..], content].concat()
}

fn upgraded(socket: &str, body: &str) -> UnixStream {
    let mut stream = connect(socket);
    let length = body.len();
    let request = format!(
        "POST /v1/vms/web/exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: kvmlet-exec\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(head(&mut stream).0, 101);
    stream
}

fn next(stream: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    let length = u32::from_be_bytes(header[4..].try_into().unwrap());
    let mut content = vec![0; length as usize];
    stream.read_exact(&mut content).unwrap();
    (header[0], content)
}

fn client(socket: &str) {
    let said = exec(
        socket,
        r#"{"command": ["/test", "--in-an-api", "say"], "env": {"SAID": "é"}}"#,
    );
    let mut lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.pop(), Some(r#"{"exit_code":3}"#), "{said}");
    lines.sort_unstable();
    let wanted = [
        r#"{"stream":"stderr","text":"err\n"}"#,
        r#"{"stream":"stdout","text":"é\n"}"#,
    ];
    assert_eq!(lines, wanted);
    let told = ask(
        socket,
        "POST",
        "/v1/vms/web/exec",
        br#"{"command": ["/no"]}"#,
    );
    assert_eq!(told.0, 422, "{}", told.text());
    assert!(told.text().contains("no such file"), "{}", told.text());

    let body = r#"{"command": ["/test", "--in-an-api", "echo"], "input": true}"#;
    let mut stream = upgraded(socket, body);
    stream.write_all(&frame(0, b"in\xff")).unwrap();
    stream.write_all(&frame(0, b"")).unwrap();
    assert_eq!(next(&mut stream), (1, b"in\xff".to_vec()));
    assert_eq!(next(&mut stream), (5, br#"{"exit_code":0}"#.to_vec()));
    let body =
        r#"{"command": ["/test", "--in-an-api", "size"], "tty": {"columns": 100, "rows": 30}}"#;
    assert_eq!(
        next(&mut upgraded(socket, body)),
        (1, b"size=100x30\r\n".to_vec())
    );
    hung_up(socket);
    archives(socket);
    embedded(socket);
    println!("all is well");
}

/// Whoever goes hangs its program up.
fn hung_up(socket: &str) {
    let body = r#"{"command": ["/test", "--in-an-api", "wait", "beside"]}"#;
    let mut framed = upgraded(socket, body);
    assert_eq!(next(&mut framed), (1, b"waits\n".to_vec()));
    let mut lines = connect(socket);
    let length = body.len();
    let request =
        format!("POST /v1/vms/web/exec HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
    lines.write_all(request.as_bytes()).unwrap();
    assert_eq!(head(&mut lines).0, 200);
    let mut some = [0; 20];
    lines.read_exact(&mut some).unwrap();
    let count = || exec(socket, r#"{"command": ["/test", "--in-an-api", "count"]}"#);
    assert!(count().contains("2 wait"), "{}", count());
    drop((framed, lines));
    let since = Instant::now();
    while !count().contains("0 wait") {
        assert!(since.elapsed() < PATIENCE, "they go on");
    }
}

fn tar(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").args(arguments).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn archives(socket: &str) {
    let tree = tar(&["-c", "tree"]);
    let path = "/v1/vms/web/files?path=/tmp";
    let put = ask(socket, "PUT", path, &tree);
    assert_eq!(put.0, 204, "{}", put.text());
    let told = ask(socket, "GET", "/v1/vms/web/files?path=/tmp/tree", b"");
    assert_eq!(told.0, 200, "{}", told.text());
    assert!(told.1.contains("Content-Type: application/x-tar"));
    std::fs::create_dir("out").unwrap();
    let mut unpack = Command::new("tar");
    let unpack = unpack.args(["-x", "-C", "out"]).stdin(Stdio::piped());
    let mut unpack = unpack.spawn().unwrap();
    unpack.stdin.take().unwrap().write_all(&told.2).unwrap();
    assert!(unpack.wait().unwrap().success());
    let diff = Command::new("diff")
        .args(["-r", "tree", "out/tree"])
        .status();
    assert!(diff.unwrap().success());
    // In chunks, and asked to send them.
    let mut stream = connect(socket);
    let request = format!(
        "PUT {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(head(&mut stream).0, 100);
    for part in tar(&["-c", "tree/link", "--transform", "s/link/again/"]).chunks(777) {
        let head = format!("{:x}\r\n", part.len());
        stream
            .write_all(&[head.as_bytes(), part, b"\r\n"].concat())
            .unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let put = receive(stream);
    assert_eq!(put.0, 204, "{}", put.text());
    let told = ask(socket, "GET", "/v1/vms/web/files?path=/tmp/tree/again", b"");
    assert_eq!(told.0, 200, "{}", told.text());
    // What goes wrong is told in words, by who knows.
    for (status, method, path, body, part) in [
        (404, "GET", "/none", &b""[..], "no such file"),
        (404, "PUT", "/tmp/none", &tree[..], "no such file"),
        (422, "PUT", "/tmp/tree/big", &tree[..], "not a directory"),
        (422, "PUT", "/tmp", &[b'x'; 2000][..], "archive"),
        // Between two entries: the first is a directory.
        (422, "PUT", "/tmp", &tree[..512], "cut off"),
    ] {
        let path = format!("/v1/vms/web/files?path={path}");
        let told = ask(socket, method, &path, body);
        assert_eq!(told.0, status, "{method} {path}: {}", told.text());
        assert!(told.text().contains(part), "{}", told.text());
    }
    // Whoever goes in between is forgotten.
    let mut stream = connect(socket);
    let request = format!("PUT {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc");
    stream.write_all(request.as_bytes()).unwrap();
    drop(stream);
    let mut stream = connect(socket);
    stream
        .write_all(b"GET /v1/vms/web/files?path=/test HTTP/1.1\r\n\r\n")
        .unwrap();
    assert_eq!(head(&mut stream).0, 200);
    drop(stream);
}

/// What programs have that embed kvmlet.
fn embedded(socket: &str) {
    let told = ask(socket, "GET", "/v1/vms/web", b"").text();
    let id = told.split("\"id\":\"").nth(1).unwrap();
    let id = id.split('"').next().unwrap();
    let directory = Path::new("/var/lib/kvmlet/instances").join(id);
    let client = Client::to(&directory.join("control.sock")).unwrap();
    let guest = client.guest().patience(PATIENCE);
    let program = |word: &str| Program {
        arguments: ["/test", PROGRAM, word].map(Into::into).into(),
        variables: vec![("SAID".into(), "so".into())],
        ..Program::default()
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut streams = Streams {
        input: None,
        stdout: &mut stdout,
        stderr: &mut stderr,
    };
    let ended = guest.execute(&program("say"), &mut streams, Some(PATIENCE));
    assert_eq!(ended.unwrap(), Ended::Code(3));
    assert_eq!((&stdout[..], &stderr[..]), (&b"so\n"[..], &b"err\n"[..]));
    let mut line = program("line");
    let (columns, rows) = (100, 30);
    line.terminal = Some(ConsoleSize { columns, rows });
    line.input = true;
    let (written, ended) = heard(guest.start(&line).unwrap(), b"typed\n");
    assert_eq!(ended, Ended::Code(4));
    for part in ["size=100x30\r\n", "read typed\r\n"] {
        assert!(written.contains(part), "{written:?}");
    }

    std::fs::write("one", "1").unwrap();
    let copied = guest.copy_to(Path::new("one"), "/tmp/two", Owners::Mine);
    copied.unwrap();
    let copied = guest.copy_from("/tmp/two", Path::new("three"), Owners::Mine);
    copied.unwrap();
    assert_eq!(std::fs::read("three").unwrap(), b"1");
    let missing = guest.copy_from("/tmp/no", Path::new("no"), Owners::Mine);
    assert!(missing.unwrap_err().to_string().contains("o such file"));
}

/// All that a program writes that is given that, and how it ends.
fn heard(mut program: Execution, mut input: &[u8]) -> (String, Ended) {
    let mut written = Vec::new();
    loop {
        let next = program.next(Some(Instant::now() + PATIENCE)).unwrap();
        match next.unwrap() {
            Said::Output { bytes, .. } => written.extend(bytes),
            Said::Ended(ended) => return (String::from_utf8(written).unwrap(), ended),
            Said::Ready => {
                let taken = program.input(input).unwrap();
                input = &input[taken..];
            }
            _ => {}
        }
    }
}

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    let text = r#"
        trap '$K rm -f web >/dev/null; kill $server' EXIT
        $K serve --socket "$PWD/api" 2>served & server=$!
        mkdir tree; printf '%0600000d' 7 >tree/big; ln -s big tree/link; chmod 640 tree/big
        guest web; until [ -S api ]; do sleep 0.2; done
        "$T" --in-an-api client "$PWD/api"
        "#;
    let (out, err) = template::script(text, place.path());
    assert_eq!(out, "all is well\n", "{err}");
}
