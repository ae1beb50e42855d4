//! Whether a service is ready: healthy, if its health is asked for; or else where a published port is served; or else it runs,
//! as its guest tells.

use crate::Failed;
use crate::instances::{is_alive, look_again};
use kvmlet_control::{Order, Report};
use kvmlet_manager::{Book, Instance, State, View};
use kvmlet_spec::{NetworkSpec, PortMapping, Protocol};
use kvmlet_sys::standard_error;
use std::io::Read;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long a service may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// After how long it is told that somebody waits.
const SILENCE: Duration = Duration::from_secs(5);
/// Between two looks at what is noted of it, or two tries of a port.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a guest may take to answer a try.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to let go of a connection that is over.
const PARTING: Duration = Duration::from_secs(2);
/// How long a connection stays that somebody serves, where who is connected to is not the guest.
const HELD: Duration = Duration::from_secs(1);

/// Waits until the service of an instance is ready, which is told where somebody waits; returns what is known of that then.
pub(super) fn wait(book: &Book, instance: &Instance, mut told: bool) -> Result<View, Failed> {
    let begun = Instant::now();
    let deadline = begun + PATIENCE;
    let mut port = None;
    loop {
        // One that was to be removed may be gone.
        let view = look_again(book, instance).ok();
        let view = view.filter(|view| is_alive(view) || view.record.run == 0);
        let view = view.ok_or_else(|| Failed::new("the service has ended before it was ready"))?;
        if view.state == State::Running {
            let is_ready = match (&view.asked.health, &mut port) {
                (Some(_), _) => view.record.health.as_deref() == Some("healthy"),
                (None, None) => {
                    port = Some(served(instance, &view)?);
                    continue;
                }
                (None, Some(port)) => port.as_ref().is_none_or(Port::answers),
            };
            if is_ready {
                return Ok(view);
            }
        }
        if told && begun.elapsed() >= SILENCE {
            told = false;
            let what = match view.asked.health {
                Some(_) => "is healthy",
                None => "serves its first published port",
            };
            standard_error::say(format_args!(
                "kvmlet: `{}` runs; a template is kept when it {what}, which may take {} s",
                view.called(),
                PATIENCE.as_secs()
            ));
        }
        if Instant::now() >= deadline {
            let seconds = PATIENCE.as_secs();
            return Err(Failed::new(format!(
                "the service was not ready within {seconds} s"
            )));
        }
        std::thread::sleep(PAUSE);
    }
}

/// A port that is published, of TCP.
struct Port {
    guest: SocketAddr,
    host: Option<SocketAddr>,
    gateway: Option<IpAddr>,
}

/// The first that is published, if there is one.
fn served(instance: &Instance, view: &View) -> Result<Option<Port>, Failed> {
    let mut control = instance.control(view.called())?;
    let published = control.published(ANSWER)?;
    let published = published.iter();
    let mut ports = published.filter_map(|text| text.parse::<PortMapping>().ok());
    let Some(port) = ports.find(|port| port.protocol == Protocol::Tcp) else {
        return Ok(None);
    };
    let told = control.connection().ask(Order::Interfaces, ANSWER);
    let told = told.map_err(Failed::new)?;
    let interfaces = told.into_iter().filter_map(|report| match report {
        Report::Interfaces(all) => Some(all),
        _ => None,
    });
    let specs = interfaces.flatten();
    let mut specs = specs.filter_map(|text| NetworkSpec::from_parameter_value(&text).ok());
    let host = crate::ports::ends(&port).find_map(|end| end.parse::<SocketAddr>().ok());
    Ok(specs.next().map(|spec| Port {
        guest: SocketAddr::new(spec.address, port.guest.get()),
        host: host.map(reachable),
        gateway: spec.gateway,
    }))
}

/// Where this host itself reaches it.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            SocketAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    address
}

impl Port {
    /// Does the service accept there? The relay in front of it accepts in any case, so the guest itself is asked, where it is beside
    /// this host; elsewhere whoever stands in front of it has to keep the connection.
    fn answers(&self) -> bool {
        match (self.is_beside(), self.host) {
            (true, _) => connect(self.guest).is_some_and(|stream| {
                part(stream);
                true
            }),
            (false, Some(host)) => connect(host).is_some_and(is_held),
            (false, None) => true,
        }
    }

    /// Is this host the guest's gateway? Any other way to an address of that name leads to somebody else.
    fn is_beside(&self) -> bool {
        let own = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
            socket.connect(self.guest)?;
            socket.local_addr()
        });
        own.ok().map(|own| own.ip()) == self.gateway && self.gateway.is_some()
    }
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    TcpStream::connect_timeout(&address, ANSWER).ok()
}

/// Ends a connection, so that nothing of it is in a template.
fn part(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(PARTING));
    let mut bytes = [0; 512];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

fn is_held(mut stream: TcpStream) -> bool {
    let _ = stream.set_read_timeout(Some(HELD));
    let held = match stream.read(&mut [0]) {
        Ok(count) => count > 0,
        Err(error) => {
            use std::io::ErrorKind::{TimedOut, WouldBlock};
            matches!(error.kind(), TimedOut | WouldBlock)
        }
    };
    if held {
        part(stream);
    }
    held
}
