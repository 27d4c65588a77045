//! `arcbroker allow`

use std::{collections::BTreeSet, path::Path};

use arcbroker_client::Client;
use arcbroker_policy::{Accounts, Diagnostics, Policy, SourceFile, compare};
use arcbroker_policy_files::Owners;

use crate::{
    args::policy::Allow,
    exit::{Exit, Failure},
    output::Page,
    policy::{
        Error,
        judge::{Judge, Judged},
        live::{Daemon, Taken},
        request::{Request, free, stem},
        say,
        store::{Change, Store},
    },
    settings::Settings,
};

/// A rule that is to be, and what it would change.
struct Draft {
    change: Change,
    old: Policy,
    new: Judged,
}

pub(super) async fn run(
    admin: &Client,
    config: Option<&Path>,
    args: &Allow,
) -> Result<Exit, Failure> {
    let settings = Settings::read(config)?;
    let dir = args.files.dir(&settings);
    let request = args.who.request(&args.resources, args.bypass_cache);
    request.check_accounts()?;
    let daemon = Daemon::find(admin, &dir).await?;
    let judge = Judge {
        cloud: args.files.cloud(daemon.cloud(), &settings),
        accounts: &Accounts::default(),
    };
    let asked = judge.files(vec![request.source()])?.policy;
    let mut page = Page::new();
    if args.dry_run {
        let old = if dir.exists() {
            judge.directory(&dir, Owners::These(&settings.owners))?
        } else {
            judge.files(Vec::new())?
        };
        if let Some(draft) = draft(&request, args, &dir, old, &asked, &judge, &mut page)? {
            show(&mut page, &draft);
            page.line(&format!(
                "would be written to {}:",
                draft.change.path.display()
            ));
            let text = draft.change.after.as_deref().unwrap_or_default();
            for line in String::from_utf8_lossy(text).lines() {
                page.line(line);
            }
        }
        page.print()?;
        return Ok(Exit::OK);
    }
    let store = Store::lock_or_make(&dir, &settings.owners)?;
    let old = judge.directory(store.dir(), Owners::These(&settings.owners))?;
    if let Some(draft) = draft(&request, args, &dir, old, &asked, &judge, &mut page)? {
        let hash = draft.new.policy.hash();
        let change = std::slice::from_ref(&draft.change);
        let taken = daemon.publish(admin, &store, change, hash).await?;
        page.line(&format!("written: {}", draft.change.path.display()));
        show(&mut page, &draft);
        close(&mut page, &taken);
    }
    page.print()?;
    Ok(Exit::OK)
}

/// None where the rules give it all already.
fn draft(
    request: &Request,
    args: &Allow,
    dir: &Path,
    old: Judged,
    asked: &Policy,
    judge: &Judge<'_>,
    page: &mut Page,
) -> Result<Option<Draft>, Failure> {
    let lacking = compare(&old.policy, asked);
    if !lacking.complete {
        return Err(Error::TooMuch.into());
    }
    if !lacking.changes.iter().any(|change| change.gained) {
        already(page, &old.policy, asked);
        return Ok(None);
    }
    let names: BTreeSet<&str> = old.policy.each_rule().map(|rule| &**rule.name()).collect();
    let name = match &args.name {
        Some(name) => name.clone(),
        None => request.name(&names),
    };
    let file = |stem: &str| dir.join(format!("50-{stem}.toml"));
    let path = file(&free(&stem(&name), |stem| {
        file(stem).symlink_metadata().is_ok()
    }));
    let text = request.file(&request.comment("allow"), &name);
    let mut files = old.files.clone();
    files.push(SourceFile {
        name: path.display().to_string(),
        bytes: text.clone().into_bytes(),
    });
    files.sort_by(|one, other| Path::new(&one.name).cmp(Path::new(&other.name)));
    let new = judge.files(files)?;
    Ok(Some(Draft {
        change: Change {
            path,
            before: None,
            after: Some(text.into_bytes()),
        },
        old: old.policy,
        new,
    }))
}

fn already(page: &mut Page, policy: &Policy, asked: &Policy) {
    page.line("nothing to do: the rules give all of this already");
    let mut seen = BTreeSet::new();
    for given in policy.given(asked) {
        if let Some(rule) = given.rules.first()
            && seen.insert((given.subject.clone(), given.resource.clone()))
        {
            let who = say::Named(&given.subject);
            let (name, file, line) = (&rule.rule, &rule.file, rule.line);
            page.line(&format!(
                "  {who} has {} (rule {name}, {file}:{line})",
                given.resource
            ));
        }
    }
}

fn show(page: &mut Page, draft: &Draft) {
    say::fill(page, &compare(&draft.old, &draft.new.policy));
    warnings(page, &draft.new.warnings, Some(&draft.change.path));
}

/// The warnings about one file, or about all.
pub(super) fn warnings(page: &mut Page, warnings: &Diagnostics, file: Option<&Path>) {
    let ours = |name: &str| file.is_none_or(|file| Path::new(name) == file);
    for warning in warnings.iter().filter(|warning| ours(&warning.file)) {
        page.lines(&warning.to_string());
    }
}

pub(super) fn close(page: &mut Page, taken: &Taken) {
    if let Some(remark) = taken.remark() {
        page.line(&remark);
    }
}
