//! Parameters of an administrator's request. Unlike on the token socket, an unknown one is an error:
//! here, nobody sends what is meant for another service.

use std::borrow::Cow;

use crate::ask::{Malformed, decode};

/// The parameters, in their order.
#[derive(Debug, Default)]
pub struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// [`Malformed::Query`]: it is not percent-encoded UTF-8.
    pub fn parse(query: Option<&'q str>) -> Result<Self, Malformed> {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let parameters = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        parameters.collect::<Result<_, _>>().map(Self)
    }

    /// Takes every value of a parameter.
    pub fn all(&mut self, name: &str) -> Vec<Cow<'q, str>> {
        let taken = self.0.extract_if(.., |(other, _)| other == name);
        taken.map(|(_, value)| value).collect()
    }

    /// Takes a parameter that may be there once.
    ///
    /// # Errors
    ///
    /// [`Malformed::Repeated`].
    pub fn one(&mut self, name: &'static str) -> Result<Option<Cow<'q, str>>, Malformed> {
        let mut all = self.all(name);
        let last = all.pop();
        if all.is_empty() {
            Ok(last)
        } else {
            Err(Malformed::Repeated(name))
        }
    }

    /// Takes a number that may be there once.
    ///
    /// # Errors
    ///
    /// [`Malformed::Repeated`] and [`Malformed::Value`].
    pub fn number(&mut self, name: &'static str) -> Result<Option<u32>, Malformed> {
        let text = self.one(name)?;
        text.map(|text| text.parse().map_err(|_| Malformed::Value(name)))
            .transpose()
    }

    /// Demands that nothing is left.
    ///
    /// # Errors
    ///
    /// [`Malformed::Unknown`].
    pub fn finish(self) -> Result<(), Malformed> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(Malformed::Unknown(name.into_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_by_name_and_none_may_be_left() {
        let mut query = Query::parse(Some("uid=34&group=1&group=2&unit=a%40b.service")).unwrap();
        assert_eq!(query.number("uid").unwrap(), Some(34));
        assert_eq!(query.number("uid").unwrap(), None);
        assert_eq!(query.all("group"), ["1", "2"]);
        assert!(matches!(query.finish(), Err(Malformed::Unknown(name)) if name == "unit"));
        let mut query = Query::parse(Some("uid=x&unit=a&unit=b")).unwrap();
        assert!(matches!(query.number("uid"), Err(Malformed::Value("uid"))));
        assert!(matches!(
            query.one("unit"),
            Err(Malformed::Repeated("unit"))
        ));
        assert!(matches!(Query::parse(Some("a=%f")), Err(Malformed::Query)));
        assert!(Query::parse(None).unwrap().finish().is_ok());
    }
}
