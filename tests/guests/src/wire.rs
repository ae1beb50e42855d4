//! A virtio network device, as the `smoltcp` stack has it.

use crate::boot_info::BootInfo;
use crate::virtio::Identity;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::str::FromStr;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};
use virtio_drivers::Error;
use virtio_drivers::device::net::{RxBuffer, VirtIONet};
use virtio_drivers::transport::mmio::MmioTransport;

const QUEUE_SIZE: usize = 64;
/// A virtio_net_hdr and a frame.
const BUFFER_BYTES: usize = 2048;

type Net = Rc<RefCell<VirtIONet<Identity, MmioTransport<'static>, QUEUE_SIZE>>>;

/// The interface as the stack sees it.
pub struct Wire(Net);

impl Wire {
    /// The interface at a device, which nobody else drives.
    ///
    /// # Errors
    /// When it is no such device.
    pub fn new(device: MmioTransport<'static>) -> Result<Self, Error> {
        let net = VirtIONet::new(device, BUFFER_BYTES)?;
        Ok(Self(Rc::new(RefCell::new(net))))
    }

    /// Its own address.
    pub fn hardware_address(&self) -> EthernetAddress {
        EthernetAddress(self.0.borrow().mac_address())
    }
}

/// A frame that has come.
pub struct Received(RxBuffer, Net);

/// Room for a frame.
pub struct Sending(Net);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending)> {
        let received = self.0.borrow_mut().receive();
        match received {
            Ok(buffer) => Some((Received(buffer, self.0.clone()), Sending(self.0.clone()))),
            Err(Error::NotReady) => None,
            Err(error) => panic!("receive: {error}"),
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending> {
        Some(Sending(self.0.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(self.0.packet());
        if let Err(error) = self.1.borrow_mut().recycle_rx_buffer(self.0) {
            panic!("recycle: {error}");
        }
        result
    }
}

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut net = self.0.borrow_mut();
        let mut buffer = net.new_tx_buffer(length);
        let result = f(buffer.packet_mut());
        if let Err(error) = net.send(buffer) {
            panic!("send: {error}");
        }
        result
    }
}

/// What kvmlet's init is told of its interface.
pub struct Addresses {
    /// Its own.
    pub own: IpCidr,
    /// Of the host.
    pub gateway: Ipv4Address,
    /// Who is asked for names.
    pub servers: Vec<IpAddress>,
}

impl Addresses {
    /// By the command line, if they are there.
    pub fn of(info: &BootInfo) -> Option<Self> {
        let mut fields = info.option("kvmlet.net")?.split(',').skip(1);
        let own = IpCidr::from_str(fields.next()?).ok()?;
        let (mut gateway, mut servers) = (None, Vec::new());
        for field in fields {
            match field.split_once('=')? {
                ("gateway", address) => gateway = Ipv4Address::from_str(address).ok(),
                ("dns", address) => servers.push(IpAddress::from_str(address).ok()?),
                _ => {}
            }
        }
        Some(Self {
            own,
            gateway: gateway?,
            servers,
        })
    }
}
