//! Tokens by which a guest's program shows that it could ask for one: what is made to fetch an address and nothing else
//! cannot.
//!
//! They are not kept: a token says when it ends, and has a keyed digest of that. So no guest can have this process hold more.

use std::hash::Hasher;
use std::time::Duration;

/// Bytes of a token: its end, its number, and the digest of both.
const BYTES: usize = 32;

/// Who makes tokens and knows them again.
#[derive(Debug)]
pub struct Tokens {
    keys: [(u64, u64); 2],
    made: u64,
}

impl Tokens {
    /// With keys that nobody else has.
    pub fn new(secret: [u8; 32]) -> Self {
        let [a, b, c, d] = words(secret);
        let keys = [(a, b), (c, d)];
        Self { keys, made: 0 }
    }

    /// A token that is good until then, by the clock of who asks.
    pub fn make(&mut self, end: Duration) -> String {
        self.made += 1;
        let end = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        let [first, second] = self.digest(end, self.made);
        let words = [end, self.made, first, second];
        words.map(|word| format!("{word:016x}")).concat()
    }

    /// Was it made here, and has it not ended?
    pub fn know(&self, token: &str, now: Duration) -> bool {
        let Some(bytes) = read(token) else {
            return false;
        };
        let [end, number, digest @ ..] = words(bytes);
        // All of it is compared, however it differs.
        let differs = self.digest(end, number).into_iter().zip(digest);
        let differs = differs.fold(0, |all, (one, other)| all | (one ^ other));
        differs == 0 && now.as_millis() < u128::from(end)
    }

    /// Two of 64 bits each, by SipHash-2-4, which is made for keyed digests of what is short.
    fn digest(&self, end: u64, number: u64) -> [u64; 2] {
        self.keys.map(|(first, second)| {
            #[allow(deprecated)] // as the hash of tables: it has a better name there, and no keys
            let mut hasher = std::hash::SipHasher::new_with_keys(first, second);
            hasher.write(&end.to_be_bytes());
            hasher.write(&number.to_be_bytes());
            hasher.finish()
        })
    }
}

fn words(bytes: [u8; BYTES]) -> [u64; 4] {
    std::array::from_fn(|place| {
        let eight = &bytes[8 * place..8 * place + 8];
        eight
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    })
}

fn read(token: &str) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    let mut digits = token.bytes();
    for byte in &mut bytes {
        for _ in 0..2 {
            let digit = char::from(digits.next()?).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(digit).ok()?;
        }
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_until_it_ends_and_nothing_like_it() {
        let at = Duration::from_secs;
        let mut tokens = Tokens::new([7; 32]);
        let token = tokens.make(at(60));
        let other = tokens.make(at(60));
        assert_ne!(token, other);
        assert!(tokens.know(&token, at(59)) && tokens.know(&other, at(0)));
        assert!(!tokens.know(&token, at(60)));
        assert!(!Tokens::new([8; 32]).know(&token, at(1)));
        for place in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[place] = if bytes[place] == b'0' { b'1' } else { b'0' };
            let text = String::from_utf8(bytes).unwrap();
            assert!(!tokens.know(&text, at(1)), "{text}");
            assert!(!tokens.know(&token[..place], at(1)));
        }
        assert!(!tokens.know(&format!("{token}0"), at(1)));
        assert!(!tokens.know(&"é".repeat(32), at(1)));
    }
}
