//! What the daemon says to an administrator before it serves anything.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use arcbroker_e2e::{User, binary};
use tempfile::TempDir;

const GOOD_RULE: &str =
    "version = 1\n[[rule]]\nname = \"NAME\"\nuser = 0\nresources = [\"keyvault\"]\n";

/// A directory with these files, which only their owner may write.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policy.d")).unwrap();
    fs::set_permissions(dir.path().join("policy.d"), Permissions::from_mode(0o755)).unwrap();
    for (name, text) in files {
        let text = text
            .replace("DIR", &dir.path().display().to_string())
            .replace("UID", &User::current().uid.to_string());
        fs::write(dir.path().join(name), text).unwrap();
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o644)).unwrap();
    }
    dir
}

fn run(dir: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("arcbrokerd"));
    command
        .arg("--config")
        .arg(dir.path().join("broker.toml"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Standard error with the directory written as DIR.
fn errors(dir: &TempDir, output: &Output) -> String {
    String::from_utf8(output.stderr.clone())
        .unwrap()
        .replace(&dir.path().display().to_string(), "DIR")
}

const GOOD_CONFIG: &str = "[sockets]\ntoken = \"DIR/run/token.sock\"\nadmin = \"DIR/run/admin.sock\"\n\
                           [policy]\ndir = \"DIR/policy.d\"\nowners = [UID]\n[audit]\nfile = \"DIR/audit.jsonl\"\n";

#[test]
fn check_accepts_a_good_configuration_and_touches_nothing() {
    let dir = directory(&[("broker.toml", GOOD_CONFIG), ("policy.d/a.toml", GOOD_RULE)]);
    let output = run(&dir, &["--check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"the configuration can be used\n");
    assert_eq!(errors(&dir, &output), "");
    assert!(!dir.path().join("run").exists() && !dir.path().join("audit.jsonl").exists());
}

#[test]
fn every_mistake_of_the_configuration_is_told_at_once_with_its_place_and_its_remedy() {
    let config = "[upstream]\nhimds-endpoint = \"http://10.0.0.1:40342\"\nkind = \"hinds\"\n\n[sockets]\ntoken-mode = \"rw\"\n\
                  admin = \"admin.sock\"\n[limits]\nconnections = 0\nconections-per-user = 5\n[polcy]\ndir = \"/x\"\n";
    let dir = directory(&[("broker.toml", config)]);
    for arguments in [&["--check"][..], &[]] {
        let output = run(&dir, arguments);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(78), 0),
            "{output:?}"
        );
        assert_eq!(
            errors(&dir, &output),
            include_str!("config/configuration.txt")
        );
    }
}

#[test]
fn every_mistake_of_every_policy_file_is_told_at_once() {
    let dir = directory(&[
        ("broker.toml", GOOD_CONFIG),
        (
            "policy.d/a.toml",
            "version = 1\n[[rule]]\nname = \"a\"\nusr = \"www-data\"\nresources = [\"keyvault\"]\n",
        ),
        (
            "policy.d/b.toml",
            "version = 2\n[[rule]]\nname = \"b\"\nuser = 1\nresources = [\"vault.azure.net\", \"\"]\n",
        ),
        (
            "policy.d/c.toml",
            "version = 1\n[[rule]]\nname = \"c\nuser = 1\nresources = [\"keyvault\"]\n",
        ),
        ("policy.d/d.toml", GOOD_RULE),
        ("policy.d/e.toml", GOOD_RULE),
        ("policy.d/notes.txt", "not read"),
    ]);
    fs::set_permissions(
        dir.path().join("policy.d/e.toml"),
        Permissions::from_mode(0o666),
    )
    .unwrap();
    let output = run(&dir, &["--check"]);
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(78), 0),
        "{output:?}"
    );
    assert_eq!(errors(&dir, &output), include_str!("config/policy.txt"));

    let started = run(&dir, &[]);
    assert_eq!(started.status.code(), Some(78), "{started:?}");
    let told = errors(&dir, &started);
    for line in include_str!("config/policy.txt")
        .lines()
        .filter(|line| line.starts_with("DIR"))
    {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(
        !dir.path().join("run").exists(),
        "nothing is served by a policy that nobody wrote"
    );
}

#[test]
fn a_configuration_that_is_not_there_is_an_error_where_it_was_named() {
    let dir = directory(&[]);
    let output = run(&dir, &["--check"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(errors(&dir, &output), include_str!("config/missing.txt"));
}

#[test]
fn check_reads_a_policy_from_elsewhere() {
    let dir = directory(&[
        (
            "broker.toml",
            &GOOD_CONFIG.replace("owners = [UID]", "owners = [4294967294]"),
        ),
        ("policy.d/a.toml", GOOD_RULE),
    ]);
    let refused = run(&dir, &["--check"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(
        errors(&dir, &refused).contains("who may not write the policy"),
        "{refused:?}"
    );
    let owner = User::current().uid.to_string();
    let policy = dir.path().join("policy.d").display().to_string();
    assert_eq!(
        run(
            &dir,
            &["--check", "--policy-dir", &policy, "--policy-owner", &owner]
        )
        .status
        .code(),
        Some(0)
    );
}

#[test]
fn a_group_that_does_not_exist_is_an_error_when_the_socket_is_bound() {
    let config = GOOD_CONFIG.replace("[policy]", "token-group = \"no-such-group-here\"\n[policy]");
    let dir = directory(&[("broker.toml", &config), ("policy.d/a.toml", GOOD_RULE)]);
    assert_eq!(run(&dir, &["--check"]).status.code(), Some(0));
    let output = run(&dir, &[]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let told = errors(&dir, &output);
    assert!(
        told.contains("no-such-group-here")
            && told.contains("groupadd --system")
            && told.contains("token-group"),
        "{told}"
    );
}

#[test]
fn options_are_explained_and_mistyped_ones_are_refused() {
    let run = |argument: &str| {
        Command::new(binary("arcbrokerd"))
            .arg(argument)
            .output()
            .unwrap()
    };
    let version = run("--version");
    assert_eq!(
        (version.status.code(), version.stdout),
        (
            Some(0),
            format!("arcbrokerd {}\n", env!("CARGO_PKG_VERSION")).into_bytes()
        )
    );
    let help = run("--help");
    let text = String::from_utf8(help.stdout).unwrap();
    for option in [
        "--config <FILE>",
        "--check",
        "--policy-dir <DIR>",
        "--policy-owner <USER>",
        "--version",
    ] {
        assert!(text.contains(option), "{option}: {text}");
    }
    let unknown = run("--chek");
    assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(2), 0));
    assert!(
        String::from_utf8(unknown.stderr)
            .unwrap()
            .contains("--check")
    );
}
