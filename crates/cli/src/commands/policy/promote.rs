//! `arcbroker policy promote`

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use arcbroker_client::Client;
use arcbroker_policy::{Accounts, SourceFile, compare};
use arcbroker_policy_files::Owners;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::{
    args::policy::Promote,
    clock,
    commands::allow::{close, warnings},
    exit::{Exit, Failure},
    output::Page,
    policy::{
        Error,
        judge::{Judge, Judged},
        live::Daemon,
        request::free,
        say,
        store::{Store, prepare_dir},
    },
    settings::Settings,
};

pub(super) async fn run(
    admin: &Client,
    settings: &Settings,
    args: &Promote,
) -> Result<Exit, Failure> {
    let (live, shadow) = (&settings.policy_dir, &settings.shadow_dir);
    let daemon = Daemon::find(admin, live).await?;
    let cloud = args.cloud.or(settings.cloud).or(daemon.cloud());
    let judge = Judge {
        cloud: cloud.unwrap_or_default(),
        accounts: &Accounts::default(),
    };
    if !shadow.exists() {
        return Err(Error::NoShadow(shadow.clone()).into());
    }
    // Both, so that no other command writes into either while they change places.
    let locks = if args.dry_run {
        None
    } else {
        let owners = &settings.owners;
        Some((
            Store::lock_or_make(live, owners)?,
            Store::lock(shadow, owners)?,
        ))
    };
    let old = judge.directory(live, Owners::These(&settings.owners))?;
    let new = renamed(
        judge.directory(shadow, Owners::These(&settings.owners))?,
        &judge,
        live,
    )?;
    if new.policy.rules() == 0 {
        return Err(Error::NoShadow(shadow.clone()).into());
    }
    let mut page = Page::new();
    let comparison = compare(&old.policy, &new.policy);
    say::fill(&mut page, &comparison);
    if comparison.changes.is_empty() && comparison.complete {
        page.line("nobody gains or loses anything");
    }
    warnings(&mut page, &new.warnings, None);
    if locks.is_some() {
        put_in_force(admin, settings, daemon, new.policy.hash(), &mut page).await?;
    }
    page.print()?;
    Ok(Exit::OK)
}

/// Both directories must be locked.
async fn put_in_force(
    admin: &Client,
    settings: &Settings,
    daemon: Daemon,
    hash: &str,
    page: &mut Page,
) -> Result<(), Error> {
    let (live, shadow) = (&settings.policy_dir, &settings.shadow_dir);
    exchange(live, shadow)?;
    // Before the daemon is told: it would try the old policy as its shadow. And whatever comes after,
    // a second promotion finds nothing to promote, and not the old policy.
    let aside = set_aside(live, shadow, &settings.owners).inspect_err(|_| {
        let _ = exchange(live, shadow);
    })?;
    let back = || {
        // It was possible a moment ago; what is told is why the daemon refuses.
        let _ = fs::remove_dir(shadow).and_then(|()| fs::rename(&aside, shadow));
        let _ = exchange(live, shadow);
    };
    let taken = daemon.tell(admin, hash, back).await?;
    page.line(&format!("in force: {}", live.display()));
    page.line(&format!(
        "kept:     {} (the policy from before)",
        aside.display()
    ));
    close(page, &taken);
    Ok(())
}

/// What the files are where they are going: their names are part of what a policy is.
fn renamed(judged: Judged, judge: &Judge<'_>, live: &Path) -> Result<Judged, Error> {
    let rename = |file: SourceFile| {
        let name = Path::new(&file.name).file_name().unwrap_or_default();
        SourceFile {
            name: live.join(name).display().to_string(),
            bytes: file.bytes,
        }
    };
    judge.files(judged.files.into_iter().map(rename).collect())
}

/// In one step: whoever opens the path finds either the one or the other.
fn exchange(live: &Path, shadow: &Path) -> Result<(), Error> {
    let swap = || {
        renameat2(
            AT_FDCWD,
            shadow,
            AT_FDCWD,
            live,
            RenameFlags::RENAME_EXCHANGE,
        )
    };
    swap().map_err(|errno| Error::Exchange {
        live: live.to_owned(),
        shadow: shadow.to_owned(),
        error: errno.into(),
    })?;
    for path in [live, shadow] {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(|error| {
            let _ = swap();
            Error::write(parent, error)
        })?;
    }
    Ok(())
}

/// Moves the old policy, which is where the shadow was, beside the live one, and leaves an empty
/// directory in its place.
fn set_aside(live: &Path, shadow: &Path, owners: &[u32]) -> Result<PathBuf, Error> {
    let mut name = live.file_name().unwrap_or_default().to_owned();
    name.push(".before-");
    name.push(clock::stamp());
    let beside = live.with_file_name(name).display().to_string();
    let aside = PathBuf::from(free(&beside, |path| Path::new(path).exists()));
    fs::rename(shadow, &aside).map_err(|error| Error::write(&aside, error))?;
    let made = fs::create_dir(shadow).map_err(|error| Error::write(shadow, error));
    match made.and_then(|()| prepare_dir(shadow, owners)) {
        Ok(()) => Ok(aside),
        Err(error) => {
            let _ = fs::remove_dir(shadow);
            let _ = fs::rename(&aside, shadow);
            Err(error)
        }
    }
}
