//! The chain of audit lines: each carries the next number (`seq`) and the digest of the line before
//! (`prev`), so that a line that was changed, removed or moved shows.
//!
//! The digest is over the bytes of the whole line without its newline. The first line of all has
//! number 1 and an empty `prev`. Both go on over files and over restarts.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Bytes of the SHA-256 that `prev` has, as two hex digits each.
const BYTES: usize = 16;

/// What the line after this one carries as `prev`.
pub fn digest(line: &[u8]) -> String {
    let whole = Sha256::digest(line);
    whole
        .iter()
        .take(BYTES)
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_first_half_of_a_known_one() {
        assert_eq!(digest(b"test_token"), "cc0af97287543b65da2c7e1476426021");
    }
}
