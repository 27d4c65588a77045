//! How many endpoints there are, whose they are, and who gets none any more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use arcbroker_policy::{Caller, Unit};

use crate::lock::lock;

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// In all.
    pub all: usize,
    /// Of one user.
    pub per_user: usize,
}

/// Counts endpoints.
#[derive(Debug)]
pub struct Registry {
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u32, usize>,
    /// Who tried to harm the broker with what they passed. It takes one program to be on this list, and a restart of
    /// the daemon to be off it.
    banned: HashSet<Suspect>,
}

/// Whom programs are held together by: a container or a unit does not suffer for another of the same user.
#[derive(Debug, Eq, Hash, PartialEq)]
struct Suspect {
    uid: u32,
    unit: Option<Unit>,
    container: Option<bool>,
}

impl Suspect {
    fn of(caller: &Caller) -> Self {
        Self {
            uid: caller.uid,
            unit: caller.unit.clone(),
            container: caller.container,
        }
    }
}

/// A place for an endpoint until it is dropped.
#[derive(Debug)]
pub struct Place {
    registry: Arc<Registry>,
    uid: u32,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoPlace {
    /// In all.
    #[error(
        "there are as many endpoints as there may be: end programs, or raise endpoints under [limits]"
    )]
    Full,
    /// Of this user.
    #[error(
        "this user has as many endpoints as one may have: end programs, or raise endpoints-per-user under [limits]"
    )]
    UserFull,
    /// It has tried to harm the broker.
    #[error(
        "a program of this user in this unit has passed a descriptor that could harm arcbrokerd, and gets no endpoints \
         until that is restarted; an administrator finds it in the log"
    )]
    Banned,
}

impl Registry {
    /// There are none.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            state: Mutex::default(),
        }
    }

    /// A place for an endpoint of this caller.
    ///
    /// # Errors
    ///
    /// [`NoPlace`].
    pub fn place(self: &Arc<Self>, caller: &Caller) -> Result<Place, NoPlace> {
        let uid = caller.uid;
        let mut state = lock(&self.state);
        if state.banned.contains(&Suspect::of(caller)) {
            return Err(NoPlace::Banned);
        }
        if state.open.values().sum::<usize>() >= self.options.all {
            return Err(NoPlace::Full);
        }
        let open = state.open.entry(uid).or_default();
        if *open >= self.options.per_user {
            return Err(NoPlace::UserFull);
        }
        *open += 1;
        Ok(Place {
            registry: Arc::clone(self),
            uid,
        })
    }

    /// Gives callers like this one no more of them.
    pub fn ban(&self, caller: &Caller) {
        lock(&self.state).banned.insert(Suspect::of(caller));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.state).open.values().sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.registry.state);
        if let Some(open) = state.open.get_mut(&self.uid) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_for_each_user_and_in_all() {
        let registry = Arc::new(Registry::new(Options {
            all: 3,
            per_user: 2,
        }));
        let place = |uid| registry.place(&Caller::new(uid, uid, vec![]));
        let held = [1, 1].map(|uid| place(uid).unwrap());
        assert_eq!(place(1).unwrap_err(), NoPlace::UserFull);
        let other = place(2).unwrap();
        assert_eq!(place(3).unwrap_err(), NoPlace::Full);
        assert_eq!(registry.count(), 3);
        drop(held);
        assert!(place(3).is_ok());
        drop(other);
        assert!(lock(&registry.state).open.is_empty());
    }

    #[test]
    fn who_has_tried_to_harm_gets_none() {
        let registry = Arc::new(Registry::new(Options {
            all: 3,
            per_user: 2,
        }));
        let caller = |uid, container| Caller {
            container: Some(container),
            ..Caller::new(uid, uid, vec![])
        };
        registry.ban(&caller(7, true));
        let again = registry.place(&caller(7, true));
        assert_eq!(again.unwrap_err(), NoPlace::Banned);
        assert!(registry.place(&caller(8, true)).is_ok());
        let of_the_host = registry.place(&caller(7, false));
        assert!(of_the_host.is_ok(), "a container is not its host");
    }
}
