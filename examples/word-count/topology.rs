//! Counts words.

use fleuve_streams::{ErrorPolicy, Topology};

/// Lines of text.
pub const LINES: &str = "demo-lines-of-text";
/// How often each word has come so far.
pub const COUNTS: &str = "demo-word-counts";

/// Lines in, for each word its count out.
pub fn topology() -> Topology {
    let app = Topology::new("demo-word-count");
    app.on_error(ErrorPolicy::Skip);
    app.stream::<(), String>(LINES)
        .flat_map_values(|line: String| words(&line))
        .group_by(|_, word| word.clone())
        .count("word-counts")
        .to_stream()
        .to(COUNTS);
    app
}

/// The words of a line: letters, with apostrophes and hyphens inside, in lower case.
pub fn words(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’' | '-'))
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use fleuve_streams::TestDriver;

    use super::*;

    #[test]
    fn every_word_is_counted_as_it_comes() {
        let mut driver = TestDriver::new(&topology()).expect("a valid topology");
        driver
            .input(LINES)
            .send(&(), &"Down, down, down.".to_owned())
            .send(&(), &"Would the fall never come to an end?".to_owned())
            .send(&(), &"The rabbit-hole; Alice's end!".to_owned());
        let counts = driver.output::<String, i64>(COUNTS).pairs();
        let counts: Vec<_> = counts.iter().map(|(word, count)| (word.as_str(), *count)).collect();
        assert_eq!(counts[..3], [("down", 1), ("down", 2), ("down", 3)]);
        assert_eq!(counts[11..], [("the", 2), ("rabbit-hole", 1), ("alice's", 1), ("end", 2)]);
        assert_eq!(driver.store::<String, i64>("word-counts").len(), 11);
    }

    #[test]
    fn counts_survive_a_crash_on_several_partitions() {
        let mut driver = TestDriver::with_partitions(&topology(), 3).expect("a valid topology");
        for partition in 0..3 {
            driver.input(LINES).partition(partition).send(&(), &"Oh dear!".to_owned());
        }
        driver.crash();
        driver.input(LINES).partition(1).send(&(), &"Oh dear! Oh dear!".to_owned());
        let mut counts = driver.store::<String, i64>("word-counts");
        counts.sort();
        assert_eq!(counts, [("dear".to_owned(), 5), ("oh".to_owned(), 5)]);
    }

    #[test]
    fn lines_that_are_no_text_are_left_out() {
        let mut driver = TestDriver::new(&topology()).expect("a valid topology");
        driver.input(LINES).send_bytes(None, Some(b"\xff\xfe".to_vec().into()));
        driver.input(LINES).send(&(), &"late".to_owned());
        assert_eq!(driver.output::<String, i64>(COUNTS).pairs(), [("late".to_owned(), 1)]);
        assert!(driver.failure().is_none());
    }

    #[test]
    fn words_are_letters_with_what_may_stand_inside() {
        assert_eq!(
            words("--Ma'am, 'tis out-of-the-way; ÉTÉ!"),
            ["ma'am", "tis", "out-of-the-way", "été"]
        );
        assert!(words(" .,- '").is_empty());
    }
}
