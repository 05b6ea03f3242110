//! `fleuve demo music`: posts vote for instruments, and a web page plays the winners.

mod generator;
mod page;
pub mod post;
pub mod topology;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleuve_client::Record;
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::{OwnedRecord, Start};
use fleuve_http::SiteServer;
use fleuve_streams::{Settings, Topology};

pub use post::{HASHTAG, INSTRUMENTS, Post};
pub use topology::{CHARTS, FEED, MESSAGES, POSTS, SOUNDS, USERS, topology};

use self::generator::Generator;
use self::page::{Page, key_of};
use self::topology::{Charts, Message, ROUND_MS, Sounds, TOP, UserScore};
use crate::kit::{Ends, Feed, Paint, Row, View, bar, grouped, now_ms, seconds};
use crate::{Demo, DemoError, Stage};

/// Makes music of posts.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    fleuve demo music\n  \
    fleuve demo music --listen 127.0.0.1:0 --rate 3 --round 15")]
pub struct Music {
    /// Where the page is [default: 127.0.0.1:8090 on a terminal, nowhere elsewhere].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Posts a second [default: 1, or 200 where there is no page].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Seconds of a round [default: 30, or 1 where there is no page].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=3600))]
    round: Option<i64>,
    /// What the made-up posts follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Demo for Music {
    const NAME: &'static str = "music";
    const ABOUT: &'static str = "Posts vote for instruments, and a web page plays the winners";

    fn topology() -> Topology {
        topology(ROUND_MS)
    }

    async fn run(self, mut stage: Stage) -> Result<(), DemoError> {
        // One partition each: the vote is one, and what is behind it is small.
        let topic = |name| NewTopic::new(name).partitions(1);
        let mut topics = vec![topic(FEED).config("cleanup.policy", "compact")];
        topics.extend([POSTS, MESSAGES, USERS, CHARTS, SOUNDS].map(topic));
        stage.create_topics(&topics).await?;

        let listen = self.listen.or_else(|| stage.is_endless().then(default_address));
        if listen.is_some() {
            stage.go_on();
        }
        let endless = stage.is_endless();
        let round_ms = self.round.map_or(if endless { ROUND_MS } else { 1000 }, |s| s * 1000);
        let followed = [POSTS, MESSAGES, USERS, CHARTS, SOUNDS];
        let consumer = stage.follow(&followed, Start::Beginning).await?;
        let producer = stage.producer()?;
        let page = Arc::new(Page::new(producer.clone(), round_ms));
        let site = match listen {
            Some(address) => Some(serve(address, page.clone()).await?),
            None => None,
        };
        // What people see should move with them: no cache holds it back for longer than this.
        let settings =
            Settings { commit_interval: Some(Duration::from_millis(200)), ..Settings::default() };
        let app = stage.start(&topology(round_ms), settings).await?;

        let address = site.as_ref().map(SiteServer::address);
        if let Some(address) = address {
            stage.screen().say(format!("music: open http://{address}/"))?;
        }
        let feed = Feed::new(producer, Some(self.rate.unwrap_or(if endless { 1 } else { 200 })));
        let feeding = write_posts(feed, Generator::new(self.seed), endless);
        let mut studio = Studio::new(page, address);
        let shown = stage.show(app, consumer, feeding, &mut studio).await;
        if let Some(site) = site {
            site.shutdown().await;
        }
        let took = shown?;
        stage.screen().say(format!(
            "music: {} posts by {} users in {}, rounds set to music: {}; {}",
            grouped(studio.posts.values().sum::<i64>().unsigned_abs()),
            studio.users.len(),
            seconds(took),
            studio.rounds.len(),
            if studio.all_counted() { "every post is counted" } else { "stopped while counting" },
        ))?;
        Ok(())
    }
}

fn default_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8090))
}

async fn serve(address: SocketAddr, page: Arc<Page>) -> Result<SiteServer, DemoError> {
    SiteServer::start(address, page).await.map_err(|error| {
        DemoError::new(format!(
            "cannot listen on {address}: {error}; name another address with --listen, as 127.0.0.1:0"
        ))
    })
}

/// Writes posts without end, or until a few rounds are over.
async fn write_posts(
    mut feed: Feed,
    mut generator: Generator,
    endless: bool,
) -> Result<Ends, DemoError> {
    let began = now_ms();
    let mut written = 0;
    while endless || written < POSTS_MIN || now_ms() < began + BOUNDED_MS {
        let post = generator.post(now_ms());
        let value = serde_json::to_vec(&post).map_err(DemoError::new)?;
        let key = key_of(&post);
        let record = Record::new(POSTS).key(&key).value(&value).timestamp(post.created_at);
        feed.send(record).await?;
        written += 1;
    }
    feed.settle().await
}

