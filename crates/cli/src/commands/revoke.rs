//! `arcbroker revoke`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use arcbroker_client::Client;
use arcbroker_policy::{Accounts, Comparison, Policy, RuleSet, RuleView, compare};
use arcbroker_policy_files::{Owners, accounts_of};

use super::allow::{close, warnings};
use crate::{
    args::policy::Revoke,
    exit::{Exit, Failure},
    output::{Page, Tone},
    policy::{
        Error,
        edit::{Kept, Names, Plan, is_asked},
        judge::{Judge, Judged},
        live::Daemon,
        say,
        store::{Change, Store},
    },
    settings::Settings,
};

pub(super) async fn run(
    admin: &Client,
    config: Option<&Path>,
    args: &Revoke,
) -> Result<Exit, Failure> {
    let settings = Settings::read(config)?;
    let dir = args.files.dir(&settings);
    let daemon = Daemon::find(admin, &dir).await?;
    let judge = Judge {
        cloud: args.files.cloud(daemon.cloud(), &settings),
        accounts: &Accounts::default(),
    };
    let asked = asked(args, &judge)?;
    let store = if args.dry_run {
        None
    } else {
        Some(Store::lock(&dir, &settings.owners)?)
    };
    let old = judge.directory(&dir, Owners::These(&settings.owners))?;
    let plan = plan(args, asked.as_ref(), &old, &judge)?;
    let new = judge.files(after(&old, &plan))?;
    let comparison = compare(&old.policy, &new.policy);
    verify(args, &comparison, asked.as_ref())?;

    let mut page = Page::new();
    let changes = changes(&old, &plan);
    if changes.is_empty() {
        page.line("nothing to take away: no rule gives this alone");
    }
    match &store {
        Some(store) if !changes.is_empty() => {
            let taken = daemon.publish(admin, store, &changes, new.policy.hash());
            let taken = taken.await?;
            show(&mut page, "", &changes, &comparison);
            close(&mut page, &taken);
        }
        _ => show(&mut page, "would be ", &changes, &comparison),
    }
    warnings(&mut page, &news(&old, &new), None);
    let is_left = asked.is_some_and(|asked| left(&mut page, &new.policy, &asked, &plan.kept));
    page.print()?;
    Ok(if is_left { Exit::FAILED } else { Exit::OK })
}

/// What becomes of which files, and what changes by it.
fn show(page: &mut Page, mood: &str, changes: &[Change], comparison: &Comparison) {
    for change in changes {
        let what = match change.after {
            Some(_) => "changed",
            None => "removed",
        };
        page.line(&format!("{mood}{what}: {}", change.path.display()));
    }
    say::fill(page, comparison);
}

/// The rule that would give what is to go; none where a rule is named.
fn asked(args: &Revoke, judge: &Judge<'_>) -> Result<Option<Policy>, Failure> {
    if args.rule.is_some() {
        return Ok(None);
    }
    let request = args.who.request(&args.resources, false);
    request.check_accounts()?;
    Ok(Some(judge.files(vec![request.source()])?.policy))
}

fn only(asked: &Policy) -> Result<RuleView<'_>, Error> {
    asked.each_rule().next().ok_or(Error::TooMuch)
}

fn plan(
    args: &Revoke,
    asked: Option<&Policy>,
    old: &Judged,
    judge: &Judge<'_>,
) -> Result<Plan, Error> {
    let Some(asked) = asked else {
        let name = args.rule.as_deref().unwrap_or_default();
        return Plan::without_rule(&old.files, &old.policy, name);
    };
    let mut ignored = arcbroker_policy::Diagnostics::new();
    let rules = RuleSet::parse(&old.files, judge.cloud, &mut ignored);
    let names = Names {
        cloud: judge.cloud,
        accounts: &rules.as_ref().map(accounts_of).unwrap_or_default(),
    };
    Plan::without(&old.files, &old.policy, only(asked)?, names)
}

fn after(old: &Judged, plan: &Plan) -> Vec<arcbroker_policy::SourceFile> {
    let mut files = Vec::with_capacity(old.files.len());
    for file in &old.files {
        let mut file = file.clone();
        match plan.files.get(&file.name) {
            None => {}
            Some(None) => continue,
            Some(Some(text)) => file.bytes = text.clone().into_bytes(),
        }
        files.push(file);
    }
    files
}

fn changes(old: &Judged, plan: &Plan) -> Vec<Change> {
    let change = |file: &arcbroker_policy::SourceFile| {
        let after = plan.files.get(&file.name)?;
        Some(Change {
            path: PathBuf::from(&file.name),
            before: Some(file.bytes.clone()),
            after: after.as_ref().map(|text| text.clone().into_bytes()),
        })
    };
    old.files.iter().filter_map(change).collect()
}

/// Whatever the plan is, nothing else may be lost by it, and nothing gained.
fn verify(args: &Revoke, comparison: &Comparison, asked: Option<&Policy>) -> Result<(), Error> {
    if !comparison.complete {
        return Err(Error::TooMuch);
    }
    let asked = asked.map(only).transpose()?;
    let is_fine = |change: &&arcbroker_policy::Change| {
        !change.gained
            && match &asked {
                Some(asked) => is_asked(change, *asked),
                None => args.rule.as_deref() == Some(&*change.rule),
            }
    };
    let others: Vec<_> = comparison
        .changes
        .iter()
        .filter(|change| !is_fine(change))
        .cloned()
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let mut page = Page::with_colours(false);
    let comparison = Comparison {
        changes: others,
        complete: true,
    };
    say::fill(&mut page, &comparison);
    Err(Error::Unsafe {
        report: page.take_text(),
    })
}

/// The warnings that the change brings.
fn news(old: &Judged, new: &Judged) -> arcbroker_policy::Diagnostics {
    let known: BTreeSet<&str> = old
        .warnings
        .iter()
        .map(|warning| warning.message.as_str())
        .collect();
    let mut news = arcbroker_policy::Diagnostics::new();
    for warning in new.warnings.iter() {
        if !known.contains(warning.message.as_str()) {
            let help = warning.help.clone().unwrap_or_default();
            news.warning_in(&warning.file, warning.message.clone(), help);
        }
    }
    news
}

/// Says which rules still give what was to go, and whether there are any.
fn left(page: &mut Page, policy: &Policy, asked: &Policy, kept: &[Kept]) -> bool {
    let mut rules: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let given = policy.given(asked);
    for given in &given {
        for rule in &given.rules {
            let what = format!("{} has {}", say::Named(&given.subject), given.resource);
            rules.entry(&*rule.rule).or_default().insert(what);
        }
    }
    for kept in kept.iter().filter(|kept| !kept.is_wider) {
        rules.entry(&*kept.rule).or_default();
    }
    for rule in policy.each_rule() {
        let name = &**rule.name();
        let Some(what) = rules.get(name) else {
            continue;
        };
        let place = format!(" by rule {name}, {}:{}", rule.file(), rule.line());
        page.verdict(Tone::Bad, "still given", &place);
        for what in what {
            page.line(&format!("  {what}"));
        }
        if let Some(kept) = kept.iter().find(|kept| &*kept.rule == name) {
            page.line(&format!(
                "  left alone, because {}: edit it, or remove it whole with",
                kept.why
            ));
            let quoted = name.replace('\'', r"'\''");
            page.line(&format!("  arcbroker revoke --rule '{quoted}'"));
        }
    }
    !rules.is_empty()
}
