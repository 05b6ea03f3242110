//! Amounts as people write and read them: bytes, rates, durations and times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes a number with a thin separator between thousands, as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
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

/// Writes bytes with a unit, as `1.5 MB`; units are powers of 1000.
pub(crate) fn bytes(count: f64) -> String {
    let mut count = count;
    for unit in ["B", "kB", "MB", "GB"] {
        if count < 1000.0 {
            return if unit == "B" {
                format!("{count:.0} B")
            } else {
                format!("{count:.1} {unit}")
            };
        }
        count /= 1000.0;
    }
    format!("{count:.1} TB")
}

/// Sums up work on records: how many, how fast.
pub(crate) fn summary(verb: &str, records: u64, size: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-9);
    format!(
        "{verb} {} records ({}) in {seconds:.2} s: {} records/s, {}/s",
        grouped(records),
        bytes(size as f64),
        grouped((records as f64 / seconds) as u64),
        bytes(size as f64 / seconds),
    )
}

/// Returns the time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Reads a time: `2026-11-21`, `2026-11-21T10:00:00[.123][Z|+02|+02:00]`, or `@MILLISECONDS`.
///
/// A time without a zone is taken as UTC, so that a command means the same everywhere. A day that
/// its month does not have is no time.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    if let Some(ms) = text.strip_prefix('@') {
        return ms.parse().ok();
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut fields = date.splitn(3, '-');
    let year = fields.next().filter(|year| year.len() == 4).and_then(whole)?;
    let month = fields.next().and_then(whole).filter(|month| (1..=12).contains(month))?;
    let day = fields.next().and_then(whole).filter(|day| (1..=31).contains(day))?;
    let days = days_since_1970(year, month, day);
    if date_of(days) != (year, month, day) {
        return None;
    }
    let zone_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let mut fields = clock.splitn(3, ':');
    let hour = fields.next().and_then(whole).filter(|hour| *hour < 24)?;
    let minute = fields.next().and_then(whole).filter(|minute| *minute < 60)?;
    let second_ms = match fields.next() {
        Some(second) => decimal_ms(second).filter(|ms| *ms < 60_000)?,
        None => 0,
    };
    let zone_minutes = match zone.as_bytes().first() {
        None => 0,
        Some(b'Z') if zone.len() == 1 => 0,
        Some(b'Z') => return None,
        Some(sign) => {
            let digits = zone[1..].replacen(':', "", 1);
            let number = whole(&digits)?;
            let (hours, minutes) = match digits.len() {
                2 => (number, 0),
                4 => (number / 100, number % 100),
                _ => return None,
            };
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = hours * 60 + minutes;
            if *sign == b'-' { -minutes } else { minutes }
        }
    };
    let minutes = (days * 24 + hour) * 60 + minute - zone_minutes;
    Some(minutes * 60_000 + second_ms)
}

