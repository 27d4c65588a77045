//! systemd units: the names that processes run under, and what a rule says about them.

use std::{collections::BTreeSet, fmt, hash, str::FromStr, sync::Arc};

use crate::escape::excerpt;

/// Bytes of the longest name of a unit (systemd's `UNIT_NAME_MAX`).
const MAX_NAME: usize = 255;
/// The kinds of units that hold processes.
const HOLDERS: [&str; 2] = [".service", ".scope"];
/// The kinds of units that hold none.
const OTHERS: [&str; 9] = [
    ".timer",
    ".socket",
    ".path",
    ".target",
    ".slice",
    ".mount",
    ".automount",
    ".swap",
    ".device",
];

/// The name of a unit that holds processes: `backup.service`, `worker@blue.service`, `x.scope`.
///
/// Always one that can run: a template without an instance is none. Compared byte by byte.
#[derive(Clone, Debug)]
pub struct Unit {
    name: Arc<str>,
    /// `worker@.service` of `worker@blue.service`.
    template: Option<Arc<str>>,
}

/// What a rule says about units.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum UnitPattern {
    /// One unit.
    Exact(Unit),
    /// Every instance of this template: `worker@.service`, written `worker@*.service`.
    Instances(Arc<str>),
}

/// The text names no unit that can hold processes.
///
/// Printed as what is wrong and what to write instead, in visible ASCII.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum UnitError {
    /// Empty, too long, or with characters that no name has.
    Form(String),
    /// No suffix.
    Suffix(String),
    /// A unit that holds no processes.
    Kind(String),
    /// A template without an instance.
    Template(String),
    /// A `*` that is not the whole instance.
    Star(String),
}

impl Unit {
    /// Reads the name of a unit.
    pub fn parse(name: &str) -> Result<Self, UnitError> {
        let (stem, suffix) = split(name)?;
        match stem.split_once('@') {
            Some((_, "")) => Err(UnitError::Template(name.to_owned())),
            Some((prefix, _)) => Ok(Self {
                name: name.into(),
                template: Some(format!("{prefix}@{suffix}").into()),
            }),
            None => Ok(Self {
                name: name.into(),
                template: None,
            }),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The template that it is an instance of, if it is one: `worker@.service`.
    pub fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// What a rule says that holds for it and its siblings.
    pub(crate) fn instances(&self) -> Option<UnitPattern> {
        self.template.clone().map(UnitPattern::Instances)
    }
}

impl UnitPattern {
    /// Reads what a rule says.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        if !text.contains('*') {
            return Unit::parse(text).map(Self::Exact);
        }
        let star = || UnitError::Star(text.to_owned());
        let (prefix, suffix) = text.split_once("@*").ok_or_else(star)?;
        let template = format!("{prefix}@{suffix}");
        // Any name in the place of the star must make an instance, and the star must be all of it.
        Unit::parse(&format!("{prefix}@x{suffix}")).map_err(|_| star())?;
        if prefix.contains('@') || !HOLDERS.contains(&suffix) {
            return Err(star());
        }
        Ok(Self::Instances(template.into()))
    }

    /// The unit file that would define it.
    pub fn file(&self) -> &str {
        match self {
            Self::Exact(unit) => unit.as_str(),
            Self::Instances(template) => template,
        }
    }
}

/// The stem and the suffix of a name with allowed characters.
fn split(name: &str) -> Result<(&str, &'static str), UnitError> {
    let owned = || name.to_owned();
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_' | b'.' | b'\\' | b'@')
    };
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        return Err(UnitError::Form(owned()));
    }
    for suffix in HOLDERS {
        if let Some(stem) = name.strip_suffix(suffix) {
            return if stem.is_empty() || stem.starts_with('@') {
                Err(UnitError::Form(owned()))
            } else {
                Ok((stem, suffix))
            };
        }
    }
    Err(if OTHERS.iter().any(|suffix| name.ends_with(suffix)) {
        UnitError::Kind(owned())
    } else {
        UnitError::Suffix(owned())
    })
}

impl PartialEq for Unit {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Unit {}

impl hash::Hash for Unit {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Ord for Unit {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

impl PartialOrd for Unit {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Unit {
    type Err = UnitError;

    fn from_str(name: &str) -> Result<Self, UnitError> {
        Self::parse(name)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for UnitPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(unit) => unit.fmt(f),
            Self::Instances(template) => f.write_str(&template.replacen('@', "@*", 1)),
        }
    }
}

/// The units that a rule names.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Units(BTreeSet<UnitPattern>);

impl Units {
    pub(crate) fn contains(&self, unit: &Unit) -> bool {
        self.0.contains(&UnitPattern::Exact(unit.clone())) || self.has_instances(unit)
    }

