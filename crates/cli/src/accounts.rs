//! Users and groups by name or number.

use std::ffi::CString;

use arcbroker_policy_files::group_id;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::exit::Failure;

/// A user as a process of it would be seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) name: Option<String>,
}

/// The user with this name or number, in all groups that the system has it in. A number need not have
/// a name: then its group is taken to have the same number.
pub(crate) fn user(text: &str) -> Result<Account, Failure> {
    let number = text.parse::<u32>().ok();
    let found = match number {
        Some(uid) => User::from_uid(Uid::from_raw(uid)),
        None => User::from_name(text),
    };
    match (found.ok().flatten(), number) {
        (Some(user), _) => {
            let groups = CString::new(user.name.as_str())
                .ok()
                .and_then(|name| getgrouplist(&name, user.gid).ok());
            Ok(Account {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                groups: groups
                    .unwrap_or_default()
                    .into_iter()
                    .map(Gid::as_raw)
                    .collect(),
                name: Some(user.name),
            })
        }
        (None, Some(uid)) => Ok(Account {
            uid,
            gid: uid,
            ..Account::default()
        }),
        (None, None) => Err(Failure::Named(format!("there is no user `{text}` here"))),
    }
}

/// The group with this name or number.
pub(crate) fn group(text: &str) -> Result<u32, Failure> {
    group_id(text).ok_or_else(|| Failure::Named(format!("there is no group `{text}` here")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_both_and_a_number_needs_no_name() {
        assert_eq!(user("root").unwrap(), user("0").unwrap());
        assert_eq!(user("root").unwrap().name.as_deref(), Some("root"));
        let nameless = user("3999999999").unwrap();
        assert_eq!((nameless.uid, nameless.gid), (3_999_999_999, 3_999_999_999));
        assert!(user("no such user").is_err() && group("no such group").is_err());
        assert_eq!(group("root").unwrap(), 0);
        assert_eq!(group("17").unwrap(), 17);
    }
}