/// Reads a duration into milliseconds: ISO 8601 as Kafka's tools take it (`P1DT2H`, `PT30M`,
/// `PT1.5S`), or short (`1d2h`, `30m`, `90s`, `500ms`).
///
/// Months have no length of their own, so `P1M` is none; a minute is `PT1M`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_uppercase();
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => (-1, body),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    if let Some(body) = body.strip_prefix('P') {
        return Some(sign * iso_duration(body)?);
    }
    let units = [("MS", 1), ("D", DAY_MS), ("H", HOUR_MS), ("M", MINUTE_MS), ("S", SECOND_MS)];
    let mut rest = text.as_str();
    if rest.is_empty() {
        return None;
    }
    let mut total_ms: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let thousandths = decimal_ms(&rest[..digits])?;
        let (unit, ms) = units.into_iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total_ms = total_ms.checked_add(thousandths.checked_mul(ms)? / 1000)?;
        rest = &rest[digits + unit.len()..];
    }
    Some(total_ms)
}

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Reads what stands behind the `P`: days, and behind a `T` hours, minutes and seconds, each at most
/// once and in this order. Amounts may have signs, and seconds a fraction, as Java has it.
fn iso_duration(body: &str) -> Option<i64> {
    let (days, clock) = match body.split_once('T') {
        Some((days, clock)) if !clock.is_empty() => (days, clock),
        None if !body.is_empty() => (body, ""),
        _ => return None,
    };
    let mut total_ms: i64 = 0;
    for (part, units) in [
        (days, &[('D', DAY_MS)][..]),
        (clock, &[('H', HOUR_MS), ('M', MINUTE_MS), ('S', SECOND_MS)][..]),
    ] {
        let mut rest = part;
        for (unit, ms) in units {
            let Some((amount, after)) = rest.split_once(*unit) else { continue };
            let (sign, digits) = match amount.strip_prefix('-') {
                Some(digits) => (-1, digits),
                None => (1, amount.strip_prefix('+').unwrap_or(amount)),
            };
            let amount_ms = match unit {
                'S' => decimal_ms(&digits.replacen(',', ".", 1))?,
                _ => whole(digits)?.checked_mul(*ms)?,
            };
            total_ms = total_ms.checked_add(sign * amount_ms)?;
            rest = after;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(total_ms)
}

/// Reads digits and nothing else.
fn whole(text: &str) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Reads digits with or without a fraction, as thousandths; what is smaller is cut off.
fn decimal_ms(text: &str) -> Option<i64> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    whole(integer)?.checked_mul(1000)?.checked_add(whole(&thousandths)?)
}

/// Writes a time as `2026-11-21T10:00:00.123Z`.
pub(crate) fn format_time(ms: i64) -> String {
    let days = ms.div_euclid(86_400_000);
    let rest = ms.rem_euclid(86_400_000);
    let (year, month, day) = date_of(days);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Counts days in the Gregorian calendar; years begin in March, so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_their_zone_and_written_in_utc() {
        for (text, ms) in [
            ("1970-01-01", 0),
            ("2000-02-29T12:30:00Z", 951_827_400_000),
            ("2026-11-21T10:00:00.250+02:00", 1_795_248_000_250),
            ("2026-11-21T10:00:00.250+0200", 1_795_248_000_250),
            ("2026-11-21T10:00:00.250+02", 1_795_248_000_250),
            ("@1700000000123", 1_700_000_000_123),
        ] {
            assert_eq!(parse_time(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "12",
            "2026-13-01",
            "2026-00-01",
            "2026-02-31T00:00:00.000",
            "2026-02-29",
            "2026-04-00",
            "2026-9223372036854775807-01",
            "+026-01-01",
            "2026-01-01T25:00:00",
            "2026-01-01T10:00:1e1",
            "2026-01-01T10:00:00+02:60",
            "2026-01-01T10:00:00+2",
            "2026-01-01T10:00:00Zulu",
            "yesterday",
            "@x",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(format_time(951_827_400_000), "2000-02-29T12:30:00.000Z");
        for ms in (-200_000_000_000..4_000_000_000_000).step_by(86_399_123_457) {
            assert_eq!(parse_time(&format_time(ms)), Some(ms));
        }
    }

    #[test]
    fn durations_are_read_in_both_ways() {
        for (text, ms) in [
            ("PT1H", 3_600_000),
            ("P1DT2H3M4.5S", 93_784_500),
            ("P2D", 172_800_000),
            ("pt1m", 60_000),
            ("-PT1H", -3_600_000),
            ("P1DT-1H", 82_800_000),
            ("PT0,25S", 250),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
        ] {
            assert_eq!(parse_duration(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "P1DT",
            "1",
            "x",
            "PT1",
            "1y",
            "P1M",
            "P1W",
            "P1H",
            "PT1D",
            "PT1S1M",
            "PT1M2M",
            "PT1.5H",
            "PT.S",
            "-1h",
            "P9999999999999999D",
            "9999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_readable() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(1_500_000.0), "1.5 MB");
    }
}
