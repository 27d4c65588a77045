//! The smallest change of the files that takes something away, and nothing else.
//!
//! A rule gives the product of its lists: each of its users in each of its groups in each of its
//! units may have each of its resources with each of its identities. What is asked to be taken away is
//! such a product too. What is left of a rule is one as well if what is asked covers all of its lists
//! but one; then that list is shortened. Otherwise the rule is left alone, and it is said why.

mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arcbroker_policy::{
    Accounts, Change, Cloud, Identity, Policy, ResourcePattern, RuleView, SourceFile, UnitPattern,
};
use toml_edit::{Item, TableLike, Value};

use self::text::Texts;
use super::Error;

/// What to do, and what is left alone.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// New contents of files by their names; none for one without a rule left.
    pub(crate) files: BTreeMap<String, Option<String>>,
    /// Rules that go or lose something.
    pub(crate) edited: Vec<Arc<str>>,
    pub(crate) kept: Vec<Kept>,
}

/// A rule that gives some of what was asked and cannot be made to give exactly the rest.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) rule: Arc<str>,
    pub(crate) why: String,
    /// Whether it is about more callers than were named, in which case it may not be meant.
    pub(crate) is_wider: bool,
}

/// What the names in the files stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) cloud: Cloud,
    pub(crate) accounts: &'a Accounts,
}

impl Plan {
    /// The files without what `asked` gives.
    pub(crate) fn without(
        files: &[SourceFile],
        policy: &Policy,
        asked: RuleView<'_>,
        names: Names<'_>,
    ) -> Result<Self, Error> {
        let mut texts = Texts::parse(files)?;
        let mut plan = Self::default();
        for rule in policy.each_rule() {
            if rule.container() != asked.container() {
                continue;
            }
            match cut(texts.rule(rule)?, asked, names) {
                Cut::Nothing => {}
                Cut::Whole => {
                    texts.remove(rule)?;
                    plan.edited.push(Arc::clone(rule.name()));
                }
                Cut::Entries(key, entries) => {
                    texts.shorten(rule, key, &entries)?;
                    plan.edited.push(Arc::clone(rule.name()));
                }
                Cut::Inexact { why, is_wider } => plan.kept.push(Kept {
                    rule: Arc::clone(rule.name()),
                    why,
                    is_wider,
                }),
            }
        }
        plan.files = texts.changed(files);
        Ok(plan)
    }

    /// The files without the rule of this name.
    pub(crate) fn without_rule(
        files: &[SourceFile],
        policy: &Policy,
        name: &str,
    ) -> Result<Self, Error> {
        let rule = policy.each_rule().find(|rule| &**rule.name() == name);
        let rule = rule.ok_or_else(|| Error::NoRule(name.to_owned()))?;
        let mut texts = Texts::parse(files)?;
        texts.remove(rule)?;
        Ok(Self {
            files: texts.changed(files),
            edited: vec![Arc::clone(rule.name())],
            kept: Vec::new(),
        })
    }
}

/// Whether what a change takes away is all within what is asked.
pub(crate) fn is_asked(change: &Change, asked: RuleView<'_>) -> bool {
    let subject = &change.subject;
    let named = |asked: Option<&BTreeSet<u32>>, has: Option<u32>| {
        asked.is_none_or(|asked| has.is_some_and(|has| asked.contains(&has)))
    };
    let unit = asked.units().is_none_or(|asked| {
        let asked: Vec<_> = asked.collect();
        let is_covered = |unit| matches!(unit_covered(unit, &asked), Covered::All);
        subject.unit.as_ref().is_some_and(is_covered)
    });
    let resource = std::slice::from_ref(&change.resource);
    subject.container == asked.container()
        && named(asked.users(), subject.user)
        && named(asked.groups(), subject.group)
        && unit
        && asked.identities().contains(&change.identity)
        && matches!(resource_covered(resource, asked.resources()), Covered::All)
}

