//! Counts posts per user and votes per instrument, and makes music of the votes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use fleuve_streams::{ErrorPolicy, Json, TimeWindows, Topology, Windowed};
use serde::{Deserialize, Serialize};

use super::post::Post;
use crate::kit::Random;

/// Posts.
pub const POSTS: &str = "twitter_json";
/// Who said what.
pub const MESSAGES: &str = "user-message";
/// What users are called.
pub const FEED: &str = "user-feed";
/// Posts of each user.
pub const USERS: &str = "users";
/// The votes of the round under way.
pub const CHARTS: &str = "charts";
/// What won a round.
pub const SOUNDS: &str = "sounds";

/// How long a round takes, unless said otherwise.
pub const ROUND_MS: i64 = 30_000;
/// How many instruments play together.
pub const TOP: usize = 5;
/// How many loops each instrument has.
pub const LOOPS: usize = 4;

/// Somebody said something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who.
    pub name: String,
    /// What.
    pub message: String,
}

/// What a user is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The name.
    pub name: String,
    /// A picture.
    pub img_uri: String,
}

/// How much a user has posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserScore {
    /// The name; missing until it is known.
    pub name: Option<String>,
    /// A picture; missing until it is known.
    pub img_uri: Option<String>,
    /// How many posts.
    pub tweet_count: i64,
}

/// The votes of a round, the most first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charts {
    /// When the round began.
    pub round: i64,
    /// Instruments with their votes.
    pub charts: Vec<Vote>,
}

/// How many votes an instrument has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The instrument.
    pub sound: String,
    /// Its votes.
    pub count: u64,
}

/// What is to be played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sounds {
    /// When the round began that chose it.
    pub round: i64,
    /// Loops, as `drum/drum3`.
    pub sounds: Vec<String>,
}

/// Votes by instrument, while a round is under way.
type Votes = Json<BTreeMap<String, u64>>;

/// Posts in; users, charts and sounds out.
pub fn topology(round_ms: i64) -> Topology {
    let app = Topology::new("music-with-kafka");
    app.on_error(ErrorPolicy::Skip);
    let posts = app.stream::<(), Json<Post>>(POSTS).filter(|_, post| post.is_counted());

    // Users: what each says, what each is called, how much each has posted.
    let by_user = posts.select_key(|_, post| post.user.screen_name.clone());
    by_user
        .map_values(|Json(post)| Json(Message { name: post.user.name, message: post.text }))
        .to(MESSAGES);
    by_user
        .map_values(|Json(post)| {
            Json(Profile { name: post.user.name, img_uri: post.user.profile_image_url })
        })
        .to(FEED);
    by_user
        .group_by_key()
        .count("posts-per-user")
        .left_join(&app.table::<String, Json<Profile>>(FEED), |count, profile| {
            Json(UserScore {
                name: profile.map(|profile| profile.name.clone()),
                img_uri: profile.map(|profile| profile.img_uri.clone()),
                tweet_count: *count,
            })
        })
        .to_stream()
        .to(USERS);

    // Votes: one vote for the instrument that a post names, all of them under one key.
    let rounds = posts
        .flat_map_values(|Json(post)| post.instrument().map(str::to_owned))
        .select_key(|_, _| EVERYBODY.to_owned())
        .named("votes")
        .repartition(Some(1))
        .group_by_key()
        .windowed_by(TimeWindows::of_ms(round_ms, 0));
    let none = || Json(BTreeMap::new());
    rounds
        .aggregate("votes-under-way", none, with_vote)
        .to_stream()
        .map(|Windowed { key, window }, votes| (key, charts(window.start, votes)))
        .to(CHARTS);
    rounds
        .emit_final()
        .aggregate("votes-of-rounds", none, with_vote)
        .to_stream()
        .map(move |Windowed { key, window }, votes| {
            (key, sounds(charts(window.start, votes).0, round_ms))
        })
        .to(SOUNDS);
    app
}

/// The key of all votes.
const EVERYBODY: &str = "everybody";

fn with_vote(_: &String, instrument: String, mut votes: Votes) -> Votes {
    *votes.entry(instrument).or_default() += 1;
    votes
}

fn charts(round: i64, votes: Option<Votes>) -> Json<Charts> {
    let votes = votes.map_or_else(BTreeMap::new, |Json(votes)| votes);
    let mut charts: Vec<_> =
        votes.into_iter().map(|(sound, count)| Vote { sound, count }).collect();
    charts.sort_by_key(|vote| Reverse(vote.count));
    Json(Charts { round, charts })
}

fn sounds(charts: Charts, round_ms: i64) -> Json<Sounds> {
    let number = charts.round.div_euclid(round_ms.max(1));
    let name = |vote: &Vote| format!("{0}/{0}{1}", vote.sound, loop_of(&vote.sound, number));
    let sounds = charts.charts.iter().take(TOP).map(name).collect();
    Json(Sounds { round: charts.round, sounds })
}

