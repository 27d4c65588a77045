//! One `[[rule]]` of a policy file.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    Cloud, Diagnostics, Identity, Resource, ResourceError, Spanned, Table, lint, subject::Subjects,
};

/// Characters of the longest name of a rule.
pub const MAX_RULE_NAME: usize = 64;

/// Whether a name of a rule may have it: all that is seen in one line, and spaces between.
pub fn may_be_in_rule_name(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric())
}

/// A rule as written, with the resources and identities that it gives.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: Spanned<Arc<str>>,
    pub(crate) subjects: Subjects,
    pub(crate) resources: Vec<ResourcePattern>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) bypass: bool,
}

/// What a rule says about resources.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ResourcePattern {
    /// `*`
    Any,
    /// One resource, byte for byte.
    Exact(Resource),
}

impl ResourcePattern {
    /// What an entry of a rule's `resources` stands for: a short name for both spellings of its URI.
    ///
    /// # Errors
    ///
    /// It is none that a rule can have.
    pub fn named(text: &str, cloud: Cloud) -> Result<Vec<Self>, ResourceError> {
        if text == "*" {
            return Ok(vec![Self::Any]);
        }
        let pattern = Self::Exact(Resource::parse(text, cloud)?);
        let twin = twin(text, &pattern);
        Ok(std::iter::once(pattern).chain(twin).collect())
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(resource) => f.write_str(resource.as_str()),
        }
    }
}

impl Rule {
    /// Reads the whole table, however many mistakes it has; none if it has too many to be a rule.
    pub(crate) fn read(
        mut table: Table<'_>,
        cloud: Cloud,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let name = name(&mut table, diagnostics);
        let subjects = Subjects::read(&mut table, diagnostics);
        table.require(
            "resources",
            "name what is allowed: resources = [\"keyvault\"]",
            diagnostics,
        );
        let resources = table.strings("resources", diagnostics).unwrap_or_default();
        let resources = patterns(&resources, cloud, diagnostics);
        let identities = identities(&mut table, diagnostics);
        let bypass = table.boolean("bypass-cache", diagnostics);
        table.finish(diagnostics);
        Some(Self {
            name: name?,
            subjects,
            resources,
            identities,
            bypass: bypass.is_some_and(|bypass| bypass.value),
        })
    }
}

fn name(table: &mut Table<'_>, diagnostics: &mut Diagnostics) -> Option<Spanned<Arc<str>>> {
    table.require(
        "name",
        "the audit log names the rule that gave a token: name = \"...\"",
        diagnostics,
    );
    let name = table.string("name", diagnostics)?;
    let text = name.value.as_str();
    let length = text.chars().count();
    if length == 0
        || length > MAX_RULE_NAME
        || text.trim() != text
        || !text.chars().all(may_be_in_rule_name)
    {
        let help =
            format!("write 1 to {MAX_RULE_NAME} visible characters, with spaces only between them");
        diagnostics.error_at(&name, "the name cannot be shown in one line", help);
        return None;
    }
    Some(name.map(Into::into))
}

fn patterns(
    written: &[Spanned<String>],
    cloud: Cloud,
    diagnostics: &mut Diagnostics,
) -> Vec<ResourcePattern> {
    let mut seen = BTreeMap::new();
    for text in written {
        let Some(pattern) = pattern(text, written.len() == 1, cloud, diagnostics) else {
            continue;
        };
        if let Some(first) = seen.get(&pattern) {
            let message = format!(
                "`{}` is listed twice: it is the same as `{first}`",
                text.value
            );
            diagnostics.warning_at(text, message, "remove one of the two");
        } else {
            if let Some(twin) = twin(&text.value, &pattern) {
                seen.insert(twin, &text.value);
            }
            seen.insert(pattern, &text.value);
        }
        lint::spelling(text, written, cloud, diagnostics);
    }
    seen.into_keys().collect()
}

fn pattern(
    text: &Spanned<String>,
    is_alone: bool,
    cloud: Cloud,
    diagnostics: &mut Diagnostics,
) -> Option<ResourcePattern> {
    if text.value == "*" {
        any(text, is_alone, diagnostics);
        return Some(ResourcePattern::Any);
    }
    match Resource::parse(&text.value, cloud) {
        Ok(resource) => {
            if resource.as_str().contains('*') {
                let help = "name each resource; only \"*\" alone stands for all";
                diagnostics.warning_at(text, "the `*` in this resource is taken literally", help);
            }
            Some(ResourcePattern::Exact(resource))
        }
        Err(error) => {
            diagnostics.error_at(text, error.problem(), error.help());
            None
        }
    }
}

/// The other spelling of what a short name stands for, with or without the slash at the end.
///
/// Services take both, SDKs ask for either, and who writes `arm` means the service. A URI is taken
/// as it is written.
fn twin(text: &str, pattern: &ResourcePattern) -> Option<ResourcePattern> {
    let ResourcePattern::Exact(resource) = pattern else {
        return None;
    };
    let uri = resource.as_str();
    if uri == text || !uri.starts_with("https://") {
        return None;
    }
    let other = uri
        .strip_suffix('/')
        .map_or_else(|| format!("{uri}/"), str::to_owned);
    Resource::exact(&other).ok().map(ResourcePattern::Exact)
}

fn any(text: &Spanned<String>, is_alone: bool, diagnostics: &mut Diagnostics) {
    if is_alone {
        let help = "name the resources that are needed, so that no other can be had";
        diagnostics.warning_at(text, "too wide: this rule gives every resource", help);
    } else {
        let help = "remove the others, or better this one";
        diagnostics.error_at(text, "`*` already stands for every resource", help);
    }
}

fn identities(table: &mut Table<'_>, diagnostics: &mut Diagnostics) -> Vec<Identity> {
    let Some(written) = table.strings("identity", diagnostics) else {
        return vec![Identity::default()];
    };
    let mut identities: Vec<Identity> = Vec::with_capacity(written.len());
    for text in written {
        match text.value.parse() {
            Ok(identity) if identities.contains(&identity) => {
                diagnostics.warning_at(
                    &text,
                    "this identity is listed twice",
                    "remove one of the two",
                );
            }
            Ok(identity) => identities.push(identity),
            Err(error) => diagnostics.error_at(&text, error.problem(), error.help()),
        }
    }
    identities
}
