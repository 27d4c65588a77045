//! `arcbroker policy test`

use std::fs;

use arcbroker_policy::{
    Accounts, Caller, Cloud, Diagnostics, Document, Examined, Explanation, Identity, Location,
    Resource, Scalar, Spanned, Table, Unit,
};
use arcbroker_policy_files::{Owners, group_id, user_id};

use crate::{
    args::policy::Test,
    exit::{Exit, Failure},
    output::{Page, Tone, counted},
    policy::{Error, Mistakes, judge::Judge},
    settings::Settings,
};

const VERSION: i64 = 1;
/// An id that is nobody's: the last one before the one that the kernel uses for "none".
const NOBODY: u32 = u32::MAX - 1;

/// A decision that is expected.
struct Expectation {
    name: Option<String>,
    place: String,
    caller: Caller,
    identity: Identity,
    resource: Resource,
    allow: bool,
    rule: Option<String>,
}

/// A file of expectations.
struct Expected {
    accounts: Accounts,
    all: Vec<Expectation>,
}

pub(super) fn run(settings: &Settings, args: &Test) -> Result<Exit, Failure> {
    let cloud = args.files.cloud(None, settings);
    let bytes = fs::read(&args.file).map_err(|error| Error::read(&args.file, error))?;
    let mut diagnostics = Diagnostics::new();
    let name = args.file.display().to_string();
    let expected = Expected::read(&name, &bytes, cloud, &mut diagnostics);
    let Some(expected) = expected.filter(|_| !diagnostics.has_errors()) else {
        let what = "the expectations have mistakes";
        return Err(Error::Mistakes(Mistakes::new(what, &diagnostics)).into());
    };
    let judge = Judge {
        cloud,
        accounts: &expected.accounts,
    };
    let dir = args.files.dir(settings);
    let policy = judge.directory(&dir, Owners::Anybody)?.policy;
    let mut page = Page::new();
    let mut failed = 0_u64;
    for one in &expected.all {
        let explanation = policy.explain(&one.caller, &one.identity, &one.resource);
        if let Some(what) = one.disappointed(&explanation) {
            failed += 1;
            let name = one
                .name
                .as_deref()
                .map(|name| format!("{name}: "))
                .unwrap_or_default();
            page.verdict(Tone::Bad, &one.place, &format!(": {name}{what}"));
            for reason in reasons(&explanation) {
                page.line(&format!("  {reason}"));
            }
        }
    }
    let all = counted(expected.all.len() as u64, "expectation");
    page.line(&match failed {
        0 => format!("{all}, all met"),
        failed => format!("{all}, {failed} not met"),
    });
    page.print()?;
    Ok(if failed == 0 { Exit::OK } else { Exit::FAILED })
}

impl Expectation {
    fn disappointed(&self, explanation: &Explanation) -> Option<String> {
        match (&explanation.outcome, self.allow) {
            (Ok(allowance), true) => {
                let wanted = self.rule.as_deref()?;
                let got = &*allowance.rule;
                (wanted != got).then(|| format!("allowed by rule {got}, expected rule {wanted}"))
            }
            (Ok(allowance), false) => Some(format!(
                "allowed by rule {}, expected a denial",
                allowance.rule
            )),
            (Err(denial), true) => Some(format!("denied, expected to be allowed: {denial}")),
            (Err(_), false) => None,
        }
    }
}

/// The rules that matter most: those that allow it, else those where the least fails.
fn reasons(explanation: &Explanation) -> Vec<String> {
    const MOST: usize = 5;
    let mut rules: Vec<&Examined> = explanation.rules.iter().collect();
    rules.sort_by_key(|rule| rule.failed.len());
    let nearest = rules.first().map_or(0, |rule| rule.failed.len());
    let rules = rules
        .into_iter()
        .filter(|rule| rule.failed.len() == nearest);
    let text = |rule: &Examined| {
        let place = format!("rule {}, {}:{}", rule.rule, rule.file, rule.line);
        let failed: Vec<_> = rule.failed.iter().map(ToString::to_string).collect();
        if failed.is_empty() {
            format!("{place}: allows it")
        } else {
            format!("{place}: does not hold by its {}", failed.join(", "))
        }
    };
    rules.take(MOST).map(text).collect()
}

impl Expected {
    fn read(name: &str, bytes: &[u8], cloud: Cloud, diagnostics: &mut Diagnostics) -> Option<Self> {
        let document = Document::parse(name, bytes, diagnostics)?;
        let mut root = document.table();
        root.require(
            "version",
            "write version = 1 as the first line",
            diagnostics,
        );
        if let Some(version) = root.integer("version", 0..=i64::MAX, diagnostics)
            && version.value != VERSION
        {
            let what = format!("version {} of these files is not known", version.value);
            diagnostics.error_at(
                &version,
                what,
                "write version = 1, or install a newer arcbroker",
            );
            return None;
        }
        let accounts = accounts(&mut root, diagnostics);
        let mut all = Vec::new();
        for table in root.tables("expect", diagnostics) {
            all.extend(expectation(table, cloud, &accounts, diagnostics));
        }
        if all.is_empty() {
            root.missing(
                "nothing is expected",
                "write [[expect]], and its keys below",
                diagnostics,
            );
        }
        root.finish(diagnostics);
        Some(Self { accounts, all })
    }
}

