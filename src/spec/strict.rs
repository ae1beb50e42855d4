//! What is read from a file means one thing only: an object is written as one, and no key stands in it twice.
//!
//! serde reads the fields of a struct from an array, too, by their position, and the last of two equal keys of a
//! map wins. [`Strict`] stands between a format and the types that are read, at every level, and refuses both. It
//! knows where it is, for errors to name the key.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

/// The keys and indices that lead to what is being read. After a failure: to what failed.
#[derive(Debug, Default)]
pub(super) struct Trail(RefCell<Vec<Step>>);

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Trail {
    /// Reads what is behind a step. Only a success steps back.
    fn follow<T, E>(&self, step: Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.0.borrow_mut().push(step);
        let result = read();
        if result.is_ok() {
            self.0.borrow_mut().pop();
        }
        result
    }
}

impl Trail {
    /// The keys alone, as [definitions](super::Definition) have them: `disks[].rate_limit`.
    pub fn place(&self) -> String {
        let mut place = String::new();
        for step in self.0.borrow().iter() {
            match step {
                Step::Key(key) if place.is_empty() => place += key,
                Step::Key(key) => place += &format!(".{key}"),
                Step::Index(_) => place += "[]",
            }
        }
        place
    }
}

/// `disks[0].rate_limit`; nothing at the top.
impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.borrow().iter().enumerate() {
            match step {
                Step::Key(key) if number == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A deserializer or a seed that is strict about objects, at its own level and below.
pub(super) struct Strict<'t, T> {
    inner: T,
    trail: &'t Trail,
    /// What is expected here, if not what the visitor says.
    expected: Option<&'static str>,
}

impl<'t, T> Strict<'t, T> {
    /// Strict reading of `inner`.
    pub fn new(inner: T, trail: &'t Trail) -> Self {
        Self {
            inner,
            trail,
            expected: None,
        }
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* Strict::new(visitor, self.trail))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32()
        deserialize_i64() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string()
        deserialize_bytes() deserialize_byte_buf() deserialize_option() deserialize_unit()
        deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_seq() deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize) deserialize_map()
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier() deserialize_ignored_any()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Strict {
            inner: visitor,
            trail: self.trail,
            expected: Some("an object with keys (`{\"KEY\": VALUE}`)"),
        })
    }
}

macro_rules! visit {
    ($($method:ident($type:ty))*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expected {
            Some(text) => f.write_str(text),
            None => self.inner.expecting(f),
        }
    }

    visit! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128) visit_f64(f64)
        visit_char(char) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict::new(inner, self.trail))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner
            .visit_newtype_struct(Strict::new(inner, self.trail))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Elements {
            inner,
            index: 0,
            trail: self.trail,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Entries {
            inner,
            key: String::new(),
            seen: BTreeSet::new(),
            trail: self.trail,
        })
    }

    // Variants here are names; one with data in it would have to be wrapped as well.
    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(inner)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Strict::new(inner, self.trail))
    }
}

struct Elements<'t, A> {
    inner: A,
    index: usize,
    trail: &'t Trail,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let (inner, trail) = (&mut self.inner, self.trail);
        let read = || inner.next_element_seed(Strict::new(seed, trail));
        let element = trail.follow(Step::Index(self.index), read)?;
        self.index += 1;
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Entries<'t, A> {
    inner: A,
    /// The one that was read last.
    key: String,
    seen: BTreeSet<String>,
    trail: &'t Trail,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let Some(key) = self.inner.next_key::<String>()? else {
            return Ok(None);
        };
        if !self.seen.insert(key.clone()) {
            return Err(A::Error::custom(format!("the key `{key}` stands twice")));
        }
        self.key.clone_from(&key);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let (inner, trail) = (&mut self.inner, self.trail);
        let read = || inner.next_value_seed(Strict::new(seed, trail));
        trail.follow(Step::Key(std::mem::take(&mut self.key)), read)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}
