//! Where a demo runs: a cluster, a screen, and somebody who may want it to stop.

use std::time::{Duration, Instant};

use fleuve_client::admin::NewTopic;
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{OwnedRecord, Start};
use fleuve_client::{Admin, Client, Consumer, ConsumerConfig, ErrorCode, Producer, ProducerConfig};
use fleuve_streams::{Settings, Streams, Topology};
use fleuve_types::TopicPartition;
use tokio::sync::watch;

use super::{DemoError, Ends, Row, Screen};

/// Where a demo runs: a cluster, a screen, and somebody who may want it to stop.
pub struct Stage {
    client: Client,
    screen: Screen,
    endless: bool,
    stop: watch::Receiver<bool>,
}

/// What a demo makes of the records that it follows.
pub trait View: Send {
    /// Takes a record in. One that is not what it should be is left out: the topic may be in foreign hands.
    fn take(&mut self, record: &OwnedRecord);

    /// The picture for somebody who watches.
    fn picture(&self, elapsed: Duration) -> Vec<Row>;

    /// The same in a line.
    fn line(&self, elapsed: Duration) -> String;

    /// Whether everything that was fed, and has been taken in, has come out of the application.
    fn is_complete(&self) -> bool;
}

impl Stage {
    /// A stage on a cluster. `stop` becomes true when it is enough.
    pub fn new(client: Client, screen: Screen, stop: watch::Receiver<bool>) -> Self {
        Self { client, endless: screen.is_live(), screen, stop }
    }

    /// The cluster.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The screen.
    pub fn screen(&mut self) -> &mut Screen {
        &mut self.screen
    }

    /// Whether somebody watches, so that the demo goes on until it is stopped; it ends by itself otherwise.
    pub fn is_endless(&self) -> bool {
        self.endless
    }

    /// Goes on until it is stopped, although nobody watches the screen.
    pub fn go_on(&mut self) {
        self.endless = true;
    }

    /// Creates topics, as far as they do not exist.
    pub async fn create_topics(&self, topics: &[NewTopic]) -> Result<(), DemoError> {
        let admin = Admin::new(self.client.clone());
        for (_, result) in admin.create_topics(topics, false).await? {
            match result {
                Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// A producer on the cluster.
    pub fn producer(&self) -> Result<Producer, DemoError> {
        Ok(Producer::new(self.client.clone(), ProducerConfig::default())?)
    }

    /// A consumer of all partitions of the topics, of committed records.
    pub async fn follow(&self, topics: &[&str], start: Start) -> Result<Consumer, DemoError> {
        let config = ConsumerConfig {
            isolation_level: IsolationLevel::ReadCommitted,
            ..ConsumerConfig::default()
        };
        let consumer = Consumer::new(self.client.clone(), config)?;
        let mut partitions = Vec::new();
        for name in topics {
            // It has been created, but a broker may hear of that a moment later than its controller.
            let topic = self.client.topic(name, true).await?;
            let indexes = 0..topic.partitions.len() as i32;
            partitions.extend(indexes.map(|index| (TopicPartition::new(*name, index), start)));
        }
        consumer.assign(&partitions)?;
        Ok(consumer)
    }

    /// Starts an application.
    pub async fn start(&self, app: &Topology, settings: Settings) -> Result<Streams, DemoError> {
        Ok(Streams::start(app, self.client.clone(), settings).await?)
    }

    /// Feeds the application and shows what comes out, to the end; then ends the application.
    ///
    /// The consumer follows what is fed, too: that is how the view knows what to expect.
    pub async fn show(
        &mut self,
        mut app: Streams,
        consumer: Consumer,
        feed: impl Future<Output = Result<Ends, DemoError>> + Send,
        view: &mut impl View,
    ) -> Result<Duration, DemoError> {
        let began = Instant::now();
        let ended = self.play(&mut app, &consumer, feed, view, began).await;
        if self.screen.is_live() {
            self.screen.draw(&view.picture(began.elapsed()))?;
            self.screen.keep();
        }
        let took = began.elapsed();
        let closed = app.close().await;
        consumer.close().await?;
        ended?;
        closed?;
        Ok(took)
    }

    async fn play(
        &mut self,
        app: &mut Streams,
        consumer: &Consumer,
        feed: impl Future<Output = Result<Ends, DemoError>> + Send,
        view: &mut impl View,
        began: Instant,
    ) -> Result<(), DemoError> {
        let endless = self.is_endless();
        let mut feed = Box::pin(feed);
        let mut fed: Option<Ends> = None;
        let mut seen = Ends::new();
        let mut moved = Instant::now();
        let mut ticks = tokio::time::interval(if self.screen.is_live() { DRAW } else { REPORT });
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut self.stop) => return Ok(()),
                error = app.failed() => {
                    let ended = || DemoError::new("the application ended by itself");
                    return Err(error.map_or_else(ended, DemoError::from));
                }
                ends = &mut feed, if fed.is_none() => fed = Some(ends?),
                record = consumer.next(Duration::from_secs(1)) => {
                    if let Some(record) = record? {
                        let partition = TopicPartition::new(record.topic.clone(), record.partition);
                        seen.insert(partition, record.offset + 1);
                        moved = Instant::now();
                        view.take(&record);
                    }
                }
                _ = ticks.tick() => self.report(view, began.elapsed())?,
            }
            let Some(ends) = &fed else { continue };
            let all_seen = |(partition, end): (&TopicPartition, &i64)| {
                seen.get(partition).is_some_and(|seen| seen >= end)
            };
            if !endless && ends.iter().all(all_seen) && view.is_complete() {
                return Ok(());
            }
            if !endless && moved.elapsed() > STALLED {
                return Err(DemoError::new(format!(
                    "nothing came out for {} s: see the broker's log",
                    STALLED.as_secs()
                )));
            }
        }
    }

    fn report(&mut self, view: &impl View, elapsed: Duration) -> Result<(), DemoError> {
        if self.screen.is_live() {
            self.screen.draw(&view.picture(elapsed))?;
        } else if elapsed >= REPORT {
            self.screen.say(view.line(elapsed))?;
        }
        Ok(())
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender going away means the same as being told.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// How often the picture is drawn.
const DRAW: Duration = Duration::from_millis(200);
/// How often a line is written where nobody watches.
const REPORT: Duration = Duration::from_secs(1);
/// How long nothing may come out of an application that has been fed.
const STALLED: Duration = Duration::from_secs(60);