fn accounts(root: &mut Table<'_>, diagnostics: &mut Diagnostics) -> Accounts {
    let mut accounts = Accounts::default();
    if let Some(mut table) = root.table("accounts", diagnostics) {
        if let Some(users) = table.table("users", diagnostics) {
            accounts.users.extend(users.numbers(NOBODY, diagnostics));
        }
        if let Some(groups) = table.table("groups", diagnostics) {
            accounts.groups.extend(groups.numbers(NOBODY, diagnostics));
        }
        table.finish(diagnostics);
    }
    accounts
}

/// None where a mistake keeps it from being one; all of them are reported.
fn expectation(
    mut table: Table<'_>,
    cloud: Cloud,
    accounts: &Accounts,
    diagnostics: &mut Diagnostics,
) -> Option<Expectation> {
    let location: &Location = table.as_ref();
    let place = format!("{}:{}", location.file(), location.line());
    let name = table.string("name", diagnostics);
    let caller = caller(&mut table, accounts, diagnostics);
    table.require(
        "resource",
        "name what is asked for: resource = \"keyvault\"",
        diagnostics,
    );
    let resource = table.string("resource", diagnostics);
    let resource = resource.and_then(|text| {
        let read = Resource::parse(&text.value, cloud);
        read.map_err(|error| diagnostics.error_at(&text, error.problem(), error.help()))
            .ok()
    });
    let identity = table.string("identity", diagnostics);
    let identity = identity.map_or(Some(Identity::System), |text| {
        let read = text.value.parse::<Identity>();
        read.map_err(|error| diagnostics.error_at(&text, error.problem(), error.help()))
            .ok()
    });
    let allow = decision(&mut table, diagnostics);
    let rule = table.string("rule", diagnostics);
    if let (Some(rule), Some(false)) = (&rule, allow) {
        diagnostics.error_at(
            rule,
            "no rule denies",
            "remove this key: what no rule allows is denied",
        );
    }
    table.finish(diagnostics);
    Some(Expectation {
        name: name.map(|name| name.value),
        place,
        caller: caller?,
        identity: identity?,
        resource: resource?,
        allow: allow?,
        rule: rule.map(|rule| rule.value),
    })
}

/// Whether it is to be allowed.
fn decision(table: &mut Table<'_>, diagnostics: &mut Diagnostics) -> Option<bool> {
    let help = "write decision = \"allow\" or decision = \"deny\"";
    table.require("decision", help, diagnostics);
    let decision = table.string("decision", diagnostics);
    decision.and_then(|text| match text.value.as_str() {
        "allow" => Some(true),
        "deny" => Some(false),
        _ => {
            diagnostics.error_at(&text, "this is no decision", help);
            None
        }
    })
}

/// Who is not named in the table is nobody that a rule could name.
fn caller(
    table: &mut Table<'_>,
    accounts: &Accounts,
    diagnostics: &mut Diagnostics,
) -> Option<Caller> {
    let mut ids =
        |key, known: &std::collections::BTreeMap<String, u32>, find: fn(&str) -> Option<u32>| {
            let written = table.scalars(key, diagnostics).unwrap_or_default();
            let mut ids = Vec::with_capacity(written.len());
            for one in written {
                match id(&one, known, find) {
                    Some(id) => ids.push(id),
                    None => diagnostics.error_at(
                        &one,
                        format!("this {key} is not known here"),
                        format!("give its number, or write it into [accounts.{key}s]"),
                    ),
                }
            }
            ids
        };
    let users = ids("user", &accounts.users, user_id);
    let groups = ids("group", &accounts.groups, group_id);
    let (gid, groups) = groups
        .split_first()
        .map_or((NOBODY, &[][..]), |(first, more)| (*first, more));
    let mut caller = Caller::new(
        users.first().copied().unwrap_or(NOBODY),
        gid,
        groups.to_vec(),
    );
    if users.len() > 1 {
        let help = "write one [[expect]] for each";
        table.missing("a caller is one user", help, diagnostics);
        return None;
    }
    if let Some(unit) = table.string("unit", diagnostics) {
        match Unit::parse(&unit.value) {
            Ok(name) => caller.unit = Some(name),
            Err(error) => diagnostics.error_at(&unit, error.problem(), error.help()),
        }
    }
    let container = table.boolean("container", diagnostics);
    caller.container = Some(container.is_some_and(|container| container.value));
    Some(caller)
}

fn id(
    one: &Spanned<Scalar>,
    known: &std::collections::BTreeMap<String, u32>,
    find: fn(&str) -> Option<u32>,
) -> Option<u32> {
    match &one.value {
        Scalar::Integer(id) => u32::try_from(*id).ok(),
        Scalar::String(name) => known.get(name).copied().or_else(|| find(name)),
    }
}
