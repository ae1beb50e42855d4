//! Who makes room when all seats are taken, so that nobody can keep others out by taking many.

use super::source::Source;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A source that has as much as others gets a further seat only at the expense of what was silent for this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// One seat that is taken.
pub(super) struct Taken<K> {
    pub key: K,
    pub source: Source,
    /// Since when nothing was heard of it.
    pub silent_since: Instant,
}

struct Share<K> {
    count: usize,
    key: K,
    silent_since: Instant,
}

/// Chooses the seat that a newcomer gets when none is free; none if it has to go.
///
/// A newcomer whose source has fewer seats than another gets the one of that other source that was silent the
/// longest. Who is gone waits for no answer, so its seats are the first, whoever comes, and it gets no others.
/// Otherwise a newcomer gets the one of its own source, or if that has none, of those with the most, that was
/// silent the longest; but only if that was for some time.
pub(super) fn make_room<K: Copy + Eq + Hash>(
    taken: impl Iterator<Item = Taken<K>>,
    newcomer: Source,
    now: Instant,
) -> Option<K> {
    let mut shares: HashMap<Source, Share<K>> = HashMap::new();
    for seat in taken {
        let share = shares.entry(seat.source).or_insert(Share {
            count: 0,
            key: seat.key,
            silent_since: seat.silent_since,
        });
        share.count += 1;
        if seat.silent_since < share.silent_since {
            (share.key, share.silent_since) = (seat.key, seat.silent_since);
        }
    }
    let own = shares.get(&newcomer);
    let patient = |share: &Share<K>| {
        let silent = now.saturating_duration_since(share.silent_since);
        (silent >= PATIENCE).then_some(share.key)
    };
    match shares.get(&Source::Gone) {
        Some(gone) if newcomer != Source::Gone => return Some(gone.key),
        gone if newcomer == Source::Gone => return gone.and_then(patient),
        _ => {}
    }
    let most = shares
        .values()
        .max_by_key(|share| (share.count, std::cmp::Reverse(share.silent_since)))?;
    // One more, and the newcomer's source would have no more than the other keeps.
    if own.map_or(0, |own| own.count) + 1 < most.count {
        return Some(most.key);
    }
    patient(own.unwrap_or(most))
}

/// Whose turn it is when a seat is free, as a place among those who wait: of the sources with the fewest seats, whoever
/// waits the longest. Who is gone comes last.
pub(super) fn next_in_line(
    seats: impl Iterator<Item = Source>,
    waiting: impl Iterator<Item = Source>,
) -> Option<usize> {
    let mut counts: HashMap<Source, usize> = HashMap::new();
    for source in seats {
        *counts.entry(source).or_default() += 1;
    }
    let has = |source: &Source| (*source == Source::Gone, counts.get(source).copied());
    let line = waiting.enumerate();
    line.min_by_key(|(_, source)| has(source))
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for whoever is gone.
    const GONE: u32 = 99;

    /// Seats of users, each with the seconds for which it was silent.
    fn room(seats: &[(u32, u64)], newcomer: u32) -> Option<usize> {
        let source = |user| match user {
            GONE => Source::Gone,
            user => Source::User(user),
        };
        let now = Instant::now() + Duration::from_secs(1000);
        let seats = seats.iter().enumerate();
        let taken = seats.map(|(key, (user, silent))| Taken {
            key,
            source: source(*user),
            silent_since: now - Duration::from_secs(*silent),
        });
        make_room(taken, source(newcomer), now)
    }

    #[test]
    fn who_has_the_most_makes_room_for_who_has_less() {
        let seats = [(1, 0), (1, 3), (1, 2), (2, 500)];
        assert_eq!(room(&seats, 3), Some(1), "the longest silent of user 1");
        assert_eq!(room(&seats, 2), Some(1), "and not of user 2, who has less");
        assert_eq!(room(&seats, 1), None, "user 1 has enough");
        let seats = [(1, 0), (1, 11), (1, 2), (2, 500)];
        assert_eq!(room(&seats, 1), Some(1), "in place of its own");
    }

    #[test]
    fn equals_do_not_push_each_other_out() {
        let seats = [(1, 5), (1, 7), (2, 5), (2, 6)];
        assert_eq!(room(&seats, 1), None);
        assert_eq!(room(&seats, 2), None);
        assert_eq!(room(&seats, 3), Some(1), "who has none gets one");
        let singles = [(1, 5), (2, 7), (3, 6)];
        assert_eq!(room(&singles, 4), None);
        let silent = [(1, 15), (2, 17), (3, 16)];
        assert_eq!(room(&silent, 4), Some(1));
        assert_eq!(room(&[], 1), None);
    }

    #[test]
    fn who_is_gone_makes_room_and_gets_none() {
        let seats = [(1, 500), (1, 3), (1, 2), (GONE, 0), (GONE, 1)];
        assert_eq!(room(&seats, 1), Some(4), "in place of one who is gone");
        assert_eq!(room(&seats, 2), Some(4));
        assert_eq!(room(&seats, GONE), None);
        let silent = [(1, 500), (1, 500), (1, 500), (GONE, 9), (GONE, 11)];
        assert_eq!(room(&silent, GONE), Some(4));
        assert_eq!(room(&silent[..3], GONE), None);
    }

    #[test]
    fn a_free_seat_is_for_who_has_the_fewest() {
        let next = |seats: &[u32], waiting: &[Source]| {
            let seats = seats.iter().map(|user| Source::User(*user));
            next_in_line(seats, waiting.iter().copied())
        };
        let [first, second, third] = [1, 2, 3].map(Source::User);
        assert_eq!(next(&[1, 1, 2], &[first, first, second]), Some(2));
        assert_eq!(next(&[1, 1, 2], &[second, third, third]), Some(1));
        assert_eq!(next(&[1, 2], &[second, first]), Some(0), "who came first");
        assert_eq!(next(&[1, 2], &[Source::Gone, first]), Some(1));
        assert_eq!(next(&[1], &[Source::Gone]), Some(0));
        assert_eq!(next(&[1], &[]), None);
    }

    #[test]
    fn shares_settle() {
        // Two users who take what they get end with a half each, whoever was first.
        let mut seats = vec![(1, 1); 64];
        for round in 0..200 {
            if let Some(index) = room(&seats, 2) {
                seats[index] = (2, 1);
            }
            if round % 2 == 0
                && let Some(index) = room(&seats, 1)
            {
                seats[index] = (1, 1);
            }
        }
        let second = seats.iter().filter(|(user, _)| *user == 2).count();
        assert_eq!(second, 32);
    }
}
