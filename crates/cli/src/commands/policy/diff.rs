//! `arcbroker policy diff`

use arcbroker_policy::{Accounts, compare};
use arcbroker_policy_files::Owners;

use crate::{
    args::policy::Diff,
    exit::{Exit, Failure},
    output::{self, Page},
    policy::{Error, judge::Judge, say},
    settings::Settings,
};

pub(super) fn run(settings: &Settings, args: &Diff) -> Result<Exit, Failure> {
    let judge = Judge {
        cloud: args.cloud.or(settings.cloud).unwrap_or_default(),
        accounts: &Accounts::default(),
    };
    let directory = |dir: &std::path::Path| {
        // To the daemon a directory that is not there is an empty one; here it is a slip.
        let there = dir.read_dir().map_err(|error| Error::read(dir, error));
        there
            .and_then(|_| judge.directory(dir, Owners::Anybody))
            .map_err(Failure::Trouble)
    };
    let (old, new) = (directory(&args.old)?, directory(&args.new)?);
    let comparison = compare(&old.policy, &new.policy);
    if args.json {
        output::print_json(&say::Document::new(&comparison))?;
    } else {
        let mut page = Page::new();
        say::fill(&mut page, &comparison);
        page.print()?;
    }
    let is_same = comparison.changes.is_empty() && comparison.complete;
    Ok(if is_same { Exit::OK } else { Exit::FAILED })
}
