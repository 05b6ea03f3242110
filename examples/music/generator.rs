//! Made-up posts by made-up people.

use super::post::{HASHTAG, Post, User};
use crate::kit::Random;

/// People who post.
const PEOPLE: [(&str, &str); 10] = [
    ("Amélie Marchand", "amelie"),
    ("Bao Tran", "bao"),
    ("Chidi Okafor", "chidi"),
    ("Dagny Lund", "dagny"),
    ("Elio Ferrari", "elio"),
    ("Farida Haddad", "farida"),
    ("Goran Petrović", "goran"),
    ("Hana Sato", "hana"),
    ("Inés Quispe", "ines"),
    ("Jonas Keller", "jonas"),
];

/// What they post. The last one votes for nothing.
const PHRASES: [&str; 9] = [
    "Give the drum some more room",
    "Let a heavy bass shake the windows",
    "A lead bass would carry this",
    "Walk with me, line bass",
    "I keep humming that melody",
    "A warm pad under everything, please",
    "More synth, the sun is not up yet",
    "Who sings? We need a vocal",
    "What a night by the river",
];

/// Makes posts up, the same ones from the same seed.
pub(super) struct Generator {
    random: Random,
    /// What is popular now: tastes change, or else the same five would win every round.
    favourites: [usize; 2],
    made: u64,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), favourites: [0, 4], made: 0 }
    }

    /// The next post, written at `now_ms`.
    pub(super) fn post(&mut self, now_ms: i64) -> Post {
        if self.made.is_multiple_of(TASTE) {
            self.favourites = [self.random.below(8), self.random.below(8)];
        }
        self.made += 1;
        let phrase = match self.random.below(3) {
            0 => self.favourites[self.random.below(2)],
            _ => self.random.below(PHRASES.len()),
        };
        let (name, screen_name) = *self.random.choose(&PEOPLE);
        Post {
            created_at: now_ms,
            id: self.made as i64,
            text: format!("{} {HASHTAG}", PHRASES[phrase]),
            source: "generator".to_owned(),
            user: User {
                name: name.to_owned(),
                screen_name: screen_name.to_owned(),
                profile_image_url: String::new(),
            },
        }
    }
}

/// How many posts a taste lasts.
const TASTE: u64 = 25;

#[cfg(test)]
mod tests {
    use super::super::post::INSTRUMENTS;
    use super::*;

    #[test]
    fn each_phrase_but_the_last_names_an_instrument_of_its_own() {
        let mut generator = Generator::new(1);
        let mut named: Vec<_> = (0..500).map(|_| generator.post(0).instrument()).collect();
        named.sort_unstable();
        named.dedup();
        let mut expected: Vec<_> = INSTRUMENTS.into_iter().map(Some).chain([None]).collect();
        expected.sort_unstable();
        assert_eq!(named, expected);
    }

    #[test]
    fn posts_follow_from_the_seed_and_all_count() {
        let texts = |seed| {
            let mut generator = Generator::new(seed);
            (0..20).map(|_| generator.post(0)).collect::<Vec<_>>()
        };
        assert_eq!(texts(1), texts(1));
        assert_ne!(texts(1), texts(2));
        assert!(texts(3).iter().all(Post::is_counted));
    }
}
