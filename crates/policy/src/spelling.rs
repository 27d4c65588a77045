//! "Did you mean": the known word that someone most likely wanted to write.

/// The one of `known` that is at most a third away from `word`.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 32;
    if word.len() > LONGEST {
        return None;
    }
    let distance = |candidate: &&'k str| (strsim::osa_distance(word, candidate), *candidate);
    let (distance, best) = known.iter().map(distance).min()?;
    (distance * 3 <= best.len().max(3)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["name", "user", "group", "resources", "identity"];
        for (word, expected) in [
            ("usr", Some("user")),
            ("resource", Some("resources")),
            ("gruop", Some("group")),
            ("us\u{435}r", Some("user")),
            ("unit", None),
            ("", None),
            ("exe", None),
        ] {
            assert_eq!(closest(word, &known), expected, "{word}");
        }
        assert_eq!(closest(&"user".repeat(100), &known), None);
        assert_eq!(closest("user", &[]), None);
    }
}
