//! Rules by subject, identity and resource, so that a decision does not read them all.
//!
//! What a decision costs depends on the groups of the caller and on the rules that name the very
//! same subject, identity and resource with different further conditions, not on the number of
//! rules.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use crate::{
    Caller, Identity, Resource,
    rule::ResourcePattern,
    subject::{Conditions, SubjectKey},
};

/// A rule whose names have become numbers.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    pub(crate) name: Arc<str>,
    pub(crate) conditions: Conditions,
    pub(crate) resources: Vec<ResourcePattern>,
    pub(crate) identities: Vec<Identity>,
    /// Whether tokens may be asked for past the cache.
    pub(crate) bypass: bool,
}

/// What the rules that give something say together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict<'i> {
    /// The first of them.
    pub(crate) first: &'i CompiledRule,
    /// Whether any of them allows to ask past the cache.
    pub(crate) bypass: bool,
}

/// The rules, and where to find them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    rules: Vec<CompiledRule>,
    identities: HashMap<Identity, u32>,
    resources: HashMap<Resource, u32>,
    /// Numbers of rules, rising. A rule is left out where an earlier one covers it and gives as much.
    candidates: HashMap<Key, Vec<usize>>,
    by_subject: HashMap<SubjectKey, Vec<usize>>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    subject: SubjectKey,
    identity: u32,
    /// None for the rules that give every resource.
    resource: Option<u32>,
}

impl Index {
    /// The index, and each rule that never decides with the one before it that does instead.
    pub(crate) fn new(rules: Vec<CompiledRule>) -> (Self, Vec<(usize, usize)>) {
        let mut index = Self::default();
        let mut shadowed = Vec::new();
        for (number, rule) in rules.into_iter().enumerate() {
            if let Some(by) = index.add(number, &rule) {
                shadowed.push((number, by));
            }
            index.rules.push(rule);
        }
        (index, shadowed)
    }

    pub(crate) fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// What the rules say that give the caller this resource with this identity, if there are any.
    pub(crate) fn verdict(
        &self,
        caller: &Caller,
        identity: &Identity,
        resource: &Resource,
    ) -> Option<Verdict<'_>> {
        let lists = self.candidates(caller, identity, resource);
        let giving = lists.flatten().copied().filter_map(|number| {
            let rule = self.rules.get(number)?;
            rule.conditions
                .hold(caller)
                .then_some((number, rule.bypass))
        });
        let (first, bypass) =
            giving.reduce(|(first, any), (number, bypass)| (first.min(number), any || bypass))?;
        Some(Verdict {
            first: self.rules.get(first)?,
            bypass,
        })
    }

    /// Whether any rule holds for the caller, whatever it gives.
    pub(crate) fn names(&self, caller: &Caller) -> bool {
        let lists = SubjectKey::of(caller).filter_map(|subject| self.by_subject.get(&subject));
        lists.flatten().any(|number| self.holds(*number, caller))
    }

    fn candidates<'i>(
        &'i self,
        caller: &'i Caller,
        identity: &Identity,
        resource: &Resource,
    ) -> impl Iterator<Item = &'i Vec<usize>> {
        let identity = self.identities.get(identity).copied();
        let exact = self.resources.get(resource).copied();
        let subjects = SubjectKey::of(caller);
        let keys = subjects.flat_map(move |subject| {
            let key = move |resource| {
                Some(Key {
                    subject,
                    identity: identity?,
                    resource,
                })
            };
            [key(None), exact.and_then(|exact| key(Some(exact)))]
                .into_iter()
                .flatten()
        });
        keys.filter_map(|key| self.candidates.get(&key))
    }

    fn holds(&self, number: usize, caller: &Caller) -> bool {
        self.rules
            .get(number)
            .is_some_and(|rule| rule.conditions.hold(caller))
    }

    /// Adds a rule that comes after all others; the rule that covers it, if it is covered at every key.
    fn add(&mut self, number: usize, rule: &CompiledRule) -> Option<usize> {
        let mut shadow = None;
        let mut decides = false;
        let subjects = rule.conditions.keys();
        for subject in &subjects {
            self.by_subject.entry(*subject).or_default().push(number);
        }
        for key in self.keys(&subjects, rule) {
            if let Some(by) = self.covering(key, rule) {
                shadow = shadow.or(Some(by));
            } else {
                decides = true;
                self.candidates.entry(key).or_default().push(number);
            }
        }
        shadow.filter(|_| !decides)
    }

    fn keys(&mut self, subjects: &[SubjectKey], rule: &CompiledRule) -> Vec<Key> {
        let mut keys =
            Vec::with_capacity(subjects.len() * rule.identities.len() * rule.resources.len());
        for identity in &rule.identities {
            let identity = number_of(&mut self.identities, identity);
            for pattern in &rule.resources {
                let resource = match pattern {
                    ResourcePattern::Any => None,
                    ResourcePattern::Exact(resource) => {
                        Some(number_of(&mut self.resources, resource))
                    }
                };
                keys.extend(subjects.iter().map(|subject| Key {
                    subject: *subject,
                    identity,
                    resource,
                }));
            }
        }
        keys
    }

    fn covering(&self, key: Key, rule: &CompiledRule) -> Option<usize> {
        let any = Key {
            resource: None,
            ..key
        };
        let earlier = [any, key]
            .into_iter()
            .filter_map(|key| self.candidates.get(&key))
            .flatten()
            .copied();
        earlier.into_iter().find(|number| {
            self.rules.get(*number).is_some_and(|earlier| {
                earlier.bypass >= rule.bypass
                    && earlier.conditions.cover(&rule.conditions, key.subject)
            })
        })
    }
}

fn number_of<T: Clone + Eq + Hash>(numbers: &mut HashMap<T, u32>, value: &T) -> u32 {
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    *numbers.entry(value.clone()).or_insert(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Accounts, Cloud, Diagnostics, RuleSet, SourceFile};

    fn index(rules: impl Iterator<Item = String>) -> Index {
        let text = format!("version = 1\n{}", rules.collect::<String>());
        let file = SourceFile {
            name: "f".to_owned(),
            bytes: text.into_bytes(),
        };
        let mut diagnostics = Diagnostics::new();
        let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
        rules.index(&Accounts::default(), &mut diagnostics).0
    }

    fn examined(index: &Index, caller: &Caller) -> usize {
        let arm = Resource::parse("arm", Cloud::Public).unwrap();
        index
            .candidates(caller, &Identity::System, &arm)
            .map(Vec::len)
            .sum()
    }

    #[test]
    fn rules_for_others_cost_nothing() {
        let rule = |uid: usize| {
            format!("[[rule]]\nname = 'r{uid}'\nuser = {uid}\nresources = ['arm', 'graph']\n")
        };
        let index = index((0..3000).map(rule));
        assert_eq!(
            examined(
                &index,
                &Caller {
                    uid: 1500,
                    gid: 7,
                    groups: vec![8, 9]
                }
            ),
            1
        );
        assert_eq!(
            examined(
                &index,
                &Caller {
                    uid: 9999,
                    gid: 7,
                    groups: vec![8, 9]
                }
            ),
            0
        );
    }

    #[test]
    fn rules_that_never_decide_cost_nothing() {
        let rule = |n: usize| {
            format!(
                "[[rule]]\nname = 'r{n}'\nuser = 1\ngroup = {}\nresources = 'arm'\n",
                n % 2
            )
        };
        let index = index((0..1000).map(rule));
        assert_eq!(
            examined(
                &index,
                &Caller {
                    uid: 1,
                    gid: 1,
                    groups: vec![]
                }
            ),
            2
        );
    }
}
