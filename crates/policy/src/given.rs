//! Which rules of a policy give what another asks for.

use crate::{
    Examined, Identity, Policy, ResourcePattern, Subject,
    compare::{Fresh, atoms, gifts},
};

/// Something that all callers who have what the subject names can have, and the rules that give it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Given {
    /// Who.
    pub subject: Subject,
    /// Whose token.
    pub identity: Identity,
    /// For what.
    pub resource: ResourcePattern,
    /// The rules that give it, each alone.
    pub rules: Vec<Examined>,
}

impl Policy {
    /// What of all that `asked` gives this policy gives as well: each subject, identity and resource
    /// once. Reads all rules for each of them.
    pub fn given(&self, asked: &Self) -> Vec<Given> {
        let fresh = Fresh::beside(self, asked);
        let mut given: Vec<Given> = Vec::new();
        for rule in asked.index().rules() {
            for subject in atoms(&rule.conditions) {
                let caller = fresh.caller(&subject);
                for (identity, pattern) in gifts(rule) {
                    let explanation = self.explain(&caller, identity, fresh.resource(pattern));
                    let mut rules = explanation.rules;
                    rules.retain(|rule| rule.failed.is_empty());
                    if !rules.is_empty() {
                        given.push(Given {
                            subject: subject.clone(),
                            identity: identity.clone(),
                            resource: pattern.clone(),
                            rules,
                        });
                    }
                }
            }
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::{Accounts, Cloud, Diagnostics, RuleSet, SourceFile};

    fn policy_of(rules: &[&str]) -> Policy {
        let mut text = "version = 1\n".to_owned();
        for (number, rule) in rules.iter().enumerate() {
            writeln!(text, "[[rule]]\nname = \"r{number}\"\n{rule}").unwrap();
        }
        let file = SourceFile {
            name: "f.toml".to_owned(),
            bytes: text.into_bytes(),
        };
        let mut diagnostics = Diagnostics::new();
        let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
        rules.compile(&Accounts::default(), &mut diagnostics)
    }

    fn given(policy: &Policy, asked: &Policy) -> Vec<String> {
        let given = policy.given(asked).into_iter();
        let text = |given: Given| {
            let rules: Vec<_> = given.rules.iter().map(|rule| &*rule.rule).collect();
            format!(
                "{}: {} by {}",
                given.subject,
                given.resource,
                rules.join(" ")
            )
        };
        given.map(text).collect()
    }

    #[test]
    fn every_rule_that_gives_it_alone_is_named_and_no_other() {
        let policy = policy_of(&[
            "user = 1\nresources = [\"api://a\", \"api://b\"]",
            "user = [1, 2]\nresources = \"*\"",
            "user = 1\ngroup = 5\nresources = \"api://a\"",
            "user = 1\ncontainer = true\nresources = \"api://a\"",
        ]);
        let asked = policy_of(&["user = [1, 2, 3]\nresources = \"api://a\""]);
        assert_eq!(
            given(&policy, &asked),
            ["user 1: api://a by r0 r1", "user 2: api://a by r1"]
        );
        let everything = policy_of(&["user = 1\nresources = \"*\""]);
        assert_eq!(given(&policy, &everything), ["user 1: * by r1"]);
    }
}