/// Which loop of an instrument plays after a round: in any order, but each once before one comes again.
///
/// It follows from the round's number, so that every instance chooses alike and nothing has to be remembered.
fn loop_of(instrument: &str, round: i64) -> usize {
    let (cycle, step) = (round.div_euclid(LOOPS as i64), round.rem_euclid(LOOPS as i64));
    let seed = instrument
        .bytes()
        .fold(cycle as u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut random = Random::new(seed);
    let mut left: Vec<usize> = (1..=LOOPS).collect();
    for _ in 0..step {
        left.swap_remove(random.below(left.len()));
    }
    left[random.below(left.len())]
}

#[cfg(test)]
mod tests {
    use fleuve_streams::TestDriver;

    use super::super::post::User;
    use super::*;

    fn driver() -> TestDriver {
        TestDriver::new(&topology(ROUND_MS)).expect("a valid topology")
    }

    fn post(driver: &mut TestDriver, at: i64, who: &str, text: &str) {
        let user = User {
            name: who.to_uppercase(),
            screen_name: who.to_owned(),
            profile_image_url: format!("{who}.png"),
        };
        let post = Post { created_at: at, id: at, text: text.to_owned(), source: "".into(), user };
        driver.input(POSTS).at(at).send(&(), &Json(post));
    }

    fn votes(charts: &Charts) -> Vec<(&str, u64)> {
        charts.charts.iter().map(|vote| (vote.sound.as_str(), vote.count)).collect()
    }

    fn instruments(sounds: &Sounds) -> Vec<&str> {
        sounds.sounds.iter().filter_map(|sound| sound.split('/').next()).collect()
    }

    #[test]
    fn posts_are_counted_per_user_and_joined_with_what_the_user_is_called() {
        let mut driver = driver();
        post(&mut driver, 1_000, "ada", "a drum #mwk");
        post(&mut driver, 2_000, "bob", "no hashtag, no drum");
        post(&mut driver, 3_000, "ada", "hello #mwk");
        let score = |count| UserScore {
            name: Some("ADA".to_owned()),
            img_uri: Some("ada.png".to_owned()),
            tweet_count: count,
        };
        let users = driver.output::<String, Json<UserScore>>(USERS).pairs();
        assert!(users.iter().all(|(user, _)| user == "ada"), "{users:?}");
        assert!(users.contains(&("ada".to_owned(), Json(score(1)))), "{users:?}");
        assert_eq!(users.last(), Some(&("ada".to_owned(), Json(score(2)))));
        let messages = driver.output::<String, Json<Message>>(MESSAGES).pairs();
        let said: Vec<_> = messages.iter().map(|(_, said)| said.message.as_str()).collect();
        assert_eq!(said, ["a drum #mwk", "hello #mwk"]);
    }

    #[test]
    fn the_chart_follows_every_vote_of_the_round() {
        let mut driver = driver();
        for (at, text) in
            [(1_000, "a drum"), (2_000, "pads!"), (3_000, "pad"), (4_000, "?"), (30_000, "synth")]
        {
            post(&mut driver, at, "ada", &format!("{text} #mwk"));
        }
        let charts = driver.output::<String, Json<Charts>>(CHARTS).pairs();
        let charts: Vec<_> =
            charts.iter().map(|(_, charts)| (charts.round, votes(charts))).collect();
        assert_eq!(
            charts,
            [
                (0, vec![("drum", 1)]),
                (0, vec![("drum", 1), ("pad", 1)]),
                (0, vec![("pad", 2), ("drum", 1)]),
                (30_000, vec![("synth", 1)]),
            ]
        );
    }

    #[test]
    fn the_top_five_of_a_round_become_the_music_once_it_is_over() {
        let mut driver = driver();
        let round = [
            ("vocal", 1),
            ("drum", 4),
            ("line_bass", 3),
            ("heavy_bass", 1),
            ("synth", 2),
            ("melody", 5),
            ("pad", 2),
        ];
        let mut at = 0;
        for (instrument, count) in round {
            for _ in 0..count {
                at += 1_000;
                post(&mut driver, at, "ada", &format!("{instrument} #mwk"));
            }
        }
        assert!(driver.output::<String, Json<Sounds>>(SOUNDS).pairs().is_empty());
        post(&mut driver, 30_000, "ada", "a drum for the next round #mwk");
        let sounds = driver.output::<String, Json<Sounds>>(SOUNDS).pairs();
        assert_eq!(sounds.len(), 1, "{sounds:?}");
        assert_eq!(sounds[0].1.round, 0);
        assert_eq!(instruments(&sounds[0].1), ["melody", "drum", "line_bass", "pad", "synth"]);
    }

    #[test]
    fn a_vote_for_a_round_that_is_over_comes_too_late() {
        let mut driver = driver();
        post(&mut driver, 29_000, "ada", "pad #mwk");
        post(&mut driver, 31_000, "ada", "drum #mwk");
        post(&mut driver, 28_000, "bob", "vocal #mwk");
        post(&mut driver, 60_000, "ada", "drum #mwk");
        let sounds = driver.output::<String, Json<Sounds>>(SOUNDS).pairs();
        let won: Vec<_> = sounds.iter().map(|(_, sounds)| instruments(sounds)).collect();
        assert_eq!(won, [["pad"], ["drum"]]);
    }

    #[test]
    fn votes_survive_a_crash_in_the_middle_of_a_round() {
        let mut driver = driver();
        post(&mut driver, 1_000, "ada", "pad #mwk");
        post(&mut driver, 2_000, "ada", "pad #mwk");
        post(&mut driver, 3_000, "ada", "drum #mwk");
        driver.crash();
        post(&mut driver, 30_000, "ada", "drum #mwk");
        let sounds = driver.output::<String, Json<Sounds>>(SOUNDS).pairs();
        assert_eq!(instruments(&sounds[0].1), ["pad", "drum"]);
    }

    #[test]
    fn each_loop_of_an_instrument_comes_once_before_one_comes_again() {
        for instrument in super::super::post::INSTRUMENTS {
            for cycle in 0..20 {
                let mut loops: Vec<_> =
                    (0..4).map(|step| loop_of(instrument, cycle * 4 + step)).collect();
                loops.sort_unstable();
                assert_eq!(loops, [1, 2, 3, 4], "{instrument}, cycle {cycle}");
            }
        }
    }
}
