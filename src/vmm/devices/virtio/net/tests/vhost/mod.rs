//! The device whose queues are served by the host's kernel: by what stands for that, and does nothing but remember.

mod tap;

use super::super::kernel::Kernel;
use super::*;
use crate::devices::virtio::contract::over_pci;
use kvmlet_sys::event::Event;
use kvmlet_sys::vhost::{Purpose, Region, Ring, Vhost};

/// What was asked of the kernel.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Prepare(u64, Vec<Region>),
    Begin(u32, Ring),
    End(u32),
}

#[derive(Default)]
struct Seen {
    asked: Vec<Asked>,
    rings: [Option<Ring>; 2],
    events: Vec<(u32, Purpose, Event)>,
    refuses: bool,
}

/// What stands for the kernel: it does nothing, and remembers what it was to do.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Seen>>);

impl Recorder {
    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn take(&self) -> Vec<Asked> {
        self.seen(|seen| std::mem::take(&mut seen.asked))
    }

    /// The event of a queue that it was given last.
    fn signal(&self, queue: u32, purpose: Purpose) {
        self.seen(|seen| {
            let mut events = seen.events.iter().rev();
            let given = events.find(|(of, what, _)| (*of, *what) == (queue, purpose));
            given.unwrap().2.signal();
        });
    }

    /// Waits until it serves both queues, or none.
    fn expect(&self, queues: usize) -> Vec<Asked> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut all = Vec::new();
        let ended = |all: &[Asked]| {
            let count = |is: fn(&Asked) -> bool| all.iter().filter(|it| is(it)).count();
            match queues {
                0 => count(|it| matches!(it, Asked::End(_))) == 2,
                queues => count(|it| matches!(it, Asked::Begin(..))) == queues,
            }
        };
        while !ended(&all) {
            assert!(Instant::now() < deadline, "{all:?}");
            all.extend(self.take());
            std::thread::yield_now();
        }
        all
    }
}

impl Vhost for Recorder {
    unsafe fn prepare(&self, features: u64, regions: &[Region]) -> io::Result<()> {
        self.seen(|seen| {
            seen.asked.push(Asked::Prepare(features, regions.to_vec()));
            match seen.refuses {
                true => Err(io::ErrorKind::OutOfMemory.into()),
                false => Ok(()),
            }
        })
    }

    unsafe fn set_ring(&self, queue: u32, ring: &Ring) -> io::Result<()> {
        self.seen(|seen| seen.rings[queue as usize] = Some(*ring));
        Ok(())
    }

    fn set_event(&self, queue: u32, purpose: Purpose, event: &Event) -> io::Result<()> {
        let event = (queue, purpose, event.try_clone()?);
        self.seen(|seen| seen.events.push(event));
        Ok(())
    }

    fn begin(&self, queue: u32, _port: BorrowedFd<'_>) -> io::Result<()> {
        self.seen(|seen| {
            let ring = seen.rings[queue as usize].unwrap();
            seen.asked.push(Asked::Begin(queue, ring));
        });
        Ok(())
    }

    /// As if it had served 7 requests more.
    fn end(&self, queue: u32) -> io::Result<u16> {
        self.seen(|seen| {
            seen.asked.push(Asked::End(queue));
            Ok(seen.rings[queue as usize].unwrap().next_avail + 7)
        })
    }
}

fn params() -> NetParams {
    NetParams {
        name: "eth0".into(),
        mac: "02:6b:00:00:00:01".parse().unwrap(),
        mtu: None,
        receive_limit: RateLimit::NONE,
        transmit_limit: RateLimit::NONE,
        poll: Duration::ZERO,
        vhost: true,
    }
}

/// A device that is ready, and what stands for the kernel.
fn recorded() -> (FakeDriver, Recorder) {
    let (near, _far) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let port = Arc::new(SocketPort {
        socket: near,
        offloads: Mutex::default(),
        attached: AtomicBool::new(false),
    });
    let recorder = Recorder::default();
    let kernel = Kernel::new(Box::new(recorder.clone())).unwrap();
    let (device, _) = NetDevice::new(params(), vec![port], vec![kernel]).unwrap();
    let mut driver = FakeDriver::new(Box::new(device));
    driver.start(!EVENT_IDX);
    (driver, recorder)
}

