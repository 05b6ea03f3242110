//! Which partition of `__consumer_offsets` a group belongs to.

/// Says in which of `partition_count` partitions the group has its state, or 0 if there are none.
///
/// Kafka takes Java's hash of the text, which runs over UTF-16 code units, without its sign.
pub fn partition_for_group(group_id: &str, partition_count: i32) -> i32 {
    let hash = group_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The one number without a positive counterpart counts as zero.
    hash.checked_abs().unwrap_or(0).checked_rem(partition_count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::partition_for_group;

    #[test]
    fn agrees_with_java() {
        assert_eq!(partition_for_group("", 50), 0);
        assert_eq!(partition_for_group("g", 50), 103 % 50);
        assert_eq!(partition_for_group("console-consumer-12345", i32::MAX), 158_455_506);
        assert_eq!(partition_for_group("grüße-𝄞", i32::MAX), 347_391_072);
        // Its hash is the smallest number there is.
        assert_eq!(partition_for_group("polygenelubricants", 50), 0);
        assert_eq!(partition_for_group("g", 0), 0);
    }
}