/// What has come out, and what should.
struct Studio {
    page: Arc<Page>,
    address: Option<SocketAddr>,
    /// A plain count of the posts that were read, by user.
    posts: BTreeMap<String, i64>,
    users: BTreeMap<String, UserScore>,
    charts: Option<Charts>,
    sounds: Option<Sounds>,
    rounds: BTreeSet<i64>,
    messages: VecDeque<Message>,
}

impl Studio {
    fn new(page: Arc<Page>, address: Option<SocketAddr>) -> Self {
        Self {
            page,
            address,
            posts: BTreeMap::new(),
            users: BTreeMap::new(),
            charts: None,
            sounds: None,
            rounds: BTreeSet::new(),
            messages: VecDeque::new(),
        }
    }

    fn all_counted(&self) -> bool {
        let counted = |user: &String| self.users.get(user).map_or(0, |score| score.tweet_count);
        self.posts.iter().all(|(user, posts)| counted(user) >= *posts)
    }
}

impl View for Studio {
    fn take(&mut self, record: &OwnedRecord) {
        self.page.show(record);
        let Some(value) = record.value.as_deref() else { return };
        let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        match &*record.topic {
            POSTS => {
                if let Ok(post) = serde_json::from_slice::<Post>(value)
                    && post.is_counted()
                {
                    *self.posts.entry(post.user.screen_name).or_default() += 1;
                }
            }
            USERS => {
                if let Ok(score) = serde_json::from_slice(value) {
                    self.users.insert(key.into_owned(), score);
                }
            }
            CHARTS => {
                if let Ok(charts) = serde_json::from_slice(value) {
                    self.charts = Some(charts);
                }
            }
            SOUNDS => {
                if let Ok(sounds) = serde_json::from_slice::<Sounds>(value) {
                    self.rounds.insert(sounds.round);
                    self.sounds = Some(sounds);
                }
            }
            _ => {
                if let Ok(message) = serde_json::from_slice(value) {
                    self.messages.push_back(message);
                    if self.messages.len() > LAST_MESSAGES {
                        self.messages.pop_front();
                    }
                }
            }
        }
    }

    fn picture(&self, elapsed: Duration) -> Vec<Row> {
        let mut heading = Row::new()
            .text(Paint::Bold, "music with kafka")
            .text(Paint::Dim, format!("  {}", seconds(elapsed)));
        if let Some(address) = self.address {
            heading = heading
                .text(Paint::Plain, "  listen at ")
                .text(Paint::Green, format!("http://{address}/"));
        }
        let playing = self.sounds.as_ref().map_or_else(
            || "nothing yet: the first round is under way".to_owned(),
            |sounds| sounds.sounds.join("  "),
        );
        let mut rows = vec![
            heading,
            Row::new().text(Paint::Plain, "playing  ").text(Paint::Yellow, playing),
            Row::new(),
        ];
        let votes: &[_] = self.charts.as_ref().map_or(&[], |charts| &charts.charts);
        let most = votes.first().map_or(0, |vote| vote.count);
        rows.extend(votes.iter().take(INSTRUMENTS.len()).enumerate().map(|(place, vote)| {
            let paint = if place < TOP { Paint::Green } else { Paint::Dim };
            Row::new()
                .text(Paint::Bold, format!("{:>11} ", vote.sound))
                .text(paint, format!("{:<32}", bar(vote.count, most, 32)))
                .text(Paint::Plain, format!(" {:>4}", vote.count))
        }));
        rows.push(Row::new());
        rows.extend(self.messages.iter().map(|said| {
            Row::new()
                .text(Paint::Blue, format!("  {:<16} ", said.name))
                .text(Paint::Plain, &said.message)
        }));
        rows
    }

    fn line(&self, elapsed: Duration) -> String {
        format!(
            "{:>8}  {} posts by {} users, rounds set to music: {}",
            seconds(elapsed),
            grouped(self.posts.values().sum::<i64>().unsigned_abs()),
            self.users.len(),
            self.rounds.len(),
        )
    }

    fn is_complete(&self) -> bool {
        self.all_counted() && !self.rounds.is_empty()
    }
}

/// Where nobody watches: at least so many posts, for longer than two rounds of a second.
const POSTS_MIN: u64 = 200;
const BOUNDED_MS: i64 = 2_500;
/// Messages on a terminal.
const LAST_MESSAGES: usize = 4;
