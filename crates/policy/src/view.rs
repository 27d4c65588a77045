//! What each rule of a policy says, for whoever shows or edits rules.

use std::{collections::BTreeSet, sync::Arc};

use crate::{Identity, Policy, ResourcePattern, UnitPattern, index::CompiledRule, unit::Units};

/// One rule of a policy, its names looked up.
#[derive(Clone, Copy, Debug)]
pub struct RuleView<'p>(&'p CompiledRule);

impl Policy {
    /// All rules, in the order of the files and within each.
    pub fn each_rule(&self) -> impl Iterator<Item = RuleView<'_>> {
        self.index().rules().iter().map(RuleView)
    }
}

impl<'p> RuleView<'p> {
    /// The name of the rule.
    pub fn name(&self) -> &'p Arc<str> {
        &self.0.name
    }

    /// The file that it is in, as the reader was given its name.
    pub fn file(&self) -> &'p str {
        &self.0.place.0
    }

    /// The line of its name, counted from 1.
    pub fn line(&self) -> usize {
        self.0.place.1
    }

    /// The users that it names; those that do not exist are left out. None where it names none.
    pub fn users(&self) -> Option<&'p BTreeSet<u32>> {
        self.0.conditions.users.as_ref()
    }

    /// As [`RuleView::users`].
    pub fn groups(&self) -> Option<&'p BTreeSet<u32>> {
        self.0.conditions.groups.as_ref()
    }

    /// The units that it names. None where it names none.
    pub fn units(&self) -> Option<impl Iterator<Item = &'p UnitPattern>> {
        self.0.conditions.units.as_ref().map(Units::iter)
    }

    /// Whether it is for containers.
    pub fn container(&self) -> bool {
        self.0.conditions.container
    }

    /// What for; a short name is the URIs that it stands for.
    pub fn resources(&self) -> &'p [ResourcePattern] {
        &self.0.resources
    }

    /// Whose tokens.
    pub fn identities(&self) -> &'p [Identity] {
        &self.0.identities
    }

    /// Whether they may be asked for past the cache.
    pub fn bypass_cache(&self) -> bool {
        self.0.bypass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Accounts, Cloud, Diagnostics, RuleSet, SourceFile};

    #[test]
    fn a_view_has_what_the_rule_says_with_names_looked_up() {
        let text = "version = 1\n[[rule]]\nname = \"a\"\nuser = [\"known\", \"unknown\"]\nunit = \"w@*.service\"\n\
                    resources = \"keyvault\"\nbypass-cache = true\n";
        let file = SourceFile {
            name: "f.toml".to_owned(),
            bytes: text.into(),
        };
        let mut diagnostics = Diagnostics::new();
        let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
        let mut accounts = Accounts::default();
        accounts.users.insert("known".to_owned(), 7);
        let policy = rules.compile(&accounts, &mut diagnostics);
        let views: Vec<_> = policy.each_rule().collect();
        let [view] = views.as_slice() else {
            panic!("{views:?}")
        };
        assert_eq!(
            (&**view.name(), view.file(), view.line()),
            ("a", "f.toml", 3)
        );
        assert_eq!(view.users(), Some(&BTreeSet::from([7])));
        assert_eq!(view.groups(), None);
        let units: Vec<_> = view.units().unwrap().map(ToString::to_string).collect();
        assert_eq!(units, ["w@*.service"]);
        let resources: Vec<_> = view.resources().iter().map(ToString::to_string).collect();
        assert_eq!(
            resources,
            ["https://vault.azure.net", "https://vault.azure.net/"]
        );
        assert_eq!(view.identities(), [Identity::System]);
        assert!(view.bypass_cache() && !view.container());
    }
}
