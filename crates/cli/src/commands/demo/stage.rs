//! The directory of the demo, and the files that the broker reads.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::unistd::{Gid, Uid};
use tempfile::TempDir;

use super::Error;

/// A directory of mode 0700 that goes with this value.
#[derive(Debug)]
pub(super) struct Stage(TempDir);

impl Stage {
    pub(super) fn new() -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        let made = tempfile::Builder::new()
            .prefix("arcbroker-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent);
        let stage = Self(made.map_err(failed(&parent))?);
        for (name, mode) in [("run", 0o750), ("tokens", 0o700), ("policy.d", 0o700)] {
            let path = stage.path(name);
            DirBuilder::new()
                .mode(mode)
                .create(&path)
                // The umask may have taken bits that the group of the socket needs.
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
                .map_err(failed(&path))?;
        }
        stage.write("policy.d/demo.toml", &policy(Uid::effective()))?;
        Ok(stage)
    }

    pub(super) fn write_config(&self, himds: &str) -> Result<(), Error> {
        self.write("broker.toml", &self.config(himds))
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.path("broker.toml")
    }

    pub(super) fn rules(&self) -> PathBuf {
        self.path("policy.d/demo.toml")
    }

    pub(super) fn challenge_keys(&self) -> PathBuf {
        self.path("tokens")
    }

    pub(super) fn token_socket(&self) -> PathBuf {
        self.path("run/token.sock")
    }

    pub(super) fn admin_socket(&self) -> PathBuf {
        self.path("run/admin.sock")
    }

    pub(super) fn audit_log(&self) -> PathBuf {
        self.path("audit.jsonl")
    }

    /// A file for what a service says on standard error, and its path.
    pub(super) fn log(&self, service: &str) -> Result<(PathBuf, Stdio), Error> {
        let path = self.path(&format!("{service}.log"));
        let file = create(&path).map_err(failed(&path))?;
        Ok((path, Stdio::from(file)))
    }

    pub(super) fn remove(self) -> Result<(), Error> {
        let path = self.0.path().to_owned();
        self.0.close().map_err(failed(&path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Every path and owner is the demo's own; everything else is as it ships.
    fn config(&self, himds: &str) -> String {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let path = |name| text(&self.path(name).to_string_lossy());
        format!(
            "\
[upstream]
kind = \"himds\"
himds-endpoint = {himds}
tokens-dir = {tokens}
owners = [\"{uid}\"]

[sockets]
token = {token}
token-mode = \"0660\"
token-group = \"{gid}\"
admin = {admin}

[policy]
dir = {policy}
owners = [\"{uid}\"]

[audit]
file = {audit}
journald = false
required = true
",
            himds = text(himds),
            tokens = path("tokens"),
            token = path("run/token.sock"),
            admin = path("run/admin.sock"),
            policy = path("policy.d"),
            audit = path("audit.jsonl"),
        )
    }

    fn write(&self, name: &str, content: &str) -> Result<(), Error> {
        let path = self.path(name);
        create(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(failed(&path))
    }
}

fn policy(uid: Uid) -> String {
    format!(
        "\
version = 1

[[rule]]
name = \"demo\"
user = \"{uid}\"
resources = [\"storage\", \"keyvault\", \"arm\"]
"
    )
}

/// A TOML string; JSON's are a part of them.
fn text(content: &str) -> String {
    serde_json::Value::from(content).to_string()
}

fn create(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Stage {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn nobody_else_can_look_in_or_write_policy_and_configuration() {
        let stage = Stage::new().unwrap();
        stage.write_config("http://127.0.0.1:1").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(stage.0.path()), 0o700);
        assert_eq!(mode(stage.token_socket().parent().unwrap()), 0o750);
        assert_eq!(mode(stage.rules().parent().unwrap()), 0o700);
        assert_eq!(mode(&stage.rules()), 0o600);
        assert_eq!(mode(&stage.configuration()), 0o600);

        let path = stage.0.path().to_owned();
        stage.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn every_path_in_the_configuration_is_there_or_is_made_by_the_broker() {
        let stage = Stage::new().unwrap();
        let config = stage.config("http://127.0.0.1:1");
        let start = stage.0.path().to_str().unwrap();
        let mut named: Vec<&str> = config
            .split('"')
            .filter_map(|text| text.strip_prefix(start))
            .collect();
        named.retain(|name| !stage.path(name.trim_start_matches('/')).exists());
        assert_eq!(
            named,
            ["/run/token.sock", "/run/admin.sock", "/audit.jsonl"]
        );
        assert!(!config.contains("shadow-dir"), "{config}");
    }

    #[test]
    fn a_path_with_quotes_is_still_one_string() {
        assert_eq!(text(r#"/a "b" \c"#), r#""/a \"b\" \\c""#);
    }
}
