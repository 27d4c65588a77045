//! Rules by subject, identity and resource, so that a decision does not read them all.
//!
//! What a decision costs depends on the groups of the caller and on the rules that name the very
//! same subject, identity and resource with different further conditions, not on the number of
//! rules. A rule is found by the kind of subject that it shares with the fewest other rules.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use crate::{
    Caller, Identity, Resource,
    rule::ResourcePattern,
    subject::{Conditions, Kind},
    unit::UnitPattern,
};

/// A rule whose names have become numbers.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    pub(crate) name: Arc<str>,
    /// The file, and the line in it.
    pub(crate) place: (Arc<str>, usize),
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
    units: HashMap<UnitPattern, u32>,
    identities: HashMap<Identity, u32>,
    resources: HashMap<Resource, u32>,
    /// Numbers of rules, rising. A rule is left out where an earlier one covers it and gives as much.
    candidates: HashMap<Key, Vec<usize>>,
    /// The same, whatever the rules give.
    by_subject: HashMap<SubjectKey, Vec<usize>>,
}

/// One subject, by which rules are found.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum SubjectKey {
    /// By the number of the pattern.
    Unit(u32),
    User(u32),
    Group(u32),
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
        let mut crowds: HashMap<SubjectKey, usize> = HashMap::new();
        for rule in &rules {
            for key in index
                .subjects(&rule.conditions)
                .into_iter()
                .flat_map(|(_, keys)| keys)
            {
                *crowds.entry(key).or_default() += 1;
            }
        }
        let mut shadowed = Vec::new();
        for (number, rule) in rules.into_iter().enumerate() {
            if let Some(by) = index.add(number, &rule, &crowds) {
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
        let lists = self
            .keys_of(caller)
            .filter_map(|subject| self.by_subject.get(&subject));
        let rules = lists.flatten().filter_map(|number| self.rules.get(*number));
        rules.into_iter().any(|rule| rule.conditions.hold(caller))
    }

    fn candidates<'i>(
        &'i self,
        caller: &'i Caller,
        identity: &Identity,
        resource: &Resource,
    ) -> impl Iterator<Item = &'i Vec<usize>> {
        let identity = self.identities.get(identity).copied();
        let exact = self.resources.get(resource).copied();
        let keys = self.keys_of(caller).flat_map(move |subject| {
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

    /// The keys of a caller under which there are rules.
    fn keys_of<'i>(&'i self, caller: &'i Caller) -> impl Iterator<Item = SubjectKey> + 'i {
        let units = caller.unit.iter().flat_map(|unit| {
            let instances = unit.instances();
            [Some(UnitPattern::Exact(unit.clone())), instances]
                .into_iter()
                .flatten()
        });
        let units =
            units.filter_map(|pattern| self.units.get(&pattern).copied().map(SubjectKey::Unit));
        let groups = std::iter::once(caller.gid).chain(caller.groups.iter().copied());
        units
            .chain(std::iter::once(SubjectKey::User(caller.uid)))
            .chain(groups.map(SubjectKey::Group))
            .filter(|key| self.by_subject.contains_key(key))
    }

    /// The keys under which a rule can be found, by kind. Each caller for whom the rule holds has
    /// one of each kind that the rule names.
    fn subjects(&mut self, conditions: &Conditions) -> Vec<(Kind, Vec<SubjectKey>)> {
        let mut kinds = Vec::with_capacity(3);
        if let Some(units) = &conditions.units {
            let number = |unit| SubjectKey::Unit(number_of(&mut self.units, unit));
            kinds.push((Kind::Unit, units.iter().map(number).collect()));
        }
        if let Some(users) = &conditions.users {
            kinds.push((
                Kind::User,
                users.iter().copied().map(SubjectKey::User).collect(),
            ));
        }
        if let Some(groups) = &conditions.groups {
            kinds.push((
                Kind::Group,
                groups.iter().copied().map(SubjectKey::Group).collect(),
            ));
        }
        kinds
    }

    /// Adds a rule that comes after all others; the rule that covers it, if it is covered at every key.
    fn add(
        &mut self,
        number: usize,
        rule: &CompiledRule,
        crowds: &HashMap<SubjectKey, usize>,
    ) -> Option<usize> {
        let crowd =
            |keys: &[SubjectKey]| keys.iter().filter_map(|key| crowds.get(key)).max().copied();
        let kinds = self.subjects(&rule.conditions);
        let (kind, subjects) = kinds.into_iter().min_by_key(|(_, keys)| crowd(keys))?;
        for subject in &subjects {
            let holding = self.by_subject.get(subject).into_iter().flatten();
            if self.covering(holding, rule, Some(kind), |_| true).is_none() {
                self.by_subject.entry(*subject).or_default().push(number);
            }
        }
        let mut shadow = None;
        let mut decides = false;
        let others = self.witnesses(&rule.conditions);
        for key in self.keys(&subjects, rule) {
            let by = self.shadow(key, rule, Some(kind));
            let by = by.or_else(|| {
                let mut keys = others.iter().map(|subject| Key {
                    subject: *subject,
                    ..key
                });
                keys.find_map(|key| self.shadow(key, rule, None))
            });
            if by.is_some() {
                shadow = shadow.or(by);
            } else {
                decides = true;
                self.candidates.entry(key).or_default().push(number);
            }
        }
        shadow.filter(|_| !decides)
    }

    /// Some keys of one caller for whom the conditions hold: an earlier rule that holds for all such
    /// callers is found by one of them.
    fn witnesses(&self, conditions: &Conditions) -> Vec<SubjectKey> {
        let unit = conditions
            .units
            .as_ref()
            .and_then(|units| units.iter().next());
        let instances = match unit {
            Some(UnitPattern::Exact(unit)) => unit.instances(),
            _ => None,
        };
        let units = [unit, instances.as_ref()].into_iter().flatten();
        let units =
            units.filter_map(|pattern| self.units.get(pattern).copied().map(SubjectKey::Unit));
        let user = conditions.users.as_ref().and_then(|users| users.first());
        let group = conditions.groups.as_ref().and_then(|groups| groups.first());
        units
            .chain(user.copied().map(SubjectKey::User))
            .chain(group.copied().map(SubjectKey::Group))
            .collect()
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

    /// The earlier rule at `key`, or there for every resource, that gives whatever this one gives there.
    fn shadow(&self, key: Key, rule: &CompiledRule, given: Option<Kind>) -> Option<usize> {
        let any = Key {
            resource: None,
            ..key
        };
        let earlier = [any, key];
        let earlier = earlier.iter().filter_map(|key| self.candidates.get(key));
        self.covering(earlier.flatten(), rule, given, |earlier| {
            earlier.bypass >= rule.bypass
        })
    }

    fn covering<'n>(
        &self,
        mut numbers: impl Iterator<Item = &'n usize>,
        rule: &CompiledRule,
        given: Option<Kind>,
        is_enough: impl Fn(&CompiledRule) -> bool,
    ) -> Option<usize> {
        let covers = |number: &&usize| {
            self.rules.get(**number).is_some_and(|earlier| {
                is_enough(earlier) && earlier.conditions.cover(&rule.conditions, given)
            })
        };
        numbers.find(covers).copied()
    }
}

fn number_of<T: Clone + Eq + Hash>(numbers: &mut HashMap<T, u32>, value: &T) -> u32 {
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    *numbers.entry(value.clone()).or_insert(next)
}

#[cfg(test)]
mod tests;
