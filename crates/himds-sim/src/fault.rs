//! Faults in force: set, counted down, gone.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;

use crate::fault_table::{Name, Takes};

/// A fault to have: its name, its value, and how often it strikes before it goes away.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) name: Name,
    value: Option<String>,
    count: Option<u32>,
}

impl Fault {
    /// The fault `name` with the value that it takes, in force until it is cleared.
    pub fn new(name: &str, value: Option<&str>) -> Result<Self, FaultError> {
        let known = Name::named(name).ok_or_else(|| FaultError::Unknown(name.to_owned()))?;
        if !fits(known.spec().takes, value) {
            let value = value.map(ToOwned::to_owned);
            return Err(FaultError::Value {
                name: known.spec().name,
                takes: known.spec().takes,
                value,
            });
        }
        Ok(Self {
            name: known,
            value: value.map(ToOwned::to_owned),
            count: None,
        })
    }

    /// The same fault, which goes away after it has struck `count` times.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name.spec().name
    }
}

/// `NAME[=VALUE][:COUNT]`. A value that itself ends in a colon and digits, as a URL with a port
/// does, needs a count after it: a number, or `*` for "until it is cleared".
impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (rest, count) = match text.rsplit_once(':') {
            Some((rest, "*")) => (rest, None),
            Some((rest, digits)) if is_number(digits) => match digits.parse() {
                Ok(count) if count > 0 => (rest, Some(count)),
                _ => return Err(FaultError::Count(text.to_owned())),
            },
            _ => (text, None),
        };
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (rest, None),
        };
        Ok(Self {
            count,
            ..Self::new(name, value)?
        })
    }
}

/// Why a fault cannot be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// No fault has this name.
    #[error("there is no fault `{0}`; there are: {names}", names = Names)]
    Unknown(String),
    /// The value is missing, superfluous or of the wrong kind.
    #[error("the fault `{name}` does not take {}; write {name}{takes}", Shown(.value.as_deref()))]
    Value {
        /// The fault.
        name: &'static str,
        /// What it takes.
        takes: Takes,
        /// What it was given.
        value: Option<String>,
    },
    /// A count of nought, or one that is out of range.
    #[error(
        "the count in `{0}` must be from 1 to 4294967295; leave it out to keep the fault until it is cleared"
    )]
    Count(String),
}

struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in Name::ALL.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            f.write_str(name.spec().name)?;
        }
        Ok(())
    }
}

struct Shown<'a>(Option<&'a str>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "the value `{value}`"),
            None => f.write_str("an absent value"),
        }
    }
}

