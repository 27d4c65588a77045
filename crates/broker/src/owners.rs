//! Who may hold upstream's port and own its key files.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use arcbroker_policy_files::user_id;

/// Users, by number and by name.
///
/// A name need not exist yet: the Azure Arc agent can be installed, or installed anew under another number, while the
/// broker runs. Clones share what was found.
#[derive(Clone)]
pub struct Owners(Arc<Inner>);

struct Inner {
    ids: Vec<u32>,
    names: Vec<String>,
    /// The numbers of the names.
    found: RwLock<Vec<u32>>,
}

impl Owners {
    /// Looks the names up. Asks the system: not on an event loop.
    pub fn new(ids: Vec<u32>, names: Vec<String>) -> Self {
        let found = RwLock::new(look_up(&names));
        Self(Arc::new(Inner { ids, names, found }))
    }

    /// Whether a user is one of them.
    pub fn contains(&self, uid: u32) -> bool {
        let found = self.0.found.read().unwrap_or_else(PoisonError::into_inner);
        self.0.ids.contains(&uid) || found.contains(&uid)
    }

    /// Looks the names up again, and says whether they are other users now.
    pub async fn look_again(&self) -> bool {
        if self.0.names.is_empty() {
            return false;
        }
        let owners = self.clone();
        tokio::task::spawn_blocking(move || owners.replace())
            .await
            .unwrap_or(false)
    }

    fn replace(&self) -> bool {
        let new = look_up(&self.0.names);
        let mut found = self.0.found.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = *found != new;
        *found = new;
        is_other
    }
}

impl From<Vec<u32>> for Owners {
    fn from(ids: Vec<u32>) -> Self {
        Self::new(ids, Vec::new())
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ids, names) = (self.0.ids.iter(), self.0.names.iter());
        f.debug_list().entries(ids).entries(names).finish()
    }
}

fn look_up(names: &[String]) -> Vec<u32> {
    names.iter().filter_map(|name| user_id(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Owners {
        Owners::new(vec![7], names.iter().map(|&name| name.to_owned()).collect())
    }

    #[tokio::test]
    async fn numbers_and_names_that_exist_are_owners() {
        let owners = named(&["root", "no such user"]);
        assert!(owners.contains(0) && owners.contains(7) && !owners.contains(8));
        assert!(!owners.look_again().await, "they are the same");
    }

    #[tokio::test]
    async fn a_user_that_comes_or_gets_another_number_is_found() {
        for before in [vec![], vec![998]] {
            let owners = named(&["root"]);
            *owners.0.found.write().unwrap() = before;
            let clone = owners.clone();
            assert!(!clone.contains(0));
            assert!(owners.look_again().await);
            assert!(clone.contains(0) && !clone.contains(998));
        }
    }
}
