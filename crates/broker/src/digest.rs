//! The beginning of a SHA-256 as text: enough to tell two things apart, and no way back.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The first `bytes` bytes of the SHA-256, as twice as many hex digits.
pub fn sha256(content: &[u8], bytes: usize) -> String {
    Sha256::digest(content).iter().take(bytes).fold(
        String::with_capacity(2 * bytes),
        |mut text, byte| {
            // A String takes all that is written to it.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_known_one() {
        // The vector of Microsoft's specification of `token_sha256_to_refresh`.
        let whole = "cc0af97287543b65da2c7e1476426021826cab166f1e063ed012b855ff819656";
        assert_eq!(sha256(b"test_token", 32), whole);
        assert_eq!(sha256(b"test_token", 6), whole[..12]);
    }
}