fn fits(takes: Takes, value: Option<&str>) -> bool {
    match (takes, value) {
        (Takes::Nothing | Takes::NumberOr(_) | Takes::MaybeText, None)
        | (Takes::Text | Takes::MaybeText, Some(_)) => true,
        (Takes::Nothing, Some(_)) | (_, None) => false,
        (Takes::Number | Takes::NumberOr(_), Some(text)) => is_number(text) && text.len() <= 12,
        (Takes::Octal, Some(text)) => u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777),
        (Takes::Status, Some(text)) => {
            let code = text.split_once(',').map_or(text, |(code, _)| code);
            is_number(code)
                && code
                    .parse::<u16>()
                    .is_ok_and(|code| (200..600).contains(&code))
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The faults in force, shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct FaultSet(Mutex<Vec<Fault>>);

/// A fault in force, as the control socket tells it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InForce {
    name: &'static str,
    value: Option<String>,
    count: Option<u32>,
}

impl FaultSet {
    /// Puts a fault in force, in place of one of the same name.
    pub(crate) fn set(&self, fault: Fault) {
        let mut faults = self.lock();
        faults.retain(|other| other.name != fault.name);
        if fault.count != Some(0) {
            faults.push(fault);
        }
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn remove(&self, name: Name) {
        self.lock().retain(|fault| fault.name != name);
    }

    pub(crate) fn list(&self) -> Vec<InForce> {
        let shown = |fault: &Fault| InForce {
            name: fault.name(),
            value: fault.value.clone(),
            count: fault.count,
        };
        self.lock().iter().map(shown).collect()
    }

    fn take(&self, name: Name) -> Option<Strike> {
        let mut faults = self.lock();
        let index = faults.iter().position(|fault| fault.name == name)?;
        let fault = faults.get_mut(index)?;
        let strike = Strike {
            takes: name.spec().takes,
            value: fault.value.clone(),
        };
        match &mut fault.count {
            None => {}
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(faults.remove(index)),
        }
        Some(strike)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The faults that strike one request: it asks for each where it would strike, and it is counted.
#[derive(Debug)]
pub(crate) struct Draw {
    set: Arc<FaultSet>,
    pub(crate) struck: Vec<&'static str>,
}

impl Draw {
    pub(crate) fn new(set: &Arc<FaultSet>) -> Self {
        Self {
            set: Arc::clone(set),
            struck: Vec::new(),
        }
    }

    /// Takes one strike of the fault, if it is in force.
    pub(crate) fn take(&mut self, name: Name) -> Option<Strike> {
        let strike = self.set.take(name)?;
        self.struck.push(name.spec().name);
        Some(strike)
    }

    /// Whether the fault strikes.
    pub(crate) fn hits(&mut self, name: Name) -> bool {
        self.take(name).is_some()
    }

    /// The first of `names` that strikes; the others are not counted.
    pub(crate) fn first(&mut self, names: &[Name]) -> Option<(Name, Strike)> {
        names
            .iter()
            .find_map(|name| self.take(*name).map(|strike| (*name, strike)))
    }
}

/// One strike of a fault, with its value, which fits what the fault takes.
#[derive(Clone, Debug)]
pub(crate) struct Strike {
    takes: Takes,
    value: Option<String>,
}

impl Strike {
    pub(crate) fn text(&self) -> Option<&str> {
        self.value.as_deref()
    }

    pub(crate) fn text_or(&self, default: &str) -> String {
        self.text().unwrap_or(default).to_owned()
    }

    pub(crate) fn number(&self) -> u64 {
        let default = if let Takes::NumberOr(default) = self.takes {
            default
        } else {
            0
        };
        self.text()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    }

    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.number()).unwrap_or(usize::MAX)
    }

    pub(crate) fn millis(&self) -> Duration {
        Duration::from_millis(self.number())
    }

    pub(crate) fn octal(&self) -> u32 {
        self.text()
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .unwrap_or_default()
    }

    /// The status, and the `Retry-After` if there is one.
    pub(crate) fn status(&self) -> (u16, Option<String>) {
        let text = self.text().unwrap_or_default();
        let (code, retry_after) = match text.split_once(',') {
            Some((code, retry_after)) => (code, Some(retry_after.to_owned())),
            None => (text, None),
        };
        (code.parse().unwrap_or(500), retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Fault {
        text.parse().unwrap()
    }

    #[test]
    fn name_value_and_count_are_told_apart() {
        for (text, value, count) in [
            ("first-hang", None, None),
            ("first-hang:3", None, Some(3)),
            ("starting=5", Some("5"), None),
            ("starting=5:1", Some("5"), Some(1)),
            (
                "redirect=http://127.0.0.1:9:*",
                Some("http://127.0.0.1:9"),
                None,
            ),
            ("realm=a=b:c", Some("a=b:c"), None),
            (
                "second-status=503,Thu, 01 Jan 2026 00:00:00 GMT:2",
                Some("503,Thu, 01 Jan 2026 00:00:00 GMT"),
                Some(2),
            ),
        ] {
            let fault = parse(text);
            assert_eq!(
                (fault.value.as_deref(), fault.count),
                (value, count),
                "{text}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_names() {
        let error = "sneeze".parse::<Fault>().unwrap_err().to_string();
        assert!(
            error.starts_with("there is no fault `sneeze`; there are: reset-on-accept, "),
            "{error}"
        );
        for name in Name::ALL {
            assert!(error.contains(name.spec().name));
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_with_what_would() {
        for (text, fitting) in [
            ("first-hang=1", "write first-hang"),
            ("first-delay", "write first-delay=N"),
            ("first-delay=soon", "write first-delay=N"),
            ("first-status=99", "write first-status=CODE[,RETRY-AFTER]"),
            (
                "first-status=700,1",
                "write first-status=CODE[,RETRY-AFTER]",
            ),
            ("key-mode=9", "write key-mode=OCTAL"),
            ("first-hang:0", "must be from 1"),
            ("first-hang:99999999999", "must be from 1"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(fitting), "{text}: {error}");
        }
    }

    #[test]
    fn a_counted_fault_strikes_that_often_and_goes_away() {
        let set = Arc::new(FaultSet::default());
        set.set(parse("first-delay=7:2"));
        let mut draw = Draw::new(&set);
        assert_eq!(draw.take(Name::FirstDelay).unwrap().number(), 7);
        assert!(draw.hits(Name::FirstDelay));
        assert!(!draw.hits(Name::FirstDelay));
        assert_eq!(draw.struck, ["first-delay", "first-delay"]);
        assert!(set.list().is_empty());
    }

    #[test]
    fn a_fault_without_a_count_stays_until_it_is_replaced_or_cleared() {
        let set = Arc::new(FaultSet::default());
        set.set(parse("first-delay=1"));
        set.set(parse("first-delay=2"));
        let mut draw = Draw::new(&set);
        for _ in 0..5 {
            assert_eq!(draw.take(Name::FirstDelay).unwrap().number(), 2);
        }
        set.remove(Name::FirstHang);
        assert!(draw.hits(Name::FirstDelay));
        set.clear();
        assert!(!draw.hits(Name::FirstDelay));
    }

    #[test]
    fn names_are_unique() {
        for (index, name) in Name::ALL.iter().enumerate() {
            assert_eq!(Name::named(name.spec().name), Some(*name), "{index}");
        }
    }
}