    /// Whether these hold for every unit for which `other` hold.
    pub(crate) fn cover(&self, other: &Self) -> bool {
        other.0.iter().all(|pattern| match pattern {
            UnitPattern::Exact(unit) => self.contains(unit),
            UnitPattern::Instances(_) => self.0.contains(pattern),
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &UnitPattern> {
        self.0.iter()
    }

    fn has_instances(&self, unit: &Unit) -> bool {
        unit.instances()
            .is_some_and(|instances| self.0.contains(&instances))
    }
}

impl FromIterator<UnitPattern> for Units {
    fn from_iter<I: IntoIterator<Item = UnitPattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl UnitError {
    /// What is wrong.
    pub fn problem(&self) -> String {
        match self {
            Self::Form(name) | Self::Suffix(name) => {
                format!("`{}` is no name of a unit", excerpt(name))
            }
            Self::Kind(name) => format!("no process runs in `{}`", excerpt(name)),
            Self::Template(name) => format!("`{}` names no instance", excerpt(name)),
            Self::Star(name) => format!("the `*` in `{}` is not a whole instance", excerpt(name)),
        }
    }

    /// What to write instead.
    pub fn help(&self) -> String {
        match self {
            Self::Form(_) => "write a name as `systemctl` lists it".to_owned(),
            Self::Suffix(name) => format!("write {}.service", excerpt(name)),
            Self::Kind(name) => {
                let stem = name
                    .rsplit_once('.')
                    .map_or(name.as_str(), |(stem, _)| stem);
                format!(
                    "processes run in services and scopes: perhaps {}.service",
                    excerpt(stem)
                )
            }
            Self::Template(name) => {
                let any = name.replacen('@', "@*", 1);
                let one = name.replacen('@', "@NAME", 1);
                format!(
                    "write {}, or {} for every instance",
                    excerpt(&one),
                    excerpt(&any)
                )
            }
            Self::Star(_) => {
                "name each unit; only NAME@*.service stands for every instance".to_owned()
            }
        }
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem(), self.help())
    }
}

impl std::error::Error for UnitError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(patterns: &[&str]) -> Units {
        let parse = |text: &&str| UnitPattern::parse(text).unwrap();
        patterns.iter().map(parse).collect()
    }

    #[test]
    fn a_name_is_kept_byte_for_byte_and_knows_its_template() {
        for (name, template) in [
            ("backup.service", None),
            ("worker@blue.service", Some("worker@.service")),
            ("a@b@c.service", Some("a@.service")),
            (r"mnt@dev-disk-by\x2dlabel.service", Some("mnt@.service")),
            ("x:y_z-1.0.scope", None),
            (".hidden.service", None),
        ] {
            let unit = Unit::parse(name).unwrap();
            assert_eq!((unit.as_str(), unit.template()), (name, template));
            assert_eq!(UnitPattern::parse(name), Ok(UnitPattern::Exact(unit)));
        }
        assert_ne!(Unit::parse("A.service"), Unit::parse("a.service"));
        let longest = format!("{}.service", "a".repeat(MAX_NAME - 8));
        assert!(Unit::parse(&longest).is_ok());
        assert!(Unit::parse(&format!("a{longest}")).is_err());
    }

    #[test]
    fn a_template_with_a_star_stands_for_its_instances_and_no_other_unit() {
        let workers = units(&["worker@*.service"]);
        for (name, expected) in [
            ("worker@blue.service", true),
            ("worker@x@y.service", true),
            ("worker.service", false),
            ("worker2@blue.service", false),
            ("worker@blue.scope", false),
            ("my-worker@blue.service", false),
        ] {
            assert_eq!(
                workers.contains(&Unit::parse(name).unwrap()),
                expected,
                "{name}"
            );
        }
        let pattern = UnitPattern::parse("worker@*.service").unwrap();
        assert_eq!(
            (pattern.to_string().as_str(), pattern.file()),
            ("worker@*.service", "worker@.service")
        );
    }

    #[test]
    fn wider_units_cover_narrower_ones() {
        let all = units(&["worker@*.service", "backup.service"]);
        assert!(all.cover(&units(&["worker@blue.service", "backup.service"])));
        assert!(all.cover(&all));
        assert!(!units(&["worker@blue.service"]).cover(&all));
        assert!(!all.cover(&units(&["worker@blue.service", "web.service"])));
    }

    #[test]
    fn every_refusal_says_what_to_write() {
        for (text, part) in [
            ("", "`` is no name of a unit"),
            ("backup", "write backup.service"),
            ("backup.timer", "perhaps backup.service"),
            ("system.slice", "no process runs in `system.slice`"),
            (".service", "write a name as `systemctl` lists it"),
            ("@x.service", "is no name of a unit"),
            (
                "worker@.service",
                "write worker@NAME.service, or worker@*.service for every instance",
            ),
            ("*", "only NAME@*.service stands"),
            ("*.service", "is not a whole instance"),
            ("back*.service", "is not a whole instance"),
            ("worker@*", "is not a whole instance"),
            ("worker@b*.service", "is not a whole instance"),
            ("worker@**.service", "is not a whole instance"),
            ("a@b@*.service", "is not a whole instance"),
            ("@*.service", "is not a whole instance"),
            ("worker@*.timer", "is not a whole instance"),
            ("b\u{430}ckup.service", "`b\\u{430}ckup.service` is no name"),
            ("a b.service", "is no name of a unit"),
            ("a/b.service", "is no name of a unit"),
        ] {
            let error = UnitPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
