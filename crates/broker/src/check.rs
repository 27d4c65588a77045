//! Reads everything that an administrator writes. The code that checks is the code that runs.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use arcbroker_policy::{Diagnostics, MAX_FILE};
use arcbroker_policy_files::user_id;

use nix::unistd::geteuid;

use crate::ability::Ability;
use crate::args::Args;
use crate::config::{self, Settings};

const CONFIG: &str = "/etc/arcbroker/broker.toml";

/// The settings, unless something is wrong, and a report of every mistake. With `--check` the
/// policy is read as well. Blocks.
pub fn load(args: &Args) -> (Option<Settings>, String) {
    let mut diagnostics = Diagnostics::new();
    let path = args.config.clone().unwrap_or_else(|| PathBuf::from(CONFIG));
    let name = path.display().to_string();
    let mut settings = match read(&path) {
        Ok(bytes) => config::read(&name, &bytes, &mut diagnostics),
        Err(error) if error.kind() == io::ErrorKind::NotFound && args.config.is_none() => {
            config::read(&name, &[], &mut diagnostics)
        }
        Err(error) => {
            diagnostics.error_in(
                &name,
                format!("cannot be read: {error}"),
                "see that it is there and that arcbrokerd may read it",
            );
            None
        }
    };
    override_policy(args, &mut settings, &mut diagnostics);
    if args.check
        && let Some(settings) = &settings
    {
        let mut options = settings.policy.clone();
        options.units = Ability::probe(settings.callers.clone())
            .units()
            .map_err(Into::into);
        let cloud = settings.cloud.unwrap_or_default();
        arcbroker_policy_files::load(&options, cloud, &mut diagnostics);
    }
    let usable = settings.filter(|_| !diagnostics.has_errors());
    (
        usable,
        if diagnostics.is_empty() {
            String::new()
        } else {
            diagnostics.to_string()
        },
    )
}

fn override_policy(args: &Args, settings: &mut Option<Settings>, diagnostics: &mut Diagnostics) {
    let mut owners = Vec::new();
    for owner in &args.policy_owner {
        match user_id(owner) {
            Some(id) => owners.push(id),
            None => diagnostics.error_in(
                "--policy-owner",
                format!("there is no user `{owner}` on this system"),
                "give a name or a number",
            ),
        }
    }
    let Some(settings) = settings else { return };
    if let Some(dir) = &args.policy_dir {
        settings.policy.dir.clone_from(dir);
    }
    if !args.policy_owner.is_empty() {
        settings.policy.owners = owners;
    }
}

/// At most one byte more than allowed, so that the size is judged with the content.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let owner = metadata.uid();
    // Whoever may write it can name other policy files and other owners for them.
    if (owner != 0 && owner != geteuid().as_raw()) || metadata.mode() & 0o002 != 0 {
        let what = format!(
            "it is owned by uid {owner} or writable by everybody, and must be root's or your own"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser as _;

    use super::*;

    fn check(dir: &Path, extra: &[&str]) -> (bool, String) {
        let config = dir.join("broker.toml");
        let policy = dir.join("policy.d");
        let mut arguments = vec![
            "arcbrokerd",
            "--check",
            "--config",
            config.to_str().unwrap(),
        ];
        arguments.extend(["--policy-dir", policy.to_str().unwrap()]);
        arguments.extend(extra);
        let (settings, report) = load(&Args::parse_from(arguments));
        (settings.is_some(), report)
    }

    #[test]
    fn mistakes_of_the_configuration_and_of_every_policy_file_are_told_in_one_run() {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.d");
        fs::create_dir(&policy).unwrap();
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in [
            ("a.toml", "version = 2\n"),
            ("b.toml", "version = 1\n[[rule]]\nusr = 1\n"),
        ] {
            fs::write(policy.join(name), text).unwrap();
            fs::set_permissions(policy.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(
            dir.path().join("broker.toml"),
            "[limits]\nconnections = 10\n",
        )
        .unwrap();
        let owner = geteuid().to_string();
        let (good, report) = check(dir.path(), &["--policy-owner", &owner]);
        assert!(!good);
        assert!(
            report.contains("a.toml:1:11") && report.contains("b.toml:3:1: unknown key `usr`"),
            "{report}"
        );
        fs::remove_file(policy.join("a.toml")).unwrap();
        fs::remove_file(policy.join("b.toml")).unwrap();
        assert_eq!(
            check(dir.path(), &["--policy-owner", &owner]),
            (true, String::new())
        );
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let (good, report) = check(dir.path(), &[]);
        assert!(
            !good && report.contains("broker.toml: cannot be read"),
            "{report}"
        );
    }

    #[test]
    fn a_configuration_that_everybody_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
        let (good, report) = check(dir.path(), &[]);
        assert!(
            !good && report.contains("writable by everybody"),
            "{report}"
        );
    }
}
