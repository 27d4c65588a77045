//! `arcbroker rules`

use std::path::Path;

use arcbroker_client::Client;
use arcbroker_policy::{Accounts, Resource, ResourcePattern, RuleView, Unit, UnitPattern};
use arcbroker_policy_files::{Owners, group_id, user_id};
use serde::Serialize;

use crate::{
    args::policy::Rules,
    exit::{Exit, Failure},
    output::{self, Page},
    policy::{Error, judge::Judge, live::cloud_of_machine, say},
    settings::Settings,
};

/// What a rule must be about to be shown.
struct Filter {
    users: Vec<u32>,
    groups: Vec<u32>,
    units: Vec<String>,
    container: bool,
    resource: Option<Vec<ResourcePattern>>,
}

pub(super) async fn run(
    admin: &Client,
    config: Option<&Path>,
    args: &Rules,
) -> Result<Exit, Failure> {
    let settings = Settings::read(config)?;
    let dir = args.files.dir(&settings);
    let cloud = match (args.files.cloud, settings.cloud) {
        (None, None) => cloud_of_machine(admin).await,
        _ => None,
    };
    let judge = Judge {
        cloud: args.files.cloud(cloud, &settings),
        accounts: &Accounts::default(),
    };
    let judged = judge.directory(&dir, Owners::Anybody)?;
    let filter = Filter::new(args, judge.cloud)?;
    let rules: Vec<_> = judged
        .policy
        .each_rule()
        .filter(|rule| filter.takes(*rule))
        .collect();
    if args.json {
        output::print_json(&Document {
            schema: arcbroker_client::wire::SCHEMA,
            rules: rules.iter().copied().map(Entry::new).collect(),
        })?;
        return Ok(Exit::OK);
    }
    let mut page = Page::new();
    let rows: Vec<_> = rules.iter().flat_map(|rule| filter.rows(*rule)).collect();
    if rows.is_empty() {
        page.line("no rule gives this to anybody");
    } else {
        page.table(["WHO", "RESOURCE", "IDENTITY", "RULE", "PLACE"], &rows);
    }

    page.print()?;
    Ok(Exit::OK)
}

impl Filter {
    fn new(args: &Rules, cloud: arcbroker_policy::Cloud) -> Result<Self, Error> {
        let ids = |kind, names: &[String], find: fn(&str) -> Option<u32>| {
            let id = |name: &String| {
                find(name).ok_or_else(|| Error::NoAccount {
                    kind,
                    name: name.clone(),
                })
            };
            names.iter().map(id).collect::<Result<Vec<_>, _>>()
        };
        // What is no resource is in no rule.
        let patterns = |text: &String| match ResourcePattern::named(text, cloud) {
            Ok(patterns) => patterns,
            Err(_) => Resource::exact(text)
                .map(ResourcePattern::Exact)
                .into_iter()
                .collect(),
        };
        Ok(Self {
            users: ids("user", &args.who.user, user_id)?,
            groups: ids("group", &args.who.group, group_id)?,
            units: args.who.unit.clone(),
            container: args.who.container,
            resource: args.resource.as_ref().map(patterns),
        })
    }

    fn takes(&self, rule: RuleView<'_>) -> bool {
        let named = |wanted: &[u32], has: Option<&std::collections::BTreeSet<u32>>| {
            wanted.is_empty()
                || has.is_some_and(|has| wanted.iter().any(|wanted| has.contains(wanted)))
        };
        let unit = self.units.is_empty()
            || rule.units().is_some_and(|mut has| {
                has.any(|has| self.units.iter().any(|wanted| is_about(has, wanted)))
            });
        named(&self.users, rule.users())
            && named(&self.groups, rule.groups())
            && unit
            && (!self.container || rule.container())
            && rule.resources().iter().any(|pattern| self.shows(pattern))
    }

    fn shows(&self, pattern: &ResourcePattern) -> bool {
        self.resource
            .as_ref()
            .is_none_or(|wanted| *pattern == ResourcePattern::Any || wanted.contains(pattern))
    }

    fn rows(&self, rule: RuleView<'_>) -> Vec<[String; 5]> {
        let mut rows = Vec::new();
        for identity in rule.identities() {
            for pattern in rule
                .resources()
                .iter()
                .filter(|pattern| self.shows(pattern))
            {
                let past = if rule.bypass_cache() {
                    ", also past the cache"
                } else {
                    ""
                };
                rows.push([
                    who(rule),
                    format!("{pattern}{past}"),
                    identity.to_string(),
                    rule.name().to_string(),
                    format!("{}:{}", rule.file(), rule.line()),
                ]);
            }
        }
        rows
    }
}

/// Whether a rule says something about this unit, written as in a rule.
fn is_about(pattern: &UnitPattern, wanted: &str) -> bool {
    let unit = Unit::parse(wanted).ok();
    pattern.to_string() == wanted
        || matches!(pattern, UnitPattern::Instances(template)
            if unit.is_some_and(|unit| unit.template() == Some(template)))
}

fn who(rule: RuleView<'_>) -> String {
    let either = |kind: &str, names: Vec<String>| match names.as_slice() {
        [] => format!("no {kind} that exists"),
        names => format!("{kind} {}", names.join("|")),
    };
    let units = rule.units().map(|units| {
        let names: Vec<_> = units.map(ToString::to_string).collect();
        names.join("|")
    });
    let users = rule
        .users()
        .map(|ids| either("user", ids.iter().map(|id| say::user(*id)).collect()));
    let groups = rule
        .groups()
        .map(|ids| either("group", ids.iter().map(|id| say::group(*id)).collect()));
    let container = rule.container().then(|| "in a container".to_owned());
    let parts: Vec<_> = [units, users, groups, container]
        .into_iter()
        .flatten()
        .collect();
    parts.join(", ")
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    rules: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    rule: String,
    file: String,
    line: usize,
    users: Option<Vec<u32>>,
    groups: Option<Vec<u32>>,
    units: Option<Vec<String>>,
    container: bool,
    resources: Vec<String>,
    identities: Vec<String>,
    bypass_cache: bool,
}

impl Entry {
    fn new(rule: RuleView<'_>) -> Self {
        let ids = |ids: Option<&std::collections::BTreeSet<u32>>| {
            ids.map(|ids| ids.iter().copied().collect())
        };
        Self {
            rule: rule.name().to_string(),
            file: rule.file().to_owned(),
            line: rule.line(),
            users: ids(rule.users()),
            groups: ids(rule.groups()),
            units: rule
                .units()
                .map(|units| units.map(ToString::to_string).collect()),
            container: rule.container(),
            resources: rule.resources().iter().map(ToString::to_string).collect(),
            identities: rule.identities().iter().map(ToString::to_string).collect(),
            bypass_cache: rule.bypass_cache(),
        }
    }
}
