//! The kinds of subjects that a rule can name: a new kind is added in this file.
//!
//! A rule names one or more kinds, and all that it names must hold; within a kind, one of the
//! listed values is enough. A kind that is not named holds for everyone, and a kind whose values
//! match nobody holds for nobody: [`Option`] keeps the two apart. Containers are apart from all
//! else: a rule holds either for them or for the processes of the host.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Caller, Diagnostics, Scalar, Spanned, Table,
    lint::{self, UnitFile},
    unit::{UnitPattern, Units},
};

/// The number that the kernel uses for "no id".
const NO_ID: u32 = u32::MAX;
/// Bytes of the longest name of a user or group.
const MAX_NAME: usize = 256;

/// What the system knows now of the users, groups and units that rules name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Accounts {
    /// User ids by name.
    pub users: BTreeMap<String, u32>,
    /// Group ids by name.
    pub groups: BTreeMap<String, u32>,
    /// Unit files by name. Only for warnings: a unit that is not here may come, and one that nobody
    /// looked for is left out.
    pub units: BTreeMap<String, UnitFile>,
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
    pub(crate) units: Option<Vec<Spanned<UnitPattern>>>,
    pub(crate) container: Option<Spanned<bool>>,
}

/// The subjects of a rule as the kernel knows them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Conditions {
    pub(crate) users: Option<BTreeSet<u32>>,
    pub(crate) groups: Option<BTreeSet<u32>>,
    pub(crate) units: Option<Units>,
    pub(crate) container: bool,
}

/// What a rule names of one kind.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Unit,
    User,
    Group,
}

impl Subjects {
    /// Reads the keys of all kinds from the table of a rule.
    pub(crate) fn read(table: &mut Table<'_>, diagnostics: &mut Diagnostics) -> Self {
        let users = accounts("user", table, diagnostics);
        let groups = accounts("group", table, diagnostics);
        let units = units(table, diagnostics);
        let container = table.boolean("container", diagnostics);
        if !["user", "group", "unit"]
            .into_iter()
            .any(|kind| table.contains(kind))
        {
            let help = "name who may have the tokens: user = \"...\", group = \"...\" or unit = \"....service\"";
            table.missing(
                "the rule names no user, no group and no unit",
                help,
                diagnostics,
            );
        }
        Self {
            users,
            groups,
            units,
            container,
        }
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
        let conditions = Conditions {
            users: ids("user", &self.users, &accounts.users),
            groups: ids("group", &self.groups, &accounts.groups),
            units: self.units.as_ref().map(|units| {
                let patterns = units.iter().map(|unit| unit.value.clone());
                patterns.collect()
            }),
            container: self.container.as_ref().is_some_and(|flag| flag.value),
        };
        lint::subjects(self, &conditions, accounts, diagnostics);
        conditions
    }
}

impl Conditions {
    /// Whether all that the rule names holds for `caller`.
    pub(crate) fn hold(&self, caller: &Caller) -> bool {
        self.named()
            && self.container_holds(caller)
            && self.user_holds(caller)
            && self.group_holds(caller)
            && self.unit_holds(caller)
    }

    /// Whether the rule names any subject: one that does not holds for nobody.
    fn named(&self) -> bool {
        self.users.is_some() || self.groups.is_some() || self.units.is_some()
    }

    pub(crate) fn user_holds(&self, caller: &Caller) -> bool {
        let users = self.users.as_ref();
        users.is_none_or(|users| users.contains(&caller.uid))
    }

    pub(crate) fn group_holds(&self, caller: &Caller) -> bool {
        self.groups.as_ref().is_none_or(|groups| {
            groups.contains(&caller.gid) || caller.groups.iter().any(|group| groups.contains(group))
        })
    }

    pub(crate) fn unit_holds(&self, caller: &Caller) -> bool {
        let unit = caller.unit.as_ref();
        let units = self.units.as_ref();
        units.is_none_or(|units| unit.is_some_and(|unit| units.contains(unit)))
    }

    pub(crate) fn container_holds(&self, caller: &Caller) -> bool {
        caller.container == Some(self.container)
    }

    /// Whether these hold for every caller for whom `other` hold. Of those callers it is known that
    /// what both name of the kind `given` holds already.
    pub(crate) fn cover(&self, other: &Self, given: Option<Kind>) -> bool {
        let users = subset(
            self.users.as_ref(),
            other.users.as_ref(),
            BTreeSet::is_superset,
        );
        let groups = subset(
            self.groups.as_ref(),
            other.groups.as_ref(),
            BTreeSet::is_superset,
        );
        let units = subset(self.units.as_ref(), other.units.as_ref(), Units::cover);
        self.container == other.container
            && (given == Some(Kind::User) || users)
            && (given == Some(Kind::Group) || groups)
            && (given == Some(Kind::Unit) || units)
    }
}

/// Whether what a rule names of a kind holds wherever what the other names does.
fn subset<T>(ours: Option<&T>, theirs: Option<&T>, contains: fn(&T, &T) -> bool) -> bool {
    match (ours, theirs) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(ours), Some(theirs)) => contains(ours, theirs),
    }
}

fn units(
    table: &mut Table<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Spanned<UnitPattern>>> {
    let written = table.strings("unit", diagnostics)?;
    let mut units: Vec<Spanned<UnitPattern>> = Vec::with_capacity(written.len());
    for text in written {
        match UnitPattern::parse(&text.value) {
            Ok(unit) => units.push(text.map(|_| unit)),
            Err(error) => diagnostics.error_at(&text, error.problem(), error.help()),
        }
    }
    Some(units)
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
