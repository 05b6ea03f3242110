//! `fleuve demo page-views`: page views by region and minute, joined with users.

mod topology;

use std::collections::BTreeMap;
use std::time::Duration;

use fleuve_client::Record;
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::{OwnedRecord, Start};
use fleuve_streams::{Guarantee, Settings, Topology};

pub use topology::{
    MINUTE_MS, PageView, REGIONS, RegionViews, UNKNOWN, USERS, User, VIEWS, topology,
};

use crate::kit::{Ends, Feed, Paint, Random, Row, View, bar, clock, grouped, now_ms, seconds};
use crate::{Demo, DemoError, Stage};

/// Counts page views by region and minute, joined with the users who viewed.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  \
    fleuve demo page-views\n  \
    fleuve demo page-views --rate 1000 --seed 7")]
pub struct PageViews {
    /// Views a second [default: 100 on a terminal, as many as possible elsewhere].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// How many views [default: without end on a terminal, 5000 elsewhere].
    #[arg(long, value_name = "N")]
    views: Option<u64>,
    /// What the made-up views follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Demo for PageViews {
    const NAME: &'static str = "page-views";
    const ABOUT: &'static str = "Count page views by region and minute, joined with users";

    fn topology() -> Topology {
        topology()
    }

    async fn run(self, mut stage: Stage) -> Result<(), DemoError> {
        stage
            .create_topics(&[
                NewTopic::new(VIEWS).partitions(PARTITIONS),
                NewTopic::new(USERS).partitions(PARTITIONS).config("cleanup.policy", "compact"),
                NewTopic::new(REGIONS).partitions(PARTITIONS),
            ])
            .await?;
        let consumer = stage.follow(&[VIEWS, USERS, REGIONS], Start::Beginning).await?;
        let endless = stage.is_endless();
        let views = self.views.unwrap_or(if endless { u64::MAX } else { 5000 });
        let mut feed = Feed::new(stage.producer()?, self.rate.or(endless.then_some(100)));
        // Users come first: a view meets the user who is known at its time.
        register(&mut feed).await?;
        let settings =
            Settings { threads: 2, guarantee: Guarantee::ExactlyOnce, ..Settings::default() };
        let app = stage.start(&topology(), settings).await?;

        let mut board = Board::default();
        let feeding = view(feed, views, Random::new(self.seed));
        let took = stage.show(app, consumer, feeding, &mut board).await?;
        let verdict = match (board.expected() == board.counts, endless) {
            (true, _) => "every count equals a plain join",
            (false, true) => "stopped while counting",
            (false, false) => "others have been viewing, too",
        };
        stage.screen().say(format!(
            "page-views: {} views of {} users, {} counted by region and minute in {}; {verdict}",
            grouped(board.views_total()),
            board.users.len(),
            grouped(board.counted()),
            seconds(took),
        ))?;
        Ok(())
    }
}

/// Writes the users down. They are the same in every run, whatever the seed.
async fn register(feed: &mut Feed) -> Result<(), DemoError> {
    let mut random = Random::new(0);
    for number in 1..=9 {
        let user = User {
            registertime: 1_487_715_775_521 + random.below(31_500_000) as i64 * 1000,
            userid: format!("User_{number}"),
            regionid: format!("Region_{}", random.below(9) + 1),
            gender: (*random.choose(&["MALE", "FEMALE", "OTHER"])).to_owned(),
        };
        let value = serde_json::to_vec(&user).map_err(DemoError::new)?;
        feed.add(Record::new(USERS).key(&user.userid).value(&value)).await?;
    }
    feed.settle().await?;
    Ok(())
}

async fn view(mut feed: Feed, views: u64, mut random: Random) -> Result<Ends, DemoError> {
    for _ in 0..views {
        let viewtime = now_ms();
        let view = PageView {
            viewtime,
            userid: format!("User_{}", random.below(9) + 1),
            pageid: format!("Page_{}", random.below(90) + 10),
        };
        let value = serde_json::to_vec(&view).map_err(DemoError::new)?;
        feed.send(Record::new(VIEWS).value(&value).timestamp(viewtime)).await?;
    }
    feed.settle().await
}

