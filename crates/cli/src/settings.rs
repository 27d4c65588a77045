//! What the commands need of the daemon's configuration: where its policy and its audit file are, and
//! which cloud the machine is in.
//!
//! Other keys are not looked at: `arcbrokerd --check` judges the whole file.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use arcbroker_policy::{Cloud, Diagnostics, Document, Scalar, Table};
use arcbroker_policy_files::user_id;

use crate::policy::{Error, Mistakes};

/// The environment variable that names the configuration.
pub(crate) const CONFIG_VARIABLE: &str = "ARCBROKER_CONFIG";

const CONFIG: &str = "/etc/arcbroker/broker.toml";
const POLICY_DIR: &str = "/etc/arcbroker/policy.d";
const SHADOW_DIR: &str = "/etc/arcbroker/policy.shadow.d";
const AUDIT_FILE: &str = "/var/log/arcbroker/audit.jsonl";

/// Where things are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    pub(crate) policy_dir: PathBuf,
    pub(crate) shadow_dir: PathBuf,
    /// User ids that may own the policy files.
    pub(crate) owners: Vec<u32>,
    /// None where no file is kept.
    pub(crate) audit_file: Option<PathBuf>,
    /// None where the machine is to tell.
    pub(crate) cloud: Option<Cloud>,
}

impl Settings {
    /// Reads the file that was named, or the usual one; where the usual one is not there, all has its
    /// documented default.
    pub(crate) fn read(config: Option<&Path>) -> Result<Self, Error> {
        let path = config.unwrap_or(Path::new(CONFIG));
        let bytes = match fs::read(path) {
            Err(error) if config.is_none() && error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| Error::read(path, error))?,
        };
        Self::parse(&path.display().to_string(), &bytes)
    }

    fn parse(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        let mut diagnostics = Diagnostics::new();
        let document = Document::parse(name, bytes, &mut diagnostics);
        let mut root = document.as_ref().map(Document::table);
        let mut table = |key| root.as_mut()?.table(key, &mut diagnostics);
        let (policy, audit, upstream) = (table("policy"), table("audit"), table("upstream"));
        let mut policy = Reader(policy, &mut diagnostics);
        let policy_dir = policy.path("dir", POLICY_DIR);
        let shadow_dir = policy.path("shadow-dir", SHADOW_DIR);
        let owners = policy.owners();
        let audit_file = Reader(audit, &mut diagnostics).path("file", AUDIT_FILE);
        let cloud = Reader(upstream, &mut diagnostics).string("cloud");
        if diagnostics.has_errors() {
            return Err(Error::Mistakes(Mistakes::of_configuration(&diagnostics)));
        }
        Ok(Self {
            policy_dir,
            shadow_dir,
            owners,
            audit_file: Some(audit_file).filter(|path| !path.as_os_str().is_empty()),
            cloud: cloud.and_then(|name| Cloud::from_az_environment(&name)),
        })
    }
}

/// A table, or the place where it could be.
struct Reader<'t, 'd>(Option<Table<'t>>, &'d mut Diagnostics);

impl Reader<'_, '_> {
    fn string(&mut self, key: &'static str) -> Option<String> {
        let text = self.0.as_mut()?.string(key, self.1)?;
        Some(text.value)
    }

    fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        self.string(key)
            .unwrap_or_else(|| default.to_owned())
            .into()
    }

    fn owners(&mut self) -> Vec<u32> {
        let table = self.0.as_mut();
        let Some(written) = table.and_then(|table| table.scalars("owners", self.1)) else {
            return vec![0];
        };
        let id = |owner: &Scalar| match owner {
            Scalar::Integer(id) => u32::try_from(*id).ok(),
            Scalar::String(name) => user_id(name),
        };
        written
            .iter()
            .filter_map(|owner| id(&owner.value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_has_its_default_and_other_keys_are_left_to_the_daemon() {
        let settings = Settings::parse("f", b"[sockets]\nnonsense = 1\n[policy]\nmore = []\n");
        let expected = Settings {
            policy_dir: POLICY_DIR.into(),
            shadow_dir: SHADOW_DIR.into(),
            owners: vec![0],
            audit_file: Some(AUDIT_FILE.into()),
            cloud: None,
        };
        assert_eq!(settings.unwrap(), expected);
    }

    #[test]
    fn what_is_written_counts() {
        let text = "[policy]\ndir = \"/a\"\nshadow-dir = \"/b\"\nowners = [\"root\", 7]\n[audit]\nfile = \"\"\n\
                    [upstream]\ncloud = \"AzureChinaCloud\"\n";
        let expected = Settings {
            policy_dir: "/a".into(),
            shadow_dir: "/b".into(),
            owners: vec![0, 7],
            audit_file: None,
            cloud: Some(Cloud::China),
        };
        assert_eq!(Settings::parse("f", text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_mistake_in_what_is_read_is_told_with_its_place() {
        let error = Settings::parse("broker.toml", b"[policy]\ndir = 7\n").unwrap_err();
        let report = error.report().unwrap();
        assert!(
            report.contains("broker.toml:2:7: `dir` must be a string"),
            "{report}"
        );
    }
}