fn is_signalled(line: &Event) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while line.take() == 0 {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn what_the_kernel_is_asked() {
    let (mut driver, recorder) = recorded();
    let asked = recorder.expect(2);
    let Asked::Prepare(features, regions) = &asked[0] else {
        panic!("{asked:?}");
    };
    assert_eq!(*features, 1 << 32 | 1 << 28 | feature::MRG_RXBUF);
    assert_eq!((regions.len(), regions[0].guest), (1, 0));
    let host = regions[0].host;
    let ring = |next_avail, queue: u64| Ring {
        size: 16,
        next_avail,
        descriptors: host + 0x1_0000 * (queue + 1),
        driver: host + 0x1_0000 * (queue + 1) + 0x4000,
        device: host + 0x1_0000 * (queue + 1) + 0x8000,
    };
    let begun = |next| [0, 1].map(|queue| Asked::Begin(queue, ring(next, queue.into())));
    assert_eq!(asked[1..], begun(0));
    let ends = [0, 1].map(Asked::End);

    // It stands still, and goes on where the kernel was.
    let session = driver.transport.session();
    session.pause();
    assert!(
        session.is_still(crate::devices::virtio::Patience::of(Duration::from_secs(
            10
        )))
    );
    assert_eq!(recorder.take(), ends);
    driver.transport.session().resume();
    assert_eq!(recorder.expect(2)[1..], begun(7));
    let far = Instant::now() + Duration::from_secs(10);
    assert!(driver.transport.session().rest(far));
    assert_eq!(recorder.take(), ends);
    // What it has told is how far the kernel had come, and what is in memory.
    let used = driver.ram.clone();
    let state = driver.transport.state().session;
    let progress = |queue: usize| state.queues[queue].progress.unwrap();
    assert_eq!((progress(RX).next_avail, progress(TX).next_avail), (14, 14));
    assert_eq!((progress(RX).next_used, progress(2).next_avail), (0, 0));
    drop(used);
    driver.transport.session().wake();
    assert_eq!(recorder.expect(2)[1..], begun(14));
    // A reset takes all of it back.
    driver.reset();
    assert_eq!(recorder.take(), ends);
    driver.forget_queues();
    driver.start(!EVENT_IDX);
    assert_eq!(recorder.expect(2)[1..], begun(0));
    drop(driver);
    assert_eq!(recorder.take(), ends);
}

#[test]
fn the_kernel_has_the_queues_while_the_guest_runs() {
    what_the_kernel_is_asked();
    over_pci(what_the_kernel_is_asked);
}

fn what_the_driver_is_told(has_messages: bool) {
    let (mut driver, recorder) = recorded();
    recorder.expect(2);
    driver.line.take();
    for queue in [0, 1] {
        recorder.signal(queue, Purpose::Call);
        assert!(is_signalled(&driver.line), "queue {queue}");
        // Who has messages does not ask.
        assert_eq!(driver.read(0x60) & 1, u32::from(!has_messages));
    }
    // What was asked while nobody served is asked again.
    driver.transport.session().pause();
    recorder.expect(0);
    driver.transport.session().resume();
    recorder.expect(2);
    recorder.seen(|seen| {
        let kicks = seen.events.iter().filter(|it| it.1 == Purpose::Kick);
        assert!(kicks.count() >= 2);
        let (.., kick) = (seen.events.iter())
            .rfind(|it| it.1 == Purpose::Kick)
            .unwrap();
        assert!(kick.take() > 0);
    });
    recorder.signal(1, Purpose::Error);
    driver.expect_needs_reset();
    recorder.expect(0);
    driver.reset();
    recorder.seen(|seen| seen.refuses = true);
    driver.forget_queues();
    driver.start(!EVENT_IDX);
    driver.expect_needs_reset();
    assert!(matches!(recorder.take()[..], [Asked::Prepare(..)]));
    driver.reset();
    recorder.seen(|seen| seen.refuses = false);
    driver.forget_queues();
    driver.start(!EVENT_IDX);
    recorder.expect(2);
    assert!(!driver.needs_reset());
}

#[test]
fn interrupts_and_faults_of_the_kernels_reach_the_driver() {
    what_the_driver_is_told(false);
    over_pci(|| what_the_driver_is_told(true));
}

/// The control queue is served beside the kernel.
#[test]
fn commands_are_answered_while_the_kernel_serves() {
    let (mut driver, recorder) = recorded();
    recorder.expect(2);
    let (command, answer) = (BUFFERS, BUFFERS + 0x100);
    for (bits, expected) in [(feature::GUEST_CSUM, 0), (1 << 40, 1)] {
        driver.put(command, &[&[5, 0][..], &bits.to_le_bytes()].concat());
        driver.put(answer, &[9]);
        driver.send(2, &[(command, 10, 0), (answer, 1, WRITE)]);
        driver.used(2);
        assert_eq!(driver.bytes(answer, 1), [expected]);
    }
    assert_eq!(recorder.take(), []);
}

#[test]
fn what_is_no_tap_is_not_the_kernels_to_serve() {
    let (near, _far) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let port = Arc::new(SocketPort {
        socket: near,
        offloads: Mutex::default(),
        attached: AtomicBool::new(false),
    });
    let spec = NetSpec {
        params: params(),
        ports: vec![port],
    };
    assert!(matches!(spec.build(), Err(Unusable::Port)));
}
