use std::os::unix::fs::{PermissionsExt, symlink};

use nix::unistd::geteuid;

use super::*;

const RULE: &str = "version = 1\n[[rule]]\nname = \"NAME\"\nuser = 0\nresources = [\"keyvault\"]\n";

fn policy_dir(files: &[(&str, &str)]) -> (tempfile::TempDir, Options) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let options = Options {
        dir: dir.path().to_owned(),
        owners: vec![geteuid().as_raw()],
        units: Ok(()),
    };
    (dir, options)
}

fn errors(options: &Options) -> String {
    let mut diagnostics = Diagnostics::new();
    let policy = load(options, Cloud::Public, &mut diagnostics);
    assert_eq!(policy.is_none(), diagnostics.has_errors());
    diagnostics.to_string()
}

#[test]
fn every_toml_file_counts_and_nothing_else() {
    let (_dir, options) = policy_dir(&[
        ("b.toml", &RULE.replace("NAME", "b")),
        ("a.toml", &RULE.replace("NAME", "a")),
        ("c.toml~", "nonsense"),
        (".d.toml", "nonsense"),
    ]);
    let policy = load(&options, Cloud::Public, &mut Diagnostics::new()).unwrap();
    assert_eq!(policy.rules(), 2);
}

#[test]
fn the_same_files_may_be_good_in_one_cloud_and_not_in_another() {
    let rule = RULE.replace("keyvault", "eventhubs");
    let (_dir, options) = policy_dir(&[("a.toml", &rule)]);
    let each = load_each(&options, &Cloud::ALL);
    let good: Vec<_> = each.iter().map(|(_, loaded)| loaded.is_ok()).collect();
    assert_eq!(good, [true, false, false]);
    let Err(errors) = &each[1].1 else {
        panic!("it cannot be used there")
    };
    let errors = errors.to_string();
    assert!(
        errors.contains("`eventhubs` is not known in AzureUSGovernmentCloud"),
        "{errors}"
    );
}

#[test]
fn a_rule_on_a_unit_is_an_error_where_units_cannot_be_told() {
    let rule = RULE.replace("user = 0", "unit = \"backup.service\"");
    let (_dir, options) = policy_dir(&[
        ("a.toml", &rule.replace("NAME", "a")),
        ("b.toml", &RULE.replace("NAME", "b")),
    ]);
    let none = NoUnits {
        reason: "units cannot be told: there are none".to_owned(),
        help: "name a user",
    };
    for (units, expected) in [(Ok(()), None), (Err(none), Some("name a user"))] {
        let options = Options {
            units,
            ..options.clone()
        };
        let mut diagnostics = Diagnostics::new();
        let policy = load(&options, Cloud::Public, &mut diagnostics);
        assert_eq!(policy.is_some(), expected.is_none(), "{diagnostics}");
        let Some(expected) = expected else { continue };
        let text = diagnostics.to_string();
        assert!(
            text.contains("a.toml:4:8: units cannot be told") && text.contains(expected),
            "{text}"
        );
        assert_eq!(diagnostics.errors(), 1);
    }
}

#[test]
fn no_directory_is_a_policy_that_allows_nothing() {
    let (dir, options) = policy_dir(&[]);
    drop(dir);
    let mut diagnostics = Diagnostics::new();
    assert_eq!(
        load(&options, Cloud::Public, &mut diagnostics)
            .unwrap()
            .rules(),
        0
    );
    assert_eq!((diagnostics.errors(), diagnostics.warnings()), (0, 1));
}

#[test]
fn t36_what_others_may_write_is_refused() {
    let (dir, options) = policy_dir(&[("a.toml", &RULE.replace("NAME", "a"))]);
    let file = dir.path().join("a.toml");
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert!(
            errors(&options).contains("may be written by its group or by everybody"),
            "{mode:o}"
        );
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(errors(&options), "");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(errors(&options).contains("(mode 0777)"));
    let strangers = Options {
        owners: vec![geteuid().as_raw() + 1],
        ..options
    };
    assert!(errors(&strangers).contains("who may not write the policy"));
}

#[test]
fn files_that_are_only_tried_may_be_anybodys() {
    let (dir, options) = policy_dir(&[("a.toml", &RULE.replace("NAME", "a"))]);
    let file = dir.path().join("a.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let mut diagnostics = Diagnostics::new();
    let files = read(&options.dir, Owners::Anybody, &mut diagnostics);
    assert_eq!((files.len(), diagnostics.is_empty()), (1, true));
    let nobody = read(&options.dir, Owners::These(&[]), &mut diagnostics);
    assert!(nobody.is_empty() && diagnostics.has_errors());
}

#[test]
fn links_directories_and_giants_are_refused_all_at_once() {
    let (dir, options) = policy_dir(&[("big.toml", &" ".repeat(MAX_FILE + 1))]);
    symlink("/etc/passwd", dir.path().join("link.toml")).unwrap();
    fs::create_dir(dir.path().join("dir.toml")).unwrap();
    let errors = errors(&options);
    for expected in [
        "big.toml: is larger",
        "link.toml: is not a regular",
        "dir.toml: is not a regular",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
}