/// Counts by minute and region.
type Counts = BTreeMap<(i64, String), i64>;

/// What has come out, and what should.
#[derive(Default)]
struct Board {
    users: BTreeMap<String, String>,
    /// A plain count of the views that were read, by minute and user.
    views: Counts,
    counts: Counts,
}

impl Board {
    /// The views joined with the users, plainly.
    fn expected(&self) -> Counts {
        let mut expected = Counts::new();
        for ((minute, user), views) in &self.views {
            let region = self.users.get(user).map_or(UNKNOWN, String::as_str);
            *expected.entry((*minute, region.to_owned())).or_default() += views;
        }
        expected
    }

    fn views_total(&self) -> u64 {
        self.views.values().sum::<i64>().unsigned_abs()
    }

    fn counted(&self) -> u64 {
        self.counts.values().sum::<i64>().unsigned_abs()
    }
}

impl View for Board {
    fn take(&mut self, record: &OwnedRecord) {
        let Some(value) = record.value.as_deref() else { return };
        match &*record.topic {
            VIEWS => {
                if let Ok(view) = serde_json::from_slice::<PageView>(value) {
                    let minute = record.timestamp - record.timestamp.rem_euclid(MINUTE_MS);
                    *self.views.entry((minute, view.userid)).or_default() += 1;
                }
            }
            USERS => {
                if let Ok(user) = serde_json::from_slice::<User>(value) {
                    self.users.insert(user.userid, user.regionid);
                }
            }
            _ => {
                if let Ok(counted) = serde_json::from_slice::<RegionViews>(value) {
                    self.counts.insert((counted.minute, counted.regionid), counted.views);
                }
            }
        }
    }

    fn picture(&self, elapsed: Duration) -> Vec<Row> {
        let mut minutes: Vec<i64> = self.counts.keys().map(|(minute, _)| *minute).collect();
        minutes.dedup();
        let minutes = &minutes[minutes.len().saturating_sub(MINUTES)..];
        let mut regions: Vec<&String> = self.counts.keys().map(|(_, region)| region).collect();
        regions.sort_unstable();
        regions.dedup();
        let of = |minute: i64, region: &str| {
            self.counts.get(&(minute, region.to_owned())).map_or(0, |views| views.unsigned_abs())
        };
        let mut heading = format!("{:>12}", "");
        for minute in minutes {
            heading.push_str(&format!(" {:>9}", clock(*minute)));
        }
        let mut rows = vec![
            Row::new()
                .text(Paint::Bold, "page views by region and minute")
                .text(Paint::Dim, format!("  {}", seconds(elapsed))),
            Row::new()
                .text(Paint::Green, grouped(self.views_total()))
                .text(Paint::Plain, " views → ")
                .text(Paint::Green, grouped(self.counted()))
                .text(Paint::Plain, " joined with their users and counted, exactly once"),
            Row::new(),
            Row::new().text(Paint::Dim, heading),
        ];
        let current = minutes.last().copied().unwrap_or_default();
        let most = regions.iter().map(|region| of(current, region)).max().unwrap_or(0);
        for region in regions {
            let mut row = Row::new().text(Paint::Bold, format!("{region:>12}"));
            for minute in minutes {
                let paint = if *minute == current { Paint::Yellow } else { Paint::Plain };
                row = row.text(paint, format!(" {:>9}", grouped(of(*minute, region))));
            }
            rows.push(row.text(Paint::Blue, format!("  {}", bar(of(current, region), most, 24))));
        }
        rows
    }

    fn line(&self, elapsed: Duration) -> String {
        format!(
            "{:>8}  {} views, {} joined and counted",
            seconds(elapsed),
            grouped(self.views_total()),
            grouped(self.counted()),
        )
    }

    fn is_complete(&self) -> bool {
        self.expected()
            .iter()
            .all(|(key, views)| self.counts.get(key).is_some_and(|counted| counted >= views))
    }
}

const PARTITIONS: i32 = 4;
/// Minutes with a column.
const MINUTES: usize = 5;
