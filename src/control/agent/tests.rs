// Whatever goes wrong in its making, a test has failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use kvmlet_contract::channel::{HEADER, MAX_PAYLOAD, Message, VERSION};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The guest's end: a thread that hears requests and says what a test wants.
pub(super) struct Guest {
    stream: UnixStream,
    heard: Vec<u8>,
}

impl Guest {
    pub(super) fn say(&mut self, event: &Event<'_>) {
        let mut out = vec![0; HEADER + MAX_PAYLOAD];
        let length = event.encode(&mut out).unwrap();
        // The host may have gone, which is what some tests are about.
        let _ = self.stream.write_all(&out[..length]);
    }

    /// Waits for the first request that `wanted` knows.
    pub(super) fn hear<T>(&mut self, wanted: impl Fn(Request<'_>) -> Option<T>) -> T {
        self.try_hear(wanted).expect("the host has gone")
    }

    /// The same; nothing if the host has gone.
    fn try_hear<T>(&mut self, wanted: impl Fn(Request<'_>) -> Option<T>) -> Option<T> {
        loop {
            while let Some((request, length)) = Request::decode(&self.heard).unwrap() {
                let found = wanted(request);
                self.heard.drain(..length);
                if found.is_some() {
                    return found;
                }
            }
            let mut bytes = [0; 4096];
            // It may go with something unread.
            let count = self.stream.read(&mut bytes).unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.heard.extend(&bytes[..count]);
        }
    }

    pub(super) fn start(&mut self) {
        self.say(&Event::Hello { version: VERSION });
        self.hear(|request| matches!(request, Request::Start { .. }).then_some(()));
        self.say(&Event::Started { pid: 7 });
    }
}

pub(super) fn guest(course: impl FnOnce(Guest) + Send + 'static) -> (Agent, JoinHandle<()>) {
    let (host, guest) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(|| {
        course(Guest {
            stream: guest,
            heard: Vec::new(),
        });
    });
    (Agent::new(host.into()), thread)
}

/// How a process ended, and what it wrote to both streams.
type Execution = (Result<Ended, AgentError>, Vec<u8>, Vec<u8>);

fn execute(agent: &mut Agent, input: Option<BorrowedFd<'_>>, limit: Duration) -> Execution {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut streams = Streams {
        input,
        stdout: &mut stdout,
        stderr: &mut stderr,
    };
    let ended = agent.execute(&ProcessSpec::default(), &mut streams, Some(limit));
    (ended, stdout, stderr)
}

#[test]
fn streams_are_passed_on_and_the_end_is_told() {
    let (mut agent, guest) = guest(|mut guest| {
        guest.start();
        guest.say(&Event::InputCredit { bytes: 6 });
        let mut echo = Vec::new();
        while echo.len() < 6 {
            echo.extend(guest.hear(|request| match request {
                Request::Input { bytes } => Some(bytes.to_vec()),
                _ => None,
            }));
        }
        guest.say(&Event::Output {
            output: Output::Stdout,
            bytes: &echo,
        });
        guest.say(&Event::InputCredit { bytes: 100 });
        guest.hear(|request| matches!(request, Request::EndInput).then_some(()));
        guest.say(&Event::Output {
            output: Output::Stderr,
            bytes: b"bad",
        });
        guest.say(&Event::Exited {
            ended: Ended::Code(7),
        });
    });
    let (input, mut sender) = UnixStream::pair().unwrap();
    sender.write_all(b"hello\n").unwrap();
    drop(sender);
    let (ended, stdout, stderr) = execute(&mut agent, Some(input.as_fd()), PATIENCE);
    assert_eq!(ended.unwrap(), Ended::Code(7));
    assert_eq!((&*stdout, &*stderr), (&b"hello\n"[..], &b"bad"[..]));
    guest.join().unwrap();
}

#[test]
fn much_output_comes_as_it_is_granted() {
    let (mut agent, guest) = guest(|mut guest| {
        guest.start();
        let (mut left, mut credit) = (1_000_000_u32, 0);
        while left > 0 {
            while credit == 0 {
                credit = guest.hear(|request| match request {
                    Request::Credit {
                        output: Output::Stdout,
                        bytes,
                    } => Some(bytes),
                    _ => None,
                });
            }
            let count = left.min(credit).min(8 << 10);
            guest.say(&Event::Output {
                output: Output::Stdout,
                bytes: &vec![b'x'; count as usize],
            });
            left -= count;
            credit -= count;
        }
        guest.say(&Event::Exited {
            ended: Ended::Code(0),
        });
    });
    let (ended, stdout, _) = execute(&mut agent, None, PATIENCE);
    assert_eq!(ended.unwrap(), Ended::Code(0));
    assert_eq!(stdout.len(), 1_000_000);
    guest.join().unwrap();
}

#[test]
fn a_guest_that_stalls_is_not_waited_for() {
    let (mut agent, guest) = guest(|mut guest| {
        guest.start();
        let signal = guest.hear(|request| match request {
            Request::Signal { signal, group } => Some((signal, group)),
            _ => None,
        });
        assert_eq!(signal, (9, true));
        // It is not left before that is done.
        std::thread::sleep(Duration::from_millis(100));
        guest.say(&Event::Exited {
            ended: Ended::Signal(9),
        });
    });
    let (ended, ..) = execute(&mut agent, None, Duration::from_millis(300));
    let error = ended.unwrap_err().to_string();
    assert_eq!(error, "the guest's agent did not answer in 0.3 s");
    guest.join().unwrap();
}

#[test]
fn a_guest_that_ends_is_told_so() {
    let (mut agent, guest) = guest(|mut guest| guest.start());
    let (ended, ..) = execute(&mut agent, None, PATIENCE);
    guest.join().unwrap();
    assert!(matches!(ended, Err(AgentError::Gone)), "{ended:?}");
}

/// It speaks without end, and does not hear what it is granted.
#[test]
fn a_guest_that_floods_is_left() {
    let (mut agent, guest) = guest(|mut guest| {
        guest.start();
        let mut out = vec![0; HEADER + MAX_PAYLOAD];
        let flood = Event::Output {
            output: Output::Stdout,
            bytes: &[b'x'; 8 << 10],
        };
        let length = flood.encode(&mut out).unwrap();
        while guest.stream.write_all(&out[..length]).is_ok() {}
    });
    let mut streams = Streams {
        input: None,
        stdout: &mut io::sink(),
        stderr: &mut io::sink(),
    };
    let ended = agent.execute(&ProcessSpec::default(), &mut streams, Some(PATIENCE));
    let flooded = matches!(ended, Err(AgentError::Client(ClientError::Flooded(_))));
    assert!(flooded, "{ended:?}");
    drop(agent);
    guest.join().unwrap();
}

#[test]
fn what_a_guest_says_of_a_failure_steers_no_terminal() {
    let (mut agent, guest) = guest(|mut guest| {
        guest.say(&Event::Hello { version: VERSION });
        guest.hear(|request| matches!(request, Request::Start { .. }).then_some(()));
        guest.say(&Event::Failed {
            fault: Fault::Start { exit_code: 127 },
            message: b"run \"\x1b]0;x\x07\xff\"",
        });
    });
    let (ended, ..) = execute(&mut agent, None, PATIENCE);
    let error = ended.unwrap_err().to_string();
    assert_eq!(
        error,
        "the guest cannot run \"\u{fffd}]0;x\u{fffd}\u{fffd}\""
    );
    guest.join().unwrap();
}

#[test]
fn the_clock_is_read_and_set() {
    let (mut agent, guest) = guest(|mut guest| {
        guest.say(&Event::Hello { version: VERSION });
        guest.hear(|request| matches!(request, Request::ReadClock).then_some(()));
        guest.say(&Event::Clock {
            realtime_ns: 5,
            boottime_ns: 1,
        });
        let set = guest.hear(|request| match request {
            Request::SetClock { realtime_ns } => Some(realtime_ns),
            _ => None,
        });
        assert_eq!(set, 9);
        guest.say(&Event::Done);
    });
    assert_eq!(agent.clock(PATIENCE).unwrap(), 5);
    let set = Request::SetClock { realtime_ns: 9 };
    agent.change(&set, PATIENCE).unwrap();
    guest.join().unwrap();
}

/// A guest whose tool writes that, and has something to say on standard error.
pub(super) fn writing(output: Vec<u8>, ended: Ended) -> (Agent, JoinHandle<()>) {
    guest(move |mut guest| {
        guest.say(&Event::Hello { version: VERSION });
        guest.hear(|request| matches!(request, Request::Start { role: Role::Tool }).then_some(()));
        guest.say(&Event::Started { pid: 7 });
        let mut credit = 0;
        for bytes in output.chunks(8 << 10) {
            while credit < bytes.len() {
                let more = guest.try_hear(|request| match request {
                    Request::Credit {
                        output: Output::Stdout,
                        bytes,
                    } => Some(bytes),
                    _ => None,
                });
                // The host has heard enough.
                let Some(more) = more else { return };
                credit += more as usize;
            }
            credit -= bytes.len();
            let output = Output::Stdout;
            guest.say(&Event::Output { output, bytes });
        }
        let output = Output::Stderr;
        let bytes = b"kvmlet-init: \x1b[31mno\n";
        guest.say(&Event::Output { output, bytes });
        guest.say(&Event::Exited { ended });
    })
}

/// A guest whose tool takes all input, which it then hands out.
pub(super) fn reading() -> (Agent, JoinHandle<Vec<u8>>) {
    let (host, stream) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(|| {
        let heard = Vec::new();
        let mut guest = Guest { stream, heard };
        guest.start();
        guest.say(&Event::InputCredit { bytes: 1 << 29 });
        let mut all = Vec::new();
        while let Some(bytes) = guest.hear(|request| match request {
            Request::Input { bytes } => Some(Some(bytes.to_vec())),
            Request::EndInput => Some(None),
            _ => None,
        }) {
            all.extend(bytes);
        }
        let ended = Ended::Code(0);
        guest.say(&Event::Exited { ended });
        all
    });
    (Agent::new(host.into()), thread)
}

/// What comes of a guest that lists its processes so.
fn listed(list: Vec<u8>, ended: Ended) -> Result<Vec<Process>, AgentError> {
    let (mut agent, guest) = writing(list, ended);
    let processes = agent.processes(PATIENCE);
    drop(agent);
    guest.join().unwrap();
    processes
}

#[test]
fn processes_are_listed() {
    let list = b"1 0 0 10 300 /init\n7 1 33 1500 4096 nginx: master x\n";
    let processes = listed(list.to_vec(), Ended::Code(0)).unwrap();
    let nginx = Process {
        pid: 7,
        parent: 1,
        uid: 33,
        cpu: Duration::from_millis(1500),
        rss_kib: 4096,
        command: "nginx: master x".into(),
    };
    assert_eq!((processes.len(), &processes[1]), (2, &nginx));
}

#[test]
fn a_list_of_processes_that_is_none_is_refused() {
    let cases: [(&[u8], &str); 4] = [
        (b"1 0 0 10 300 /init\nroot", "that is none"),
        (b"1 0 0 10 300 \x1b]0;x\x07\n", "that is none"),
        (b"\xff\n", "that is none"),
        (&[b'\n'; 5 << 20], "without end"),
    ];
    for (list, expected) in cases {
        let error = listed(list.to_vec(), Ended::Code(0)).unwrap_err();
        let expected = format!("the guest's agent sent a list of processes {expected}");
        assert_eq!(error.to_string(), expected);
    }
    let error = listed(Vec::new(), Ended::Code(125)).unwrap_err();
    let expected = "the guest cannot list its processes: kvmlet-init: \u{fffd}[31mno";
    assert_eq!(error.to_string(), expected);
}
