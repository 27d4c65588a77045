//! What files allow, by the code that the daemon judges with.

use std::path::Path;

use arcbroker_policy::{Accounts, Cloud, Diagnostics, Policy, RuleSet, SourceFile};
use arcbroker_policy_files::{Owners, accounts_of, read};

use super::{Error, Mistakes};

/// Files that were read, and what they say.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) policy: Policy,
    pub(crate) warnings: Diagnostics,
}

/// What the files know of those they name: what the system says, and what goes before that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    pub(crate) cloud: Cloud,
    pub(crate) accounts: &'a Accounts,
}

impl Judge<'_> {
    /// Reads a directory and judges it.
    pub(crate) fn directory(&self, dir: &Path, owners: Owners<'_>) -> Result<Judged, Error> {
        let mut diagnostics = Diagnostics::new();
        let files = read(dir, owners, &mut diagnostics);
        if diagnostics.has_errors() {
            return Err(mistakes(&diagnostics));
        }
        self.files_with(files, diagnostics)
    }

    /// Judges files as they are here.
    pub(crate) fn files(&self, files: Vec<SourceFile>) -> Result<Judged, Error> {
        self.files_with(files, Diagnostics::new())
    }

    fn files_with(
        &self,
        files: Vec<SourceFile>,
        mut diagnostics: Diagnostics,
    ) -> Result<Judged, Error> {
        let rules = RuleSet::parse(&files, self.cloud, &mut diagnostics);
        let rules = rules.ok_or_else(|| mistakes(&diagnostics))?;
        let policy = rules.compile(&self.accounts(&rules), &mut diagnostics);
        Ok(Judged {
            files,
            policy,
            warnings: diagnostics,
        })
    }

    fn accounts(&self, rules: &RuleSet) -> Accounts {
        let mut accounts = accounts_of(rules);
        accounts.users.extend(self.accounts.users.clone());
        accounts.groups.extend(self.accounts.groups.clone());
        accounts
    }
}

fn mistakes(diagnostics: &Diagnostics) -> Error {
    Error::Mistakes(Mistakes::new("the policy has mistakes", diagnostics))
}
