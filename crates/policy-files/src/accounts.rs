//! Users, groups and unit files by their names, as this system has them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arcbroker_policy::{Accounts, RuleSet};
use nix::unistd::{Group, User};

use crate::unit_files::unit_files;

/// The number of a user, from its name or its digits. Asks the system: not on an event loop.
pub fn user_id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| {
        User::from_name(text)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    })
}

/// The number of a group, from its name or its digits. Asks the system: not on an event loop.
pub fn group_id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| {
        Group::from_name(text)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    })
}

/// The numbers of all that exist, and the unit files. Asks the system: not on an event loop.
pub(crate) fn accounts(
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

/// All of these that the rules name.
pub fn accounts_of(rules: &RuleSet) -> Accounts {
    accounts(
        &rules.user_names(),
        &rules.group_names(),
        &rules.unit_names(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_its_digits_are_a_number() {
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
