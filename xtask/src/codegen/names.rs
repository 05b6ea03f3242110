//! Rust spellings of Kafka's names.

/// Turns `TopicId` into `topic_id`.
fn snake_case(name: &str) -> String {
    // Kafka's own abbreviation is one word.
    let name = name.replace("KRaft", "Kraft");
    let characters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (index, &character) in characters.iter().enumerate() {
        if character.is_ascii_uppercase() && index > 0 {
            let after_lower = !characters[index - 1].is_ascii_uppercase();
            let before_lower =
                characters.get(index + 1).is_some_and(|next| next.is_ascii_lowercase());
            if after_lower || before_lower {
                snake.push('_');
            }
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// Spells a message's module.
pub(crate) fn module_name(message: &str) -> String {
    snake_case(message)
}

/// Spells a field, escaping Rust's keywords.
pub(crate) fn field_name(name: &str) -> String {
    let snake = snake_case(name);
    match snake.as_str() {
        "type" | "match" | "enum" | "struct" | "ref" | "move" | "use" => format!("r#{snake}"),
        _ => snake,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rust_without_breaking_abbreviations() {
        assert_eq!(snake_case("TopicId"), "topic_id");
        assert_eq!(snake_case("V3AndBelowTopics"), "v3_and_below_topics");
        assert_eq!(snake_case("KRaftVersionRecord"), "kraft_version_record");
        assert_eq!(snake_case("offset"), "offset");
        assert_eq!(field_name("Type"), "r#type");
    }
}
