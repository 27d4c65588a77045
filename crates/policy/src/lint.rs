//! What is legal, and probably not what was meant.

use crate::{
    Accounts, Cloud, Diagnostics, Spanned,
    cloud::WellKnown,
    control_group::is_of_container,
    subject::{Account, Conditions, Subjects},
    unit::UnitPattern,
};

/// The group of those who may connect at all, unless the configuration names another.
const CLIENTS: &str = "arcbroker";
/// Groups that are for everybody, or for what has no group of its own.
const CROWDS: [&str; 5] = ["users", "everyone", "nogroup", "nobody", "domain users"];
/// The account of what has no account of its own.
const NOBODY: &str = "nobody";
const OVERFLOW: u32 = 65_534;

/// What the system knows of a unit file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UnitFile {
    /// It is there.
    Here,
    /// It is another name of this unit, and processes run under that one.
    AliasOf(String),
    /// There is one for the users' own managers only.
    OfUsers,
    /// It is not there.
    Missing,
}

type Finding = (String, &'static str);

/// Warns of subjects that are nobody or everybody.
pub(crate) fn subjects(
    subjects: &Subjects,
    conditions: &Conditions,
    accounts: &Accounts,
    diagnostics: &mut Diagnostics,
) {
    for unit in subjects.units.iter().flatten() {
        if let Some((message, help)) =
            unreachable(&unit.value).or_else(|| file(&unit.value, accounts))
        {
            diagnostics.warning_at(unit, message, help);
        }
    }
    for (accounts, wide) in [
        (&subjects.users, user as fn(&Account) -> Option<Finding>),
        (&subjects.groups, group),
    ] {
        for account in accounts.iter().flatten() {
            if let Some((message, help)) = wide(&account.value) {
                diagnostics.warning_at(account, message, help);
            }
        }
    }
    container(subjects, conditions, diagnostics);
}

/// A unit that no process of the system is ever seen in.
fn unreachable(unit: &UnitPattern) -> Option<Finding> {
    let name = unit.to_string();
    if is_of_user(&name) {
        let message =
            format!("`{name}` belongs to a user, who decides what runs in it: it matches nobody");
        return Some((message, "name the user instead: user = \"...\""));
    }
    if is_of_container(&name) {
        let message = format!("`{name}` is the scope of a container: it matches nobody");
        return Some((
            message,
            "name a user or the service that starts it, and write container = true",
        ));
    }
    (name == "init.scope").then(|| {
        let message = "`init.scope` holds systemd alone: it matches nobody".to_owned();
        (message, "name the service that needs the tokens")
    })
}

/// The managers and sessions of users, and what desktops call the programs that they start.
fn is_of_user(name: &str) -> bool {
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    match kind {
        "service" if stem.starts_with("user@") => true,
        "scope" if stem.starts_with("session-") => true,
        _ => stem.starts_with("app-"),
    }
}

fn file(unit: &UnitPattern, accounts: &Accounts) -> Option<Finding> {
    let name = unit.file();
    match accounts.units.get(name)? {
        UnitFile::Here => None,
        UnitFile::AliasOf(other) => Some((
            format!("`{name}` is another name of `{other}`, and processes run under that one"),
            "write the other name: this one matches nobody",
        )),
        UnitFile::OfUsers => Some((
            format!("`{name}` is a unit of users, not of the system: it matches nobody"),
            "name the user instead: user = \"...\"",
        )),
        UnitFile::Missing => Some((
            format!("there is no unit file `{name}` on this system"),
            "matches nobody until it is installed or started: correct the name if it is wrong",
        )),
    }
}

fn user(account: &Account) -> Option<Finding> {
    let is_nobody = match account {
        Account::Name(name) => name == NOBODY,
        Account::Id(id) => *id == OVERFLOW,
    };
    is_nobody.then(|| {
        let message = "too wide: programs that have nothing to do with each other run as `nobody`";
        (message.to_owned(), "give the program a user of its own")
    })
}

fn group(account: &Account) -> Option<Finding> {
    let Account::Name(name) = account else {
        return None;
    };
    let crowd = CROWDS.contains(&name.as_str()).then(|| {
        let message = format!(
            "too wide: group `{name}` holds accounts that have nothing to do with each other"
        );
        (message, "make a group for those who need the tokens")
    });
    crowd.or_else(|| {
        (name == CLIENTS).then(|| {
            let message = format!("too wide: everybody who may connect is in group `{name}`");
            (message, "name those who need these tokens")
        })
    })
}

/// Without a user namespace, root in a container has the number of root outside.
fn container(subjects: &Subjects, conditions: &Conditions, diagnostics: &mut Diagnostics) {
    let Some(flag) = subjects.container.as_ref().filter(|flag| flag.value) else {
        return;
    };
    let root = conditions
        .users
        .as_ref()
        .is_some_and(|users| users.contains(&0));
    if root && conditions.units.is_none() {
        diagnostics.warning_at(
            flag,
            "too wide: root is the same user in every container that has the socket",
            "name the unit that runs the container as well, or give its program a user of its own",
        );
    }
}

/// Warns where a well-known resource is written as a URI: which has one spelling, where services and
/// SDKs know two.
pub(crate) fn spelling(
    text: &Spanned<String>,
    all: &[Spanned<String>],
    cloud: Cloud,
    diagnostics: &mut Diagnostics,
) {
    let uri = text.value.as_str();
    let stem = uri.strip_suffix('/').unwrap_or(uri);
    let Some(known) = WellKnown::with_uri(stem, cloud) else {
        return;
    };
    if all.iter().any(|other| other.value == known) {
        return;
    }
    let is_twin = |other: &&Spanned<String>| {
        other.value != uri && other.value.strip_suffix('/').unwrap_or(&other.value) == stem
    };
    match all.iter().find(is_twin) {
        None => {
            let other = if stem == uri { "with" } else { "without" };
            let message = format!(
                "`{uri}` {other} a slash at its end is another resource, and SDKs ask for either"
            );
            let help = format!("write \"{known}\" to allow both");
            diagnostics.warning_at(text, message, help);
        }
        Some(_) if stem == uri => {
            let message = format!("`{uri}` is listed with and without a slash");
            diagnostics.warning_at(
                text,
                message,
                format!("write \"{known}\", which stands for both"),
            );
        }
        Some(_) => {}
    }
}
