//! All policy files together, before the names in them are looked up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::{
    Accounts, Cloud, Diagnostics, Document, Policy, Spanned,
    index::{CompiledRule, Index},
    rule::Rule,
    source::Location,
    subject::Account,
};

/// The version of the schema of policy files.
const VERSION: i64 = 1;

/// A policy file as the shell has read it.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The path, as messages show it.
    pub name: String,
    /// The contents.
    pub bytes: Vec<u8>,
}

/// The rules of all policy files, in the order of the files and within each.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    hash: Arc<str>,
}

impl RuleSet {
    /// Reads the files; well-known names of resources get the URIs of `cloud`.
    ///
    /// Returns none if anything in any file is wrong: a policy is used whole or not at all.
    pub fn parse(
        files: &[SourceFile],
        cloud: Cloud,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let errors_before = diagnostics.errors();
        let mut rules = Vec::new();
        for file in files {
            read_file(file, cloud, &mut rules, diagnostics);
        }
        check_names(&rules, diagnostics);
        (diagnostics.errors() == errors_before).then(|| Self {
            rules,
            hash: hash(files),
        })
    }

    /// The user names to look up for [`RuleSet::compile`].
    pub fn user_names(&self) -> BTreeSet<&str> {
        names(
            self.rules
                .iter()
                .filter_map(|rule| rule.subjects.users.as_deref()),
        )
    }

    /// The group names to look up for [`RuleSet::compile`].
    pub fn group_names(&self) -> BTreeSet<&str> {
        names(
            self.rules
                .iter()
                .filter_map(|rule| rule.subjects.groups.as_deref()),
        )
    }

    /// The unit files to look for for [`RuleSet::compile`].
    pub fn unit_names(&self) -> BTreeSet<&str> {
        let units = self
            .rules
            .iter()
            .filter_map(|rule| rule.subjects.units.as_deref());
        units.flatten().map(|unit| unit.value.file()).collect()
    }

    /// Reports every rule on a unit as an error: for a system where units cannot be told safely.
    pub fn refuse_units(&self, reason: &str, help: &str, diagnostics: &mut Diagnostics) {
        let units = self
            .rules
            .iter()
            .filter_map(|rule| rule.subjects.units.as_deref());
        for unit in units.filter_map(|units| units.first()) {
            diagnostics.error_at(unit, reason, help);
        }
    }

    /// The policy, with `accounts` in the place of names.
    ///
    /// Warns of names that are not among them, which match nobody, and of rules that never decide
    /// because an earlier one gives the same.
    pub fn compile(&self, accounts: &Accounts, diagnostics: &mut Diagnostics) -> Policy {
        let (index, shadowed) = self.index(accounts, diagnostics);
        for (rule, by) in shadowed {
            self.warn_of_shadow(rule, by, diagnostics);
        }
        Policy::new(index, Arc::clone(&self.hash))
    }

    pub(crate) fn index(
        &self,
        accounts: &Accounts,
        diagnostics: &mut Diagnostics,
    ) -> (Index, Vec<(usize, usize)>) {
        let compiled = |rule: &Rule| CompiledRule {
            name: Arc::clone(&rule.name.value),
            place: (rule.name.location.file().into(), rule.name.location.line()),
            conditions: rule.subjects.resolve(accounts, diagnostics),
            resources: rule.resources.clone(),
            identities: rule.identities.clone(),
            bypass: rule.bypass,
        };
        Index::new(self.rules.iter().map(compiled).collect())
    }

    fn warn_of_shadow(&self, rule: usize, by: usize, diagnostics: &mut Diagnostics) {
        if let (Some(rule), Some(by)) = (self.rules.get(rule), self.rules.get(by)) {
            let place: &Location = by.name.as_ref();
            let help = format!(
                "remove it, or narrow `{}` at {}:{}",
                by.name.value,
                place.file(),
                place.line()
            );
            diagnostics.warning_at(
                &rule.name,
                "this rule never decides: earlier rules give the same",
                help,
            );
        }
    }
}

fn read_file(
    file: &SourceFile,
    cloud: Cloud,
    rules: &mut Vec<Rule>,
    diagnostics: &mut Diagnostics,
) {
    let Some(document) = Document::parse(&file.name, &file.bytes, diagnostics) else {
        return;
    };
    let mut root = document.table();
    root.require(
        "version",
        "write version = 1 as the first line",
        diagnostics,
    );
    if let Some(version) = root.integer("version", 0..=i64::MAX, diagnostics)
        && version.value != VERSION
    {
        // What another version means by its keys is unknown, so nothing more is said about them.
        let message = format!("version {} of policy files is not known", version.value);
        diagnostics.error_at(
            &version,
            message,
            "write version = 1, or install a newer arcbroker",
        );
        return;
    }
    let tables = root.tables("rule", diagnostics);
    rules.extend(
        tables
            .into_iter()
            .filter_map(|table| Rule::read(table, cloud, diagnostics)),
    );
    root.finish(diagnostics);
}

fn check_names(rules: &[Rule], diagnostics: &mut Diagnostics) {
    let mut seen: BTreeMap<&str, &Spanned<Arc<str>>> = BTreeMap::new();
    for rule in rules {
        if let Some(first) = seen.get(&*rule.name.value) {
            let message = format!("another rule is named `{}`", rule.name.value);
            let help = format!(
                "choose another name: {}:{} has this one",
                first.location.file(),
                first.location.line()
            );
            diagnostics.error_at(&rule.name, message, help);
        } else {
            seen.insert(&rule.name.value, &rule.name);
        }
    }
}

fn names<'r>(lists: impl Iterator<Item = &'r [Spanned<Account>]>) -> BTreeSet<&'r str> {
    let name = |account: &'r Spanned<Account>| match &account.value {
        Account::Name(name) => Some(name.as_str()),
        Account::Id(_) => None,
    };
    lists.flatten().filter_map(name).collect()
}

/// The lengths go in too, so that no two sets of files are written as the same bytes.
pub(crate) fn hash(files: &[SourceFile]) -> Arc<str> {
    const BYTES: usize = 6;
    let mut sha256 = Sha256::new();
    for part in files
        .iter()
        .flat_map(|file| [file.name.as_bytes(), &file.bytes])
    {
        sha256.update((part.len() as u64).to_be_bytes());
        sha256.update(part);
    }
    let mut hex = String::with_capacity(2 * BYTES);
    for byte in sha256.finalize().iter().take(BYTES) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_where_a_name_ends() {
        let file = |name: &str, text: &str| SourceFile {
            name: name.to_owned(),
            bytes: text.into(),
        };
        let hashes = [
            hash(&[file("a", "bc")]),
            hash(&[file("ab", "c")]),
            hash(&[file("a", "b"), file("c", "")]),
            hash(&[file("", "abc")]),
        ];
        assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), hashes.len());
    }
}
