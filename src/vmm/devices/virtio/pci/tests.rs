//! A function with an entropy device behind it: its configuration space, registers and messages.

use super::*;
use crate::config::RateLimit;
use crate::devices::pci::tests_lines::Told;
use crate::devices::virtio::DeviceSpec;
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, WRITE};
use crate::devices::virtio::interrupt::Signal;
use crate::devices::virtio::rng::RngSpec;
use crate::memory::Backing;
use kvmlet_sys::event::Event;
use std::collections::BTreeMap;
use std::sync::Mutex;
use vm_memory::GuestAddress;

fn device() -> Box<dyn VirtioDevice> {
    let (device, _) = RngSpec::limited(RateLimit::NONE).build().unwrap();
    Box::new(device)
}

fn function() -> (PciTransport, Vec<Told>) {
    let ram = GuestRam::allocate(&[(GuestAddress(0), 1 << 20)], Backing::default()).unwrap();
    let told = vec![Told::default(), Told::default()];
    let lines = told.iter().map(|told| Box::new(told.clone()) as _);
    let function = PciTransport::new(device(), ram, lines.collect(), 0xe000_8000).unwrap();
    (function, told)
}

fn config(function: &mut PciTransport, offset: usize) -> u32 {
    let mut data = [0; 4];
    function.read_config(offset, &mut data);
    u32::from_le_bytes(data)
}

fn byte(function: &mut PciTransport, offset: usize) -> usize {
    let mut data = [0];
    function.read_config(offset, &mut data);
    data[0].into()
}

#[test]
fn capabilities_tell_where_everything_is() {
    let (mut function, _) = function();
    assert_eq!(config(&mut function, 0), 0x1044_1af4);
    assert_eq!(config(&mut function, 0x2c), 0x1044_1af4);
    assert_eq!(config(&mut function, 4) >> 20 & 1, 1, "capabilities");
    assert_eq!(byte(&mut function, 0x3d), 0, "no line");
    let mut found = BTreeMap::new();
    let mut at = byte(&mut function, 0x34);
    while at != 0 {
        assert!(at.is_multiple_of(4) && found.len() < 10);
        let id = byte(&mut function, at);
        let kind = if id == 9 {
            byte(&mut function, at + 3)
        } else {
            0
        };
        let place = (
            config(&mut function, at + 8),
            config(&mut function, at + 12),
        );
        assert!(found.insert((id, kind), (at, place)).is_none());
        at = byte(&mut function, at + 1);
    }
    let places: Vec<_> = (1..=4).map(|kind| found[&(9, kind)].1).collect();
    assert_eq!(
        places,
        [(0, 4096), (0x3000, 4096), (0x1000, 4096), (0x2000, 4096)]
    );
    let notify = found[&(9, 2)].0;
    assert_eq!(
        (
            byte(&mut function, notify + 2),
            config(&mut function, notify + 16)
        ),
        (20, 4)
    );
    let msix = found[&(0x11, 0)].0;
    assert_eq!(config(&mut function, msix) >> 16, 1, "two vectors, off");
    assert_eq!(config(&mut function, msix + 4), 0x4000);
    assert_eq!(config(&mut function, msix + 8), 0x5000);
}

#[test]
fn registers_are_sized_and_put_elsewhere() {
    let (mut function, _) = function();
    assert_eq!(
        (config(&mut function, 0x10), function.place()),
        (0xe000_8000, None)
    );
    function.write_config(0x10, &[0xff; 4]);
    assert_eq!(config(&mut function, 0x10), !0x7fff);
    function.write_config(0x10, &0xe123_4567u32.to_le_bytes());
    function.write_config(4, &[0xff; 4]);
    assert_eq!(config(&mut function, 4) & 0xffff, 0x0406);
    assert_eq!(function.place(), Some(0xe123_0000));
    for other in [0x14, 0x20, 0x24, 0x30] {
        function.write_config(other, &[0xff; 4]);
        assert_eq!(config(&mut function, other), 0, "{other:#x}");
    }
    function.write_config(0, &[0; 4]);
    assert_eq!(config(&mut function, 0), 0x1044_1af4);
    // The last bytes, and none behind them.
    function.write_config(0xfe, &[0xff; 2]);
    assert_eq!(config(&mut function, 0xfe), 0);
}

