//! Words of a list that the tools about groups choose by: states, types.

use crate::failure::Failure;

/// Some of the words that there are, in any case; all of them if none is named.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice(Vec<&'static str>);

impl Choice {
    /// Reads words separated by commas. A word that does not exist would choose nothing, and look as
    /// if there were nothing.
    pub(super) fn new(
        what: &str,
        words: Option<&str>,
        known: &[&'static str],
    ) -> Result<Self, Failure> {
        let words = words.unwrap_or_default();
        // As in Java, nothing at the end counts for nothing.
        let named = words.trim_end_matches(',');
        if named.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let find = |word: &str| known.iter().find(|it| it.eq_ignore_ascii_case(word.trim()));
        let found = named.split(',').map(|word| find(word).copied()).collect::<Option<_>>();
        found.map(Self).ok_or_else(|| {
            let valid = known.join(", ");
            let plural = if what.ends_with('s') { what.to_owned() } else { format!("{what}s") };
            Failure::new(format!("Invalid {what} list '{words}'. Valid {plural} are: {valid}"))
        })
    }

    /// Whether a word is among them.
    pub(super) fn allows(&self, word: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|one| one.eq_ignore_ascii_case(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_do_not_exist_choose_nothing() {
        let states = |words| Choice::new("state", words, &["Stable", "Dead", "Empty"]);
        let some = states(Some("stable, EMPTY,")).expect("known");
        assert!(some.allows("Stable") && some.allows("Empty") && !some.allows("Dead"));
        for all in [None, Some("")] {
            assert!(states(all).expect("all").allows("Dead"));
        }
        let wrong = Choice::new("state", Some("Foo"), &["Stable", "Dead"]).expect_err("unknown");
        assert_eq!(wrong.to_string(), "Invalid state list 'Foo'. Valid states are: Stable, Dead");
        let kinds = Choice::new("types", Some("classic,share"), &["Classic", "Consumer"]);
        let wrong = kinds.expect_err("of another tool").to_string();
        assert_eq!(wrong, "Invalid types list 'classic,share'. Valid types are: Classic, Consumer");
        assert!(states(Some("stable,,empty")).is_err());
    }
}
