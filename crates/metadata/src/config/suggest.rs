//! Finding the name somebody probably meant.

/// Returns the known name that is fewest edits away from `name`, if it is near enough to suggest.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    // A third of the letters wrong is no longer a slip of the pen.
    let most = (name.chars().count() / 3).clamp(1, LONGEST_SLIP);
    known
        .map(|candidate| (distance(name, candidate, most), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

const LONGEST_SLIP: usize = 6;

/// Names much longer than any key are not worth comparing, and may come from the network.
const LONGEST_NAME: usize = 256;

/// Counts insertions, deletions, replacements and swaps of neighbours, in any case of letters;
/// gives up (with a number above `most`) where the lengths alone decide.
fn distance(left: &str, right: &str, most: usize) -> usize {
    let left: Vec<char> = left.chars().flat_map(char::to_lowercase).collect();
    let right: Vec<char> = right.chars().flat_map(char::to_lowercase).collect();
    if left.len().abs_diff(right.len()) > most {
        return most + 1;
    }
    let mut before_previous = vec![0; right.len() + 1];
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1; right.len() + 1];
        for (column, b) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(a != b);
            let mut cost = replaced.min(previous[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                cost = cost.min(before_previous[column - 1] + 1);
            }
            current[column + 1] = cost;
        }
        before_previous = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::BROKER_KEYS;

    fn suggestion(name: &str) -> Option<&'static str> {
        nearest(name, BROKER_KEYS.iter().map(|key| key.name))
    }

    #[test]
    fn slips_of_the_pen_are_understood() {
        for (slip, meant) in [
            ("log.retention.hour", "log.retention.hours"),
            ("num.partition", "num.partitions"),
            ("listner", "listeners"),
            ("auto.create.topic.enabled", "auto.create.topics.enable"),
            ("Node.ID", "node.id"),
            ("mesage.max.byts", "message.max.bytes"),
            ("log.sement.byets", "log.segment.bytes"),
        ] {
            assert_eq!(suggestion(slip), Some(meant), "{slip}");
        }
    }

    #[test]
    fn something_else_altogether_suggests_nothing() {
        for name in ["", "x", "hello.world", "confluent.support.metrics.enable"] {
            assert_eq!(suggestion(name), None, "{name}");
        }
        assert_eq!(suggestion(&"n".repeat(100_000)), None);
    }
}
