//! GUIDs.

use std::{fmt, str::FromStr};

/// A GUID in the form of 8-4-4-4-12 hexadecimal digits.
///
/// It is a number and compared as one: the case of its digits has no meaning, unlike that of a
/// name. Printed in lower case.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Guid(u128);

/// The text is not a GUID.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a GUID is written like 6dae42f8-4368-4678-94ff-3960e28e3630")]
pub struct NotAGuid;

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let lengths = text.split('-').map(str::len);
        let digits: String = text.split('-').collect();
        if !lengths.eq([8, 4, 4, 4, 12]) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAGuid);
        }
        u128::from_str_radix(&digits, 16)
            .map(Self)
            .map_err(|_| NotAGuid)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        let group = |shift: u32| number >> shift & 0xffff;
        let (first, last) = (number >> 96, number & 0xffff_ffff_ffff);
        write!(
            f,
            "{first:08x}-{:04x}-{:04x}-{:04x}-{last:012x}",
            group(80),
            group(64),
            group(48)
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_a_number() {
        let lower: Guid = "6dae42f8-4368-4678-94ff-3960e28e3630".parse().unwrap();
        let upper: Guid = "6DAE42F8-4368-4678-94FF-3960E28E3630".parse().unwrap();
        assert_eq!(lower, upper);
        assert_eq!(upper.to_string(), "6dae42f8-4368-4678-94ff-3960e28e3630");
        assert_eq!(
            "00000000-0000-0000-0000-000000000001"
                .parse::<Guid>()
                .unwrap()
                .to_string(),
            "00000000-0000-0000-0000-000000000001"
        );
    }

    #[test]
    fn nothing_else_is_a_guid() {
        for text in [
            "",
            "6dae42f8436846789 4ff3960e28e3630",
            "6dae42f84368467894ff3960e28e3630",
            "{6dae42f8-4368-4678-94ff-3960e28e3630}",
            "+dae42f8-4368-4678-94ff-3960e28e3630",
            "6dae42f8-4368-4678-94ff-3960e28e363g",
            "6dae42f8-4368-4678-94ff-3960e28e3630-",
            "6dae42f8-4368-4678-94ff-3960e28e363\u{ff10}",
        ] {
            assert_eq!(text.parse::<Guid>(), Err(NotAGuid), "{text}");
        }
    }
}