#[test]
fn configuration_accesses_reach_registers() {
    let (mut function, _) = function();
    let access = function.access;
    let aim = |function: &mut PciTransport, bar: u8, offset: u32, length: u32| {
        function.write_config(access + BAR_FIELD, &[bar]);
        function.write_config(access + OFFSET_FIELD, &offset.to_le_bytes());
        function.write_config(access + LENGTH_FIELD, &length.to_le_bytes());
    };
    aim(&mut function, 0, common::STATUS as u32, 1);
    function.write_config(access + DATA_FIELD, &[1]);
    assert_eq!(byte(&mut function, access + DATA_FIELD), 1);
    assert_eq!(function.session.status(), 1);
    aim(&mut function, 0, common::DEVICE_FEATURE_SELECT as u32, 4);
    function.write_config(access + DATA_FIELD, &[1, 0, 0, 0]);
    aim(&mut function, 0, common::DEVICE_FEATURE as u32, 4);
    assert_eq!(
        config(&mut function, access + DATA_FIELD) & 1,
        1,
        "VERSION_1"
    );
    // What leads nowhere is kept, and nothing comes of it.
    for (bar, offset, length) in [
        (1, 0x14, 1),
        (0, 0x15, 2),
        (0, 0x14, 3),
        (0, 0x8000, 4),
        (0, u32::MAX, 1),
    ] {
        aim(&mut function, bar, offset, length);
        function.write_config(access + DATA_FIELD, &[0; 4]);
        assert_eq!(config(&mut function, access + DATA_FIELD), 0);
        assert_eq!(function.session.status(), 1, "{offset:#x}");
    }
}

#[test]
fn fields_are_accessed_as_a_whole() {
    let (mut function, _) = function();
    let read = |function: &mut PciTransport, offset, bytes: usize| {
        let mut data = vec![0xa5; bytes];
        function.read(offset, &mut data);
        data
    };
    assert_eq!(read(&mut function, common::NUM_QUEUES, 2), [1, 0]);
    assert_eq!(read(&mut function, common::QUEUE_SIZE, 2), [64, 0]);
    for (offset, bytes) in [
        (0x12, 1),
        (0x11, 2),
        (0x14, 2),
        (0x18, 4),
        (0x01, 4),
        (0x38, 4),
        (0x6000, 8),
        (0x7ffc, 4),
    ] {
        assert_eq!(
            read(&mut function, offset, bytes),
            vec![0; bytes],
            "{offset:#x}"
        );
    }
    let _ = function.write(common::STATUS, &[1]);
    let _ = function.write(common::STATUS, &[0; 4]);
    assert_eq!(
        read(&mut function, common::STATUS, 1),
        [1],
        "no field of four"
    );
    let _ = function.write(common::QUEUE_SELECT, &[1, 0]);
    assert_eq!(
        read(&mut function, common::QUEUE_SIZE, 2),
        [0, 0],
        "there is no queue 1"
    );
}

#[test]
fn vectors_are_those_that_there_are() {
    let (mut function, told) = function();
    let vector = |function: &mut PciTransport, offset, value: u16| {
        let _ = function.write(offset, &value.to_le_bytes());
        let mut data = [0; 2];
        function.read(offset, &mut data);
        u16::from_le_bytes(data)
    };
    assert_eq!(vector(&mut function, common::QUEUE_VECTOR, 1), 1);
    assert_eq!(
        vector(&mut function, common::QUEUE_VECTOR, 2),
        messages::NONE
    );
    assert_eq!(vector(&mut function, common::CONFIG_VECTOR, 0), 0);
    // Without messages a driver asks, and its question is answered once.
    function.messages.used_buffers(0);
    function.messages.config_changed();
    let mut status = [0];
    function.read(ISR, &mut status);
    assert_eq!(status, [3]);
    function.read(ISR, &mut status);
    assert_eq!(status, [0]);
    let msix = function.msix;
    function.write_config(msix + 2, &[0, 0x80]);
    let _ = function.write(VECTORS, &0xfee0_0000u64.to_le_bytes());
    let _ = function.write(VECTORS + 8, &0x51u64.to_le_bytes());
    function.messages.config_changed();
    function.messages.used_buffers(0);
    assert_eq!((told[0].take().len(), told[1].take().len()), (1, 0));
    function.read(ISR, &mut status);
    assert_eq!(status, [0]);
    // A reset takes them away.
    let _ = function.write(common::STATUS, &[0]);
    function.messages.config_changed();
    assert!(told[0].take().is_empty());
}

