//! Posts, and the instruments that they name.

use serde::{Deserialize, Serialize};

/// What a post is counted by.
pub const HASHTAG: &str = "#mwk";

/// The instruments, as posts and sounds name them.
pub const INSTRUMENTS: [&str; 8] =
    ["drum", "heavy_bass", "lead_bass", "line_bass", "melody", "pad", "synth", "vocal"];

/// A post, in the words of a well-known service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Post {
    /// When, in milliseconds since 1970.
    pub created_at: i64,
    /// A number that no other post of its writer has.
    pub id: i64,
    /// What it says.
    pub text: String,
    /// What it was written with.
    #[serde(default)]
    pub source: String,
    /// Who wrote it.
    pub user: User,
}

/// Who writes posts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct User {
    /// What the user is called.
    pub name: String,
    /// What the user is known by.
    pub screen_name: String,
    /// A picture; pages may draw one themselves.
    #[serde(default, rename = "ProfileImageURL")]
    pub profile_image_url: String,
}

impl Post {
    /// Whether the post has the hashtag that counts.
    pub fn is_counted(&self) -> bool {
        self.text
            .split(|c: char| !c.is_alphanumeric() && c != '#' && c != '_')
            .any(|word| word.eq_ignore_ascii_case(HASHTAG))
    }

    /// The instrument that the post names, the first if there are several.
    pub fn instrument(&self) -> Option<&'static str> {
        let plain = |text: &str| text.to_lowercase().replace(['_', '-'], " ");
        let text = plain(&self.text);
        let named =
            INSTRUMENTS.into_iter().filter_map(|name| Some((text.find(&plain(name))?, name)));
        named.min().map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(text: &str) -> Post {
        let user = User {
            name: String::new(),
            screen_name: String::new(),
            profile_image_url: String::new(),
        };
        Post { created_at: 0, id: 0, text: text.to_owned(), source: String::new(), user }
    }

    #[test]
    fn instruments_are_found_however_they_are_written() {
        let cases = [
            ("More DRUMS please #mwk", Some("drum")),
            ("heavy-bass, now", Some("heavy_bass")),
            ("a lead_bass or a line bass", Some("lead_bass")),
            ("Line Bass before lead bass", Some("line_bass")),
            ("synthesise a vocal", Some("synth")),
            ("just bass", None),
            ("", None),
        ];
        for (text, instrument) in cases {
            assert_eq!(post(text).instrument(), instrument, "{text}");
        }
    }

    #[test]
    fn posts_count_by_their_hashtag() {
        for (text, counts) in
            [("#mwk", true), ("drum (#MWK)!", true), ("#mwkx", false), ("mwk", false)]
        {
            assert_eq!(post(text).is_counted(), counts, "{text}");
        }
    }

    #[test]
    fn posts_are_read_in_the_words_of_the_service() {
        let json = r#"{"CreatedAt":5,"Id":7,"Text":"drum","Source":"x","HashtagEntities":[],
            "User":{"Name":"Ada","ScreenName":"ada","ProfileImageURL":"u","Location":"here"}}"#;
        let read: Post = serde_json::from_str(json).expect("a post");
        assert_eq!((read.created_at, read.id, read.text.as_str()), (5, 7, "drum"));
        assert_eq!(
            (read.user.screen_name.as_str(), read.user.profile_image_url.as_str()),
            ("ada", "u")
        );
    }
}
