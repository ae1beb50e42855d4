//! Which network a guest gets: one that no route of the host and no other guest touches.

use super::lease::Leases;
use super::link::Route;
use super::look::Look;
use super::record::{Record, TAP_PREFIX};
use super::taken::{PREFIX, RANGES, Taken, ends};
use super::{Error, link};
use crate::config::Subnet;
use kvmlet_sys::environment;
use std::net::Ipv4Addr;

/// A network for a guest beside those that live: the given one, or one that is free. The leases are locked.
pub(super) fn choose_network(
    leases: &mut Leases,
    wanted: Option<Subnet>,
    look: &mut Look,
) -> Result<Subnet, Error> {
    if let Some(subnet) = wanted {
        return check_network(leases, subnet).map(|()| subnet);
    }
    let taken = leases.taken()?;
    if let Some(subnet) = look_up(&taken, look) {
        return Ok(subnet);
    }
    let routes = link::routes().map_err(|source| Error::Routes { source })?;
    let (subnet, range) = choose(&taken, &routes)?;
    look.now.range = Some(range);
    Ok(subnet)
}

/// How many networks are looked up.
const TRIES: usize = 16;

/// The first network of the range that no route led to when all were looked at, if no route leads to it now.
fn look_up(taken: &Taken, look: &mut Look) -> Option<Subnet> {
    let range = look
        .before
        .as_ref()?
        .range
        .filter(|at| *at < RANGES.len())?;
    let lookup = look.lookup.as_mut()?;
    if !lookup.main_table_decides().ok()? {
        return None;
    }
    let mut networks = taken.free(range).take(TRIES);
    networks.find(|subnet| lookup.is_free(*subnet).unwrap_or(false))
}

/// Can a guest have this network beside those that live? The leases are locked.
pub(super) fn check_network(leases: &mut Leases, subnet: Subnet) -> Result<(), Error> {
    let ours = |subnet: &Subnet| RANGES.iter().any(|range| is_within(*subnet, *range));
    if !ours(&subnet) && environment::is_privileged_by_file() {
        // Whoever may choose decides where the packets of all users go.
        return Err(Error::SubnetOfOthers { subnet });
    }
    let routes = link::routes().map_err(|source| Error::Routes { source })?;
    check(subnet, leases.live()?, &routes)
}

/// Is a network free that was asked for?
fn check(subnet: Subnet, live: &[Record], routes: &[Route]) -> Result<(), Error> {
    let of = |record: &Record| record.subnet.parse::<Subnet>().ok();
    let holder = live
        .iter()
        .find(|it| of(it).is_some_and(|other| overlap(other, subnet)));
    if let Some(holder) = holder {
        let by = holder.pid;
        return Err(Error::SubnetTaken { subnet, by });
    }
    let overlaps = |route: &&Route| !route.is_default() && route.overlaps(subnet);
    match routes.iter().find(overlaps) {
        Some(route) => Err(Error::SubnetRouted {
            subnet,
            route: route.to_string(),
            is_left: route.interface.starts_with(TAP_PREFIX)
                && !live.iter().any(|record| record.tap == route.interface),
        }),
        None => Ok(()),
    }
}

/// A network, and its range.
fn choose(taken: &Taken, routes: &[Route]) -> Result<(Subnet, usize), Error> {
    let mut busy: Vec<(u32, u32)> = taken.ends().collect();
    let routed = routes.iter().filter(|route| !route.is_default());
    busy.extend(routed.map(|route| {
        let first = route.destination & route.mask;
        (first, first | !route.mask)
    }));
    busy.sort_unstable();
    let mut in_the_way = None;
    for (number, (start, prefix)) in RANGES.into_iter().enumerate() {
        let range = Subnet::new(start, prefix);
        let foreign = routes.iter().find(|route| {
            !route.is_default()
                && !route.interface.starts_with(TAP_PREFIX)
                && range.is_some_and(|range| route.overlaps(range))
        });
        if let Some(route) = foreign {
            in_the_way = Some(route.to_string());
            continue;
        }
        if let Some(free) = range.and_then(|range| first_free(ends(range), &busy)) {
            return Ok((free, number));
        }
    }
    Err(Error::NoSubnet { route: in_the_way })
}

/// The first network of a range that nothing of what is busy touches, which is in order.
fn first_free((mut at, end): (u32, u32), busy: &[(u32, u32)]) -> Option<Subnet> {
    const LAST: u32 = u32::MAX >> PREFIX;
    for (first, last) in busy.iter().copied() {
        if first > at | LAST {
            break;
        }
        if last >= at {
            at = (last | LAST).checked_add(1)?;
        }
    }
    let is_within = at | LAST <= end;
    is_within.then(|| Subnet::new(Ipv4Addr::from_bits(at), PREFIX))?
}

