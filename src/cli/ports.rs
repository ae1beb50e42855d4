//! Published ports: as they were asked for, as the host has chosen them, and as docker shows them.

use kvmlet_manager::{Book, SUSPENDED, State, View, Whereabouts};
use kvmlet_spec::{HostPort, PortMapping};
use kvmlet_vmm::snapshot::noted;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long all supervisors together may take to tell what a list shows.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever knows which ports lead to instances.
pub(super) struct Ports<'a> {
    book: &'a Book,
    deadline: Instant,
}

impl<'a> Ports<'a> {
    /// Of the instances of a book, for one list.
    pub fn of(book: &'a Book) -> Self {
        Self {
            book,
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// The ports that lead to an instance, as `-p` takes them: as they were asked for, unless the host was to choose one. Then its
    /// supervisor tells, while it runs, and in time; or the file of one whose ports are held while it is suspended.
    pub fn published(&self, view: &View) -> Vec<String> {
        let asked = asked(view);
        let is_open = |text: &String| {
            let port = text.parse::<PortMapping>();
            port.is_ok_and(|port| !matches!(port.host, HostPort::Fixed(_)))
        };
        if !asked.iter().any(is_open) {
            return asked;
        }
        let known = match view.sleeps() {
            true => self.held(view),
            false => runs(view).then(|| self.told(view)).flatten(),
        };
        known.unwrap_or(asked)
    }

    /// Which ports are held for an instance that goes on when somebody comes for it.
    pub fn held(&self, view: &View) -> Option<Vec<String>> {
        let instance = self.book.find(view.id.as_str()).ok()?;
        let note = noted(&instance.directory().path().join(SUSPENDED)).ok()?;
        Some(Whereabouts::of(note.as_deref()).published)
    }

    fn told(&self, view: &View) -> Option<Vec<String>> {
        let left = self.deadline.checked_duration_since(Instant::now())?;
        let instance = self.book.find(view.id.as_str()).ok()?;
        let mut control = instance.control(view.called()).ok()?;
        control.published(left).ok()
    }
}

/// What this user calls the instance to which such a port leads already, if there is one.
pub(super) fn called_at(port: &PortMapping) -> Option<String> {
    let book = Book::of_user().ok()?;
    let listing = book.list().ok()?;
    let ports = Ports::of(&book);
    let leads = |view: &&View| {
        let published = ports.published(view).into_iter();
        let mut published = published.filter_map(|text| text.parse::<PortMapping>().ok());
        (runs(view) || view.sleeps()) && published.any(|taken| taken.collides_with(port))
    };
    let found = listing.instances.iter().find(leads)?;
    Some(found.called().to_owned())
}

fn runs(view: &View) -> bool {
    matches!(view.state, State::Running | State::Paused)
}

/// The ports that were asked to be published.
fn asked(view: &View) -> Vec<String> {
    let nets = view.asked.config["nets"].as_array();
    let published = nets
        .into_iter()
        .flatten()
        .filter_map(|net| net["publish"].as_array());
    published
        .flatten()
        .map(|port| port.as_str().map_or(port.to_string(), Into::into))
        .collect()
}

/// The guest's port as docker writes it.
pub(super) fn guest(port: &PortMapping) -> String {
    format!("{}/{}", port.guest, port.protocol.name())
}

/// Where on the host it is reached. Of one that is not chosen yet there is nothing to be said.
pub(super) fn ends(port: &PortMapping) -> impl Iterator<Item = String> + use<> {
    let number = match port.host {
        HostPort::Fixed(number) => Some(number.get()),
        _ => None,
    };
    let addresses = port.address.addresses().into_iter();
    addresses
        .filter_map(move |address| Some(std::net::SocketAddr::new(address, number?).to_string()))
}

/// The ports of the host that lead to one cannot lead to another.
pub(super) fn leave_to_host(config: &mut Value) {
    // To name a key that is missing would make it.
    let nets = config.get_mut("nets").and_then(Value::as_array_mut);
    for net in nets.into_iter().flatten() {
        let ports = net.get_mut("publish").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            let parsed = port.as_str().and_then(|text| text.parse().ok());
            if let Some(mapping) = parsed {
                let host = HostPort::Any;
                let other = PortMapping { host, ..mapping };
                *port = json!(other.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_as_docker_tells_them() {
        let told = |text: &str| {
            let port: PortMapping = text.parse().unwrap();
            (guest(&port), ends(&port).collect::<Vec<_>>())
        };
        assert_eq!(
            told("8080:80"),
            (
                "80/tcp".into(),
                vec!["0.0.0.0:8080".into(), "[::]:8080".into()]
            )
        );
        assert_eq!(
            told("127.0.0.1:53:53/udp"),
            ("53/udp".into(), vec!["127.0.0.1:53".into()])
        );
        assert_eq!(told("80").1, [""; 0]);
    }

    #[test]
    fn the_host_chooses_the_ports_of_a_clone() {
        let mut config = json!({"nets": [{"publish": ["127.0.0.1:8080:80", "53:53/udp"]}, {"tap": "t"}], "memory": "64M"});
        leave_to_host(&mut config);
        let ports = config["nets"][0]["publish"].as_array().unwrap();
        let ports: Vec<PortMapping> = ports
            .iter()
            .map(|port| port.as_str().unwrap().parse().unwrap())
            .collect();
        let ends: Vec<_> = ports
            .iter()
            .map(|port| (port.guest.get(), port.host))
            .collect();
        assert_eq!(ends, [(80, HostPort::Any), (53, HostPort::Any)]);
        let asked: PortMapping = "127.0.0.1:8080:80".parse().unwrap();
        assert_eq!(ports[0].address, asked.address);
        assert_eq!(config["nets"][1], json!({"tap": "t"}));
    }
}