/// A doorbell that knows where it is.
struct Bell {
    place: Arc<AtomicU64>,
    at: Arc<Mutex<Vec<u64>>>,
}

impl Doorbell for Bell {
    fn connect(&mut self, _queue: u32, _event: &Event) -> io::Result<()> {
        self.at
            .lock()
            .unwrap()
            .push(self.place.load(Ordering::Acquire));
        Ok(())
    }

    fn disconnect(&mut self, _queue: u32, _event: &Event) {
        self.at.lock().unwrap().clear();
    }
}

#[test]
fn the_doorbell_moves_with_the_registers() {
    let (function, _) = function();
    let at = Arc::new(Mutex::new(Vec::new()));
    let bell = at.clone();
    let mut function = function.with_doorbell(|place| Box::new(Bell { place, at: bell }));
    let at = || at.lock().unwrap().clone();
    function.write_config(4, &[6, 0]);
    assert!(at().is_empty(), "the driver is not ready");
    for status in [1, 3] {
        let _ = function.write(common::STATUS, &[status]);
    }
    let _ = function.write(common::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes());
    let _ = function.write(common::DRIVER_FEATURE, &1u32.to_le_bytes());
    let _ = function.write(common::STATUS, &[11]);
    for (field, address) in [
        (common::QUEUE_DESC, 0x1000u64),
        (common::QUEUE_DRIVER, 0x2000),
        (common::QUEUE_DEVICE, 0x3000),
    ] {
        let _ = function.write(field, &address.to_le_bytes());
    }
    let _ = function.write(common::QUEUE_ENABLE, &[1, 0]);
    let _ = function.write(common::STATUS, &[15]);
    assert_eq!(at(), [0xe000_8000]);
    function.write_config(0x10, &0xe010_0000u32.to_le_bytes());
    assert_eq!(at(), [0xe010_0000]);
    function.write_config(4, &[0, 0]);
    assert_eq!(at(), [NOWHERE]);
    function.write_config(4, &[2, 0]);
    assert_eq!(at(), [0xe010_0000]);
    let _ = function.write(common::STATUS, &[0]);
    assert!(at().is_empty());
}

#[test]
fn answers_come_with_the_queues_message() {
    fake::over_pci(|| {
        let mut driver = FakeDriver::ready(device());
        driver.send(0, &[(BUFFERS, 32, WRITE)]);
        assert_eq!(driver.used(0), (0, 32));
        let since = std::time::Instant::now();
        while driver.line.take() == 0 {
            assert!(since.elapsed().as_secs() < 10);
            std::thread::yield_now();
        }
        assert_eq!(driver.read(0x60), 0, "nobody has to ask");
    });
}

#[test]
fn a_vector_that_is_lent_stays_and_without_messages_the_driver_is_told_to_look() {
    let ram = GuestRam::allocate(&[(GuestAddress(0), 1 << 20)], Backing::default()).unwrap();
    let line = Event::new().unwrap();
    let mut function = fake::function(device(), ram, &line);
    let messages = function.messages.clone();
    let mut take = |event: &Event| {
        event.signal();
        Ok(())
    };
    assert!(!messages.lend(0, &mut take).unwrap(), "no vector");
    messages.set_vector(Some(0), 1);
    assert!(messages.lend(0, &mut take).unwrap());
    assert_eq!(line.take(), 1);
    messages.set_vector(Some(0), 0);
    assert_eq!(messages.vector(Some(0)), 1);
    let status = |function: &mut PciTransport| {
        let mut data = [0];
        function.read(ISR, &mut data);
        data[0]
    };
    assert_eq!(status(&mut function), 0);
    let msix = function.msix;
    function.write_config(msix + 2, &[0, 0]);
    assert_eq!([(); 2].map(|()| status(&mut function)), [1, 1]);
    messages.reset();
    assert_eq!(status(&mut function), 0);
    messages.set_vector(Some(0), 0);
    assert_eq!(messages.vector(Some(0)), 0);
}