/// What is to be cut out of one rule.
enum Cut {
    Nothing,
    Whole,
    Entries(&'static str, Vec<usize>),
    Inexact { why: String, is_wider: bool },
}

/// How much of one list of a rule is asked for.
enum Share {
    None,
    All,
    Some(Vec<usize>),
    /// The list says more than what is asked, in one entry or by not being there.
    Inexact(String),
}

fn cut(table: &dyn TableLike, asked: RuleView<'_>, names: Names<'_>) -> Cut {
    let mut cut = Cut::Whole;
    let mut inexact = None;
    for (key, share) in shares(table, asked, names) {
        match (share, &cut) {
            (Share::None, _) => return Cut::Nothing,
            (Share::All, _) => {}
            (Share::Some(entries), Cut::Whole) => cut = Cut::Entries(key, entries),
            (Share::Some(_), _) => {
                let why = "it lists several of more than one kind".to_owned();
                inexact = inexact.or(Some((why, false)));
            }
            (Share::Inexact(why), _) => {
                let is_subject = matches!(key, "user" | "group" | "unit");
                inexact = Some((why, is_subject));
            }
        }
    }
    match inexact {
        Some((why, is_wider)) => Cut::Inexact { why, is_wider },
        None => cut,
    }
}

fn shares(
    table: &dyn TableLike,
    asked: RuleView<'_>,
    names: Names<'_>,
) -> [(&'static str, Share); 5] {
    let account = |key, asked: Option<&BTreeSet<u32>>, known: &BTreeMap<String, u32>| {
        let covers = |value: &Value| match asked {
            None => Covered::All,
            Some(asked) => Covered::from(id(value, known).is_some_and(|id| asked.contains(&id))),
        };
        share(table, key, asked.is_some(), covers)
    };
    let units: Option<Vec<&UnitPattern>> = asked.units().map(Iterator::collect);
    let unit = |value: &Value| match (&units, value.as_str().map(UnitPattern::parse)) {
        (None, _) => Covered::All,
        (Some(asked), Some(Ok(entry))) => unit_covered(&entry, asked),
        _ => Covered::None,
    };
    let identity = |value: &Value| {
        let entry = value
            .as_str()
            .and_then(|text| text.parse::<Identity>().ok());
        Covered::from(entry.is_some_and(|entry| asked.identities().contains(&entry)))
    };
    let resource = |value: &Value| {
        let entry = value
            .as_str()
            .map(|text| ResourcePattern::named(text, names.cloud));
        match entry {
            Some(Ok(entry)) => resource_covered(&entry, asked.resources()),
            _ => Covered::None,
        }
    };
    // Without the key it is the machine's own.
    let identities = if table.contains_key("identity") {
        share(table, "identity", true, identity)
    } else if asked.identities().contains(&Identity::System) {
        Share::All
    } else {
        Share::None
    };
    [
        (
            "user",
            account("user", asked.users(), &names.accounts.users),
        ),
        (
            "group",
            account("group", asked.groups(), &names.accounts.groups),
        ),
        ("unit", share(table, "unit", units.is_some(), unit)),
        ("identity", identities),
        ("resources", share(table, "resources", true, resource)),
    ]
}

/// How much of one entry is asked for.
enum Covered {
    None,
    Part,
    All,
}

impl From<bool> for Covered {
    fn from(whole: bool) -> Self {
        if whole { Self::All } else { Self::None }
    }
}

fn share(
    table: &dyn TableLike,
    key: &str,
    is_named: bool,
    covered: impl Fn(&Value) -> Covered,
) -> Share {
    let Some(value) = table.get(key).and_then(Item::as_value) else {
        return if is_named {
            Share::Inexact(format!("it names no {key}, so that it is for every one"))
        } else {
            Share::All
        };
    };
    let entries: Vec<&Value> = match value {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let mut whole = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        match covered(entry) {
            Covered::All => whole.push(place),
            Covered::None => {}
            Covered::Part => {
                let text = entry.as_str().unwrap_or_default();
                return Share::Inexact(format!(
                    "`{text}` in it stands for more than what is asked"
                ));
            }
        }
    }
    match whole.len() {
        0 => Share::None,
        all if all == entries.len() => Share::All,
        _ => Share::Some(whole),
    }
}

fn id(value: &Value, known: &BTreeMap<String, u32>) -> Option<u32> {
    match value {
        Value::Integer(id) => u32::try_from(*id.value()).ok(),
        // The same that the policy takes for a number.
        Value::String(name) => {
            let known = known.get(name.value()).copied();
            known.or_else(|| name.value().parse().ok())
        }
        _ => None,
    }
}

fn unit_covered(entry: &UnitPattern, asked: &[&UnitPattern]) -> Covered {
    let instances =
        |unit: &arcbroker_policy::Unit, template: &str| unit.template() == Some(template);
    let has = asked.iter().any(|asked| match (asked, entry) {
        (UnitPattern::Instances(template), UnitPattern::Exact(unit)) => instances(unit, template),
        (asked, entry) => *asked == entry,
    });
    let touches = asked.iter().any(|asked| match (asked, entry) {
        (UnitPattern::Exact(unit), UnitPattern::Instances(template)) => instances(unit, template),
        _ => false,
    });
    match (has, touches) {
        (true, _) => Covered::All,
        (false, true) => Covered::Part,
        (false, false) => Covered::None,
    }
}

fn resource_covered(entry: &[ResourcePattern], asked: &[ResourcePattern]) -> Covered {
    if asked.contains(&ResourcePattern::Any) || entry.iter().all(|one| asked.contains(one)) {
        Covered::All
    } else if entry.contains(&ResourcePattern::Any) || entry.iter().any(|one| asked.contains(one)) {
        Covered::Part
    } else {
        Covered::None
    }
}

#[cfg(test)]
mod tests;
