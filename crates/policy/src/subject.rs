//! The kinds of subjects that a rule can name: a new kind is added in this file.
//!
//! A rule names one or more kinds, and all that it names must hold; within a kind, one of the
//! listed values is enough. A kind that is not named holds for everyone, and a kind whose values
//! match nobody holds for nobody: [`Option`] keeps the two apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Caller, Diagnostics, Scalar, Spanned, Table};

/// The number that the kernel uses for "no id".
const NO_ID: u32 = u32::MAX;
/// Bytes of the longest name of a user or group.
const MAX_NAME: usize = 256;

/// The ids of the users and groups that rules name, as the system has them now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Accounts {
    /// User ids by name.
    pub users: BTreeMap<String, u32>,
    /// Group ids by name.
    pub groups: BTreeMap<String, u32>,
}

/// A user or a group as a rule names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Account {
    Name(String),
    Id(u32),
}

/// The subjects of a rule as written.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    pub(crate) users: Option<Vec<Spanned<Account>>>,
    pub(crate) groups: Option<Vec<Spanned<Account>>>,
}

/// The subjects of a rule as the kernel knows them.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    users: Option<BTreeSet<u32>>,
    groups: Option<BTreeSet<u32>>,
}

/// One subject, by which rules are found: the most telling one that a rule names.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum SubjectKey {
    User(u32),
    Group(u32),
}

impl Subjects {
    /// Reads the keys of all kinds from the table of a rule.
    pub(crate) fn read(table: &mut Table<'_>, diagnostics: &mut Diagnostics) -> Self {
        let users = accounts("user", table, diagnostics);
        let groups = accounts("group", table, diagnostics);
        if !["user", "group"]
            .into_iter()
            .any(|kind| table.contains(kind))
        {
            let help = "name who may have the tokens: user = \"...\" or group = \"...\"";
            table.missing(
                "the rule names neither a user nor a group",
                help,
                diagnostics,
            );
        }
        Self { users, groups }
    }

    /// Looks the names up; a warning for each that is unknown, which then matches nobody.
    pub(crate) fn resolve(&self, accounts: &Accounts, diagnostics: &mut Diagnostics) -> Conditions {
        let mut ids = |kind, named: &Option<Vec<_>>, known| {
            named.as_ref().map(|named| {
                named
                    .iter()
                    .filter_map(|one| id(kind, one, known, diagnostics))
                    .collect()
            })
        };
        Conditions {
            users: ids("user", &self.users, &accounts.users),
            groups: ids("group", &self.groups, &accounts.groups),
        }
    }
}

impl Conditions {
    /// Whether all that the rule names holds for `caller`.
    pub(crate) fn hold(&self, caller: &Caller) -> bool {
        let user = self
            .users
            .as_ref()
            .is_none_or(|users| users.contains(&caller.uid));
        let group = self.groups.as_ref().is_none_or(|groups| {
            groups.contains(&caller.gid) || caller.groups.iter().any(|group| groups.contains(group))
        });
        let named = self.users.is_some() || self.groups.is_some();
        named && user && group
    }

    /// The keys under which the rule is found. Each caller for whom the rule holds has one of them.
    pub(crate) fn keys(&self) -> Vec<SubjectKey> {
        match (&self.users, &self.groups) {
            (Some(users), _) => users.iter().copied().map(SubjectKey::User).collect(),
            (None, Some(groups)) => groups.iter().copied().map(SubjectKey::Group).collect(),
            (None, None) => Vec::new(),
        }
    }

    /// Whether these hold for every caller with `key` for whom `other` hold; both have that key.
    pub(crate) fn cover(&self, other: &Self, key: SubjectKey) -> bool {
        match (key, &self.groups, &other.groups) {
            (SubjectKey::Group(_), ..) | (SubjectKey::User(_), None, _) => true,
            (SubjectKey::User(_), Some(_), None) => false,
            (SubjectKey::User(_), Some(ours), Some(theirs)) => theirs.is_subset(ours),
        }
    }
}

impl SubjectKey {
    /// All keys of a caller.
    pub(crate) fn of(caller: &Caller) -> impl Iterator<Item = Self> {
        let groups = std::iter::once(caller.gid).chain(caller.groups.iter().copied());
        std::iter::once(Self::User(caller.uid)).chain(groups.map(Self::Group))
    }
}

fn accounts(
    kind: &'static str,
    table: &mut Table<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Spanned<Account>>> {
    let written = table.scalars(kind, diagnostics)?;
    Some(
        written
            .into_iter()
            .filter_map(|one| account(kind, one, diagnostics))
            .collect(),
    )
}

fn account(
    kind: &str,
    written: Spanned<Scalar>,
    diagnostics: &mut Diagnostics,
) -> Option<Spanned<Account>> {
    let account = match &written.value {
        Scalar::Integer(number) => u32::try_from(*number)
            .ok()
            .filter(|id| *id != NO_ID)
            .map(Account::Id)
            .ok_or_else(out_of_range),
        Scalar::String(text) => from_text(text),
    };
    match account {
        Ok(account) => Some(written.map(|_| account)),
        Err((problem, help)) => {
            diagnostics.error_at(&written, format!("`{kind}` {problem}"), help);
            None
        }
    }
}

type Problem = (&'static str, &'static str);

fn out_of_range() -> Problem {
    (
        "has a number that no account can have",
        "write a number from 0 to 4294967294",
    )
}

/// A text of digits is a number: a name like that could mean another account to another program.
fn from_text(text: &str) -> Result<Account, Problem> {
    if text.is_empty()
        || text.len() > MAX_NAME
        || text.contains(|c: char| c.is_control() || c == ':')
    {
        return Err((
            "has a name that no account can have",
            "write a name as `getent` lists it, or a number",
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Account::Name(text.to_owned()));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err((
            "has a number that begins with 0",
            "write the number in decimal, without zeros before it",
        ));
    }
    text.parse()
        .ok()
        .filter(|id| *id != NO_ID)
        .map(Account::Id)
        .ok_or_else(out_of_range)
}

fn id(
    kind: &str,
    named: &Spanned<Account>,
    known: &BTreeMap<String, u32>,
    diagnostics: &mut Diagnostics,
) -> Option<u32> {
    let name = match &named.value {
        Account::Id(id) => return Some(*id),
        Account::Name(name) => name,
    };
    let id = known.get(name).copied().filter(|id| *id != NO_ID);
    if id.is_none() {
        let help = format!("matches nobody: create the {kind}, or correct the name");
        diagnostics.warning_at(
            named,
            format!("no {kind} is named `{name}` on this system"),
            help,
        );
    }
    id
}
