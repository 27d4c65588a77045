//! SHA-256, whole and in part, as bytes and as text.

use sha2::Digest as _;

/// A whole SHA-256.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these bytes.
    pub fn of(content: &[u8]) -> Self {
        Self(sha2::Sha256::digest(content).into())
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, place) in digest.iter_mut().zip((0..text.len()).step_by(2)) {
            *byte = u8::from_str_radix(text.get(place..place + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }

    /// The first `bytes` bytes as hex digits: enough to tell two things apart, and no way back.
    pub fn hex(&self, bytes: usize) -> String {
        let mut text = String::with_capacity(2 * bytes);
        for byte in self.0.iter().take(bytes) {
            for digit in [byte >> 4, byte & 0xf] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of Microsoft's specification of `token_sha256_to_refresh`.
    const WHOLE: &str = "cc0af97287543b65da2c7e1476426021826cab166f1e063ed012b855ff819656";

    #[test]
    fn the_digest_is_the_known_one() {
        let digest = Digest::of(b"test_token");
        assert_eq!(digest.hex(32), WHOLE);
        assert_eq!(digest.hex(6), WHOLE[..12]);
    }

    #[test]
    fn a_digest_is_read_from_64_hex_digits_and_nothing_else() {
        assert_eq!(Digest::parse(WHOLE), Some(Digest::of(b"test_token")));
        assert_eq!(
            Digest::parse(&WHOLE.to_uppercase()),
            Some(Digest::of(b"test_token"))
        );
        let odd = format!("{}+1", &WHOLE[..62]);
        for text in [
            "",
            &WHOLE[..62],
            &format!("{WHOLE}00"),
            &odd,
            &"ä".repeat(32),
        ] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }
}
