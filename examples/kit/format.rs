//! Numbers as people read them.

use std::time::Duration;

/// Writes a number with a comma every three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a duration as seconds with one digit.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Writes the time of day, in UTC, of a time in milliseconds since 1970.
pub fn clock(time_ms: i64) -> String {
    let second = time_ms.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Draws `value` as a bar that fills `width` characters at `most`, in eighths of a character.
pub fn bar(value: u64, most: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if most == 0 {
        return String::new();
    }
    let eighths = u128::from(value.min(most)) * width as u128 * 8 / u128::from(most);
    let (full, rest) = ((eighths / 8) as usize, (eighths % 8) as usize);
    format!("{}{}", "█".repeat(full), EIGHTHS[rest])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1234), "1,234");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(seconds(Duration::from_millis(1249)), "1.2 s");
        assert_eq!(clock(3_661_000), "01:01:01");
        assert_eq!(clock(-1000), "23:59:59");
    }

    #[test]
    fn bars_fill_their_width_and_no_more() {
        assert_eq!(bar(4, 8, 4), "██");
        assert_eq!(bar(1, 16, 4), "▎");
        assert_eq!(bar(9, 8, 4), "████");
        assert_eq!(bar(u64::MAX, u64::MAX, 3), "███");
        assert_eq!(bar(1, 0, 3), "");
    }
}
