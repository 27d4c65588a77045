//! A map of callers that forgets those who are gone, so that it does not grow with everybody who ever came.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use arcbroker_policy::{Caller, Unit};

/// Whom callers are told apart by, where one must not take what is another's.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Party {
    /// The user.
    pub uid: u32,
    /// The unit that the process runs in, where that is known.
    pub unit: Option<Unit>,
}

impl Party {
    /// That of this caller.
    pub fn of(caller: &Caller) -> Self {
        Self {
            uid: caller.uid,
            unit: caller.unit.clone(),
        }
    }
}

/// So many are kept without a look at whether they still matter.
const FEW: usize = 64;

/// A map whose entries are dropped some time after they stop to say anything. It holds at most twice
/// as many as matter, and a few more; a look-up costs the same on average however many there are.
#[derive(Debug)]
pub struct Brief<K, V> {
    map: HashMap<K, V>,
    /// With so many entries it is time to look which of them still matter.
    sweep_at: usize,
}

impl<K: Eq + Hash, V> Brief<K, V> {
    /// The value of `key`, made where there is none. `matters` says of a value whether it may not be
    /// dropped and made anew.
    pub fn entry(
        &mut self,
        key: K,
        matters: impl Fn(&V) -> bool,
        make: impl FnOnce() -> V,
    ) -> &mut V {
        if self.map.len() >= self.sweep_at {
            self.map.retain(|_, value| matters(value));
            self.sweep_at = FEW + 2 * self.map.len();
        }
        match self.map.entry(key) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(make()),
        }
    }
}

impl<K, V> Default for Brief<K, V> {
    fn default() -> Self {
        Self {
            map: HashMap::new(),
            sweep_at: FEW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_grow_with_those_who_are_gone_and_keeps_those_who_matter() {
        let mut map = Brief::default();
        for number in 0..100_000_u32 {
            // Every hundredth of the first thousand stays.
            let stays = number < 1000 && number.is_multiple_of(100);
            map.entry(number, |stays| *stays, || stays);
            assert!(map.map.len() <= FEW + 2 * 10 + 1, "{}", map.map.len());
        }
        assert_eq!(map.map.values().filter(|stays| **stays).count(), 10);
    }
}
