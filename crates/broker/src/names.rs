//! Names of users and groups: looked up where waiting does no harm, and never decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arcbroker_policy::Accounts;
use nix::unistd::{Group, Uid, User};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::unit_files::unit_files;

/// A directory service that is slow must not make tokens slow: then the name is left out.
const PATIENCE: Duration = Duration::from_millis(100);
const KEPT: u64 = 1024;
const KEPT_FOR: Duration = Duration::from_mins(5);

/// Names of users by number, for display.
#[derive(Clone, Debug)]
pub struct UserNames(moka::sync::Cache<u32, watch::Receiver<Lookup>>);

/// `None` while it runs.
type Lookup = Option<Option<Arc<str>>>;

impl UserNames {
    /// None is known yet.
    pub fn new() -> Self {
        Self(
            moka::sync::Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(KEPT_FOR)
                .build(),
        )
    }

    /// The name of a user, if it can be had at once or nearly so. One look-up serves all who ask.
    pub async fn name(&self, uid: u32) -> Option<Arc<str>> {
        let mut lookup = self.0.get_with(uid, || look_up(uid));
        let found = timeout(PATIENCE, lookup.wait_for(Option::is_some))
            .await
            .ok()?
            .ok()?;
        found.clone().flatten()
    }
}

fn look_up(uid: u32) -> watch::Receiver<Lookup> {
    let (tell, told) = watch::channel(None);
    spawn_blocking(move || {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        tell.send_replace(Some(user.map(|user| Arc::from(user.name))));
    });
    told
}

impl Default for UserNames {
    fn default() -> Self {
        Self::new()
    }
}

/// The number of a user, from its name or its digits. Asks the system: not on the event loop.
pub fn user_id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| {
        User::from_name(text)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    })
}

/// The number of a group, from its name or its digits. Asks the system: not on the event loop.
pub fn group_id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| {
        Group::from_name(text)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    })
}

/// The numbers of all that exist, and the unit files. Asks the system: not on the event loop.
pub fn accounts(
    users: &BTreeSet<&str>,
    groups: &BTreeSet<&str>,
    units: &BTreeSet<&str>,
) -> Accounts {
    let known = |names: &BTreeSet<&str>, find: fn(&str) -> Option<u32>| -> BTreeMap<String, u32> {
        names
            .iter()
            .filter_map(|name| find(name).map(|id| ((*name).to_owned(), id)))
            .collect()
    };
    Accounts {
        users: known(users, user_id),
        groups: known(groups, group_id),
        units: unit_files(Path::new("/"), units),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_number_has_a_name_and_back() {
        assert_eq!(UserNames::new().name(0).await.as_deref(), Some("root"));
        assert_eq!(UserNames::new().name(3_999_999_999).await, None);
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(user_id("1234"), Some(1234));
        assert_eq!(user_id("no such user"), None);
        assert_eq!(group_id("root"), Some(0));
    }

    #[test]
    fn only_those_that_exist_have_a_number() {
        let names = ["root", "no such"].into_iter().collect();
        let accounts = accounts(&names, &names, &BTreeSet::new());
        assert_eq!(accounts.users.keys().collect::<Vec<_>>(), ["root"]);
        assert_eq!(accounts.groups.keys().collect::<Vec<_>>(), ["root"]);
    }
}
