use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use tempfile::TempDir;

use super::*;

const NAME: &str = "6f9b3c1e-0000-4000-8000-1234567890ab.key";

fn key_files() -> (TempDir, KeyFiles) {
    let dir = tempfile::tempdir().unwrap();
    let owners = vec![geteuid().as_raw()].into();
    let files = KeyFiles {
        dir: dir.path().to_owned(),
        owners,
    };
    (dir, files)
}

fn challenge(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn name() -> KeyName {
    KeyName::parse(NAME).unwrap()
}

#[test]
fn u02_the_scheme_may_be_in_any_case_and_a_trailing_space_is_nothing() {
    let (dir, files) = key_files();
    let path = format!("{}/{NAME}", dir.path().display());
    for value in [
        format!("Basic realm={path}"),
        format!("basic realm={path}"),
        format!("BASIC Realm={path} "),
    ] {
        assert_eq!(
            files.locate(&challenge(&[&value])).unwrap(),
            name(),
            "{value}"
        );
    }
}

#[test]
fn u03_a_realm_that_is_not_exactly_a_key_file_of_the_directory_is_refused() {
    let (dir, files) = key_files();
    let dir = dir.path().display();
    for realm in [
        String::new(),
        NAME.to_owned(),
        format!("{dir}"),
        format!("{dir}/"),
        format!("{dir}/.key"),
        format!("{dir}/a.txt"),
        format!("{dir}/a.key.txt"),
        format!("{dir}/a..key"),
        format!("{dir}/.a.key"),
        format!("{dir}/../a.key"),
        format!("{dir}/./a.key"),
        format!("{dir}//a.key"),
        format!("{dir}/sub/a.key"),
        format!("{dir}/a%2e.key"),
        format!("{dir}/a\u{e9}.key"),
        format!("{dir}/{}.key", "a".repeat(125)),
        "/etc/shadow".to_owned(),
        "/etc/a.key".to_owned(),
        format!("file://{dir}/a.key"),
    ] {
        assert!(
            files
                .locate(&challenge(&[&format!("Basic realm={realm}")]))
                .is_err(),
            "{realm}"
        );
    }
}

#[test]
fn a_challenge_of_another_form_is_refused() {
    let (dir, files) = key_files();
    let path = format!("{}/{NAME}", dir.path().display());
    for value in [
        format!("Basic realm=\"{path}\""),
        format!("Basic realm={path}, charset=UTF-8"),
        format!("Basic realm={path} charset=UTF-8"),
        format!("Basic  realm={path}"),
        format!("Basic realm = {path}"),
        format!("Basic realm={path}=x"),
        format!("Bearer realm={path}"),
        format!("realm={path}"),
        format!("Basic {path}"),
        "Basic".to_owned(),
        String::new(),
        format!("Basic realm={path}{}", "a".repeat(5000)),
    ] {
        let error = files.locate(&challenge(&[&value])).unwrap_err();
        assert!(
            matches!(error, ChallengeError::Form | ChallengeError::Name),
            "{value}: {error}"
        );
    }
    assert!(matches!(
        files.locate(&challenge(&[])),
        Err(ChallengeError::Missing)
    ));
    let good = format!("Basic realm={path}");
    assert!(matches!(
        files.locate(&challenge(&[&good, &good])),
        Err(ChallengeError::Several)
    ));
}

#[test]
fn u04_a_directory_behind_a_link_is_known_by_both_its_paths() {
    let (dir, _) = key_files();
    let (real, link) = (
        dir.path().canonicalize().unwrap().join("real"),
        dir.path().join("link"),
    );
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let files = KeyFiles {
        dir: link.clone(),
        owners: vec![geteuid().as_raw()].into(),
    };
    fs::write(real.join(NAME), "k3y").unwrap();
    for parent in [&real, &link] {
        let header = challenge(&[&format!("Basic realm={}/{NAME}", parent.display())]);
        let name = files.locate(&header).unwrap();
        assert_eq!(files.read(&name).unwrap(), "Basic k3y");
    }
}

#[test]
fn u01_the_key_goes_verbatim_without_the_newline_and_is_marked_sensitive() {
    let (dir, files) = key_files();
    for (content, expected) in [
        ("k3y==", "Basic k3y=="),
        ("k3y\n", "Basic k3y"),
        ("k3y\r\n", "Basic k3y"),
    ] {
        fs::write(dir.path().join(NAME), content).unwrap();
        let header = files.read(&name()).unwrap();
        assert_eq!(header, expected);
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}

#[test]
fn u06_size_is_bounded() {
    let (dir, files) = key_files();
    for (size, good) in [(0, false), (1, true), (4096, true), (4097, false)] {
        fs::write(dir.path().join(NAME), vec![b'k'; size]).unwrap();
        assert_eq!(files.read(&name()).is_ok(), good, "{size}");
    }
    File::create(dir.path().join(NAME))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    assert!(matches!(files.read(&name()), Err(ChallengeError::Size)));
}

#[test]
fn u05_only_a_regular_file_with_one_name_is_read() {
    let (dir, files) = key_files();
    let (path, other) = (dir.path().join(NAME), dir.path().join("other"));
    fs::write(&other, "secret").unwrap();
    let make: [(&str, &dyn Fn()); 5] = [
        ("symlink", &|| symlink(&other, &path).unwrap()),
        ("hard link", &|| fs::hard_link(&other, &path).unwrap()),
        ("fifo", &|| mkfifo(&path, Mode::S_IRWXU).unwrap()),
        ("directory", &|| fs::create_dir(&path).unwrap()),
        ("socket", &|| drop(UnixListener::bind(&path).unwrap())),
    ];
    for (kind, make) in make {
        make();
        let error = files.read(&name()).unwrap_err();
        assert!(
            matches!(error, ChallengeError::Kind | ChallengeError::Linked),
            "{kind}: {error}"
        );
        fs::remove_file(&path)
            .or_else(|_| fs::remove_dir(&path))
            .unwrap();
    }
}

#[test]
fn the_owner_and_the_mode_must_be_right() {
    let (dir, files) = key_files();
    let path = dir.path().join(NAME);
    fs::write(&path, "k3y").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o602)).unwrap();
    assert!(matches!(files.read(&name()), Err(ChallengeError::Owner(_))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        files.read(&name()),
        Err(ChallengeError::DirectoryOwner { .. })
    ));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(files.read(&name()).is_ok());
    let strict = KeyFiles {
        owners: vec![geteuid().as_raw() + 1].into(),
        ..files
    };
    assert!(matches!(
        strict.read(&name()),
        Err(ChallengeError::DirectoryOwner { .. })
    ));
}

#[test]
fn what_is_no_header_value_is_refused_without_being_shown() {
    let (dir, files) = key_files();
    for content in [
        "MARKER\r\nX: y",
        "MARKER \u{e9}",
        "MARKER\0",
        "MAR KER",
        "\n",
        "MARKER\n\n",
    ] {
        fs::write(dir.path().join(NAME), content).unwrap();
        let error = files.read(&name()).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("MARKER"),
            "{error:?}"
        );
    }
}

#[test]
fn u07_a_key_that_is_gone_is_told_apart_from_one_that_may_not_be_read() {
    let (_dir, files) = key_files();
    assert!(matches!(files.read(&name()), Err(ChallengeError::Absent)));
    assert!(matches!(refused(Errno::EACCES), ChallengeError::Denied));
}