/// A network for a guest whose network nobody but itself sees: from the end of a range, where leases come last, and if
/// possible of a range that this host has no route to.
pub(super) fn beside_leases(number: u32) -> Subnet {
    let routes = link::routes().unwrap_or_default();
    let is_foreign = |range: Subnet| {
        let mut routes = routes.iter().filter(|route| !route.is_default());
        routes.any(|route| !route.interface.starts_with(TAP_PREFIX) && route.overlaps(range))
    };
    let mut ranges = RANGES.iter().copied();
    let unused = ranges.find(|(start, prefix)| {
        Subnet::new(*start, *prefix).is_some_and(|range| !is_foreign(range))
    });
    let (start, prefix) = unused.unwrap_or(RANGES[0]);
    let networks = 1 << (PREFIX - prefix);
    let network = networks - 1 - number % networks;
    let address = Ipv4Addr::from_bits(start.to_bits() | network << (32 - PREFIX));
    Subnet::new(address, PREFIX).unwrap_or_else(|| unreachable!("ranges are of networks for hosts"))
}

fn is_within(subnet: Subnet, (start, prefix): (Ipv4Addr, u8)) -> bool {
    let range = Subnet::new(start, prefix);
    range.is_some_and(|range| subnet.prefix() >= prefix && overlap(subnet, range))
}

fn overlap(a: Subnet, b: Subnet) -> bool {
    (a.address().to_bits() ^ b.address().to_bits()) & a.mask() & b.mask() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str, interface: &str) -> Route {
        let subnet: Subnet = text.parse().unwrap();
        Route {
            interface: interface.into(),
            destination: subnet.address().to_bits(),
            mask: subnet.mask(),
        }
    }

    #[test]
    fn networks_avoid_leases_and_routes() {
        let records = |taken: &[&str]| -> Vec<Record> {
            let number = |at: usize| u32::try_from(at).unwrap() + 7;
            let all = taken.iter().enumerate();
            all.map(|(at, text)| Record::of(text, number(at))).collect()
        };
        let choice = |taken: &[&str], routes: &[Route]| {
            let taken = Taken::of(records(taken).iter());
            choose(&taken, routes).map(|(subnet, _)| subnet.to_string())
        };
        assert_eq!(choice(&[], &[]).unwrap(), "10.107.0.0/30");
        assert_eq!(choice(&["10.107.0.0/30"], &[]).unwrap(), "10.107.0.4/30");
        assert_eq!(choice(&["10.107.0.0/29"], &[]).unwrap(), "10.107.0.8/30");
        // What is free again between others comes first, whatever order they are in.
        let around = ["10.107.0.16/29", "10.107.0.0/30", "10.107.0.8/30"];
        assert_eq!(choice(&around, &[]).unwrap(), "10.107.0.4/30");
        let around = [&around[..], &["10.107.0.4/30", "10.107.0.12/30"]].concat();
        assert_eq!(choice(&around, &[]).unwrap(), "10.107.0.24/30");
        assert_eq!(choice(&["10.107.0.0/16"], &[]).unwrap(), "172.30.0.0/30");
        let all = ["10.107.0.0/16", "172.0.0.0/8", "192.168.0.0/16"];
        assert!(choice(&all, &[]).is_err());
        let ours = route("10.107.0.0/30", "kvmlet0");
        assert_eq!(choice(&[], &[ours]).unwrap(), "10.107.0.4/30");
        let vpn = route("10.0.0.0/8", "tun0");
        assert_eq!(
            choice(&[], std::slice::from_ref(&vpn)).unwrap(),
            "172.30.0.0/30"
        );
        let all = [
            vpn,
            route("172.16.0.0/12", "a"),
            route("192.168.0.0/16", "b"),
        ];
        let error = choice(&[], &all).unwrap_err().to_string();
        assert!(error.contains("192.168.0.0/16 on b"), "{error}");
        // What is asked for may be anywhere but in the way.
        let asked = "10.107.9.0/24".parse().unwrap();
        assert!(check(asked, &[], &all[1..]).is_ok());
        assert!(check(asked, &[], &all).is_err());
        let taken = records(&["10.107.9.4/30"]);
        let error = check(asked, &taken, &[]).unwrap_err();
        assert!(matches!(error, Error::SubnetTaken { by: 7, .. }));
        // An interface of kvmlet's that no guest has is about to go.
        let ours = [route("10.107.9.0/30", "kvmlet3")];
        let taken = [Record::of("10.1.0.0/30", 3)];
        for (live, left) in [(&taken[..], false), (&[], true)] {
            let error = check(asked, live, &ours).unwrap_err();
            assert!(matches!(error, Error::SubnetRouted { is_left, .. } if is_left == left));
        }
    }

    #[test]
    fn ranges_hold_networks_as_a_whole() {
        let within = |text: &str| {
            let subnet = text.parse().unwrap();
            RANGES.iter().any(|range| is_within(subnet, *range))
        };
        assert!(within("10.107.255.252/30") && within("192.168.107.0/24"));
        assert!(!within("10.0.0.0/8") && !within("1.1.1.0/30") && !within("192.168.106.0/23"));
    }
}
