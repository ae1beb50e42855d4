//! All connections of a device, by number and by ports.

use super::budget::{Budget, MOST_CONNECTIONS};
use super::connection::{Connection, Ports};
use std::collections::BTreeMap;

/// Ports of the host that connections from the host have, as Firecracker's: no program listens on them.
const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = u32::MAX >> 1;

/// A connection's number: its place, and how many were made before. None is used twice while the VM lives.
pub(super) type Token = u64;

/// Numbers that go on where the queues of a device begin anew: what is late belongs to nobody then.
#[derive(Debug)]
pub(super) struct Numbers {
    made: u32,
    port: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            made: 0,
            port: FIRST_PORT,
        }
    }
}

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Option<(Token, Connection)>>,
    free: Vec<usize>,
    /// Ordered, since a hash would take random numbers.
    by_ports: BTreeMap<Ports, Token>,
    budget: Budget,
}

impl Table {
    /// Adds a connection, given the size of its buffer; none if there are too many.
    pub fn insert(
        &mut self,
        numbers: &mut Numbers,
        make: impl FnOnce(u32) -> Connection,
    ) -> Option<Token> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.slots.len() < MOST_CONNECTIONS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        // Never zero, and so beyond all that the numbers of other descriptors are.
        numbers.made = numbers.made.wrapping_add(1).max(1);
        let token = Token::from(numbers.made) << 32 | place as u64;
        let connection = make(self.budget.promise());
        self.by_ports.insert(connection.ports(), token);
        self.slots[place] = Some((token, connection));
        Some(token)
    }

    /// A port of the host for a connection to one of the guest's, which no other has and none had a while ago.
    pub fn free_port(&self, numbers: &mut Numbers, guest: u32) -> u32 {
        loop {
            let host = numbers.port;
            numbers.port = match host {
                LAST_PORT => FIRST_PORT,
                host => host + 1,
            };
            // There are more ports than connections.
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }

    pub fn find(&self, ports: Ports) -> Option<Token> {
        self.by_ports.get(&ports).copied()
    }

    pub fn get(&mut self, token: Token) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(token as u32 as usize)?.as_mut()?;
        (slot.0 == token).then_some(&mut slot.1)
    }

    /// Its ports may be used anew.
    pub fn free_ports(&mut self, token: Token, ports: Ports) {
        if self.by_ports.get(&ports) == Some(&token) {
            self.by_ports.remove(&ports);
        }
    }

    pub fn remove(&mut self, token: Token) -> Option<Connection> {
        self.get(token)?;
        let place = token as u32 as usize;
        let (_, connection) = self.slots[place].take()?;
        self.free_ports(token, connection.ports());
        self.budget.take_back(connection.buffer());
        self.free.push(place);
        Some(connection)
    }

    /// The numbers of all.
    pub fn tokens(&self) -> Vec<Token> {
        let slots = self.slots.iter().flatten();
        slots.map(|(token, _)| *token).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn insert(table: &mut Table, numbers: &mut Numbers, host: u32, guest: u32) -> Option<Token> {
        let ports = Ports { host, guest };
        table.insert(numbers, |buffer| {
            Connection::asked(ports, buffer, &Default::default(), Instant::now())
        })
    }

    #[test]
    fn connections_are_limited_and_numbers_are_not_used_twice() {
        let (mut table, mut numbers) = (Table::default(), Numbers::default());
        let mut tokens: Vec<Token> = (0..MOST_CONNECTIONS as u32)
            .map(|port| insert(&mut table, &mut numbers, 1, port).unwrap())
            .collect();
        assert_eq!(insert(&mut table, &mut numbers, 2, 2), None);
        assert_eq!(table.len(), MOST_CONNECTIONS);
        let last = tokens.pop().unwrap();
        assert!(table.remove(last).is_some() && table.remove(last).is_none());
        let again = insert(&mut table, &mut numbers, 1, MOST_CONNECTIONS as u32 - 1).unwrap();
        assert!(again != last && table.get(last).is_none() && table.get(again).is_some());
        // After a reset of the device, too.
        let (mut table, number) = (Table::default(), numbers.made);
        let first = insert(&mut table, &mut numbers, 1, 1).unwrap();
        assert_eq!(first, Token::from(number + 1) << 32);
    }

    #[test]
    fn ports_of_the_host_are_not_used_again_soon() {
        let (mut table, mut numbers) = (Table::default(), Numbers::default());
        let first = table.free_port(&mut numbers, 7);
        assert_eq!(first, FIRST_PORT);
        assert_eq!(table.free_port(&mut numbers, 7), first + 1);
        // Around, and one that is in use is left out, for its guest's port.
        numbers.port = LAST_PORT;
        insert(&mut table, &mut numbers, FIRST_PORT, 7).unwrap();
        assert_eq!(table.free_port(&mut numbers, 7), LAST_PORT);
        assert_eq!(table.free_port(&mut numbers, 7), FIRST_PORT + 1);
        numbers.port = FIRST_PORT;
        assert_eq!(table.free_port(&mut numbers, 8), FIRST_PORT);
    }

    #[test]
    fn ports_can_be_had_again_before_the_connection_is_gone() {
        let (mut table, mut numbers) = (Table::default(), Numbers::default());
        let ports = Ports { host: 1, guest: 2 };
        let old = insert(&mut table, &mut numbers, 1, 2).unwrap();
        table.free_ports(old, ports);
        assert_eq!(table.find(ports), None);
        let new = insert(&mut table, &mut numbers, 1, 2).unwrap();
        table.remove(old);
        assert_eq!(table.find(ports), Some(new));
    }
}
