//! What moves event time besides records: nothing, unless the program asks for it.

use std::time::Duration;

use super::Topology;

/// What a program wants of event time beyond Kafka Streams' rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimePolicy {
    /// After so long without input, event time goes on with the clock.
    pub(crate) idle_ms: Option<i64>,
    /// Whether everything that waits for event time is due at the end of the input.
    pub(crate) closes_at_end: bool,
    /// Whether tasks tell event time through repartition topics; the silence after which one of them no longer counts.
    pub(crate) watermark_idle_ms: Option<i64>,
}

impl TimePolicy {
    /// Whether time may pass for operators without a record.
    pub(crate) fn moves_alone(self) -> bool {
        self.idle_ms.is_some() || self.closes_at_end || self.watermark_idle_ms.is_some()
    }
}

impl Topology {
    /// Lets the event time of a task go on with the clock once none of its input partitions has had a record for
    /// `idle`: it passes as fast as the time of day does, from when the last record was processed. Windows close,
    /// suppressed changes and events without a partner are sent, timers fire, though no record comes.
    ///
    /// Without this event time stands still while there is no input, as in Kafka Streams. A record that comes later
    /// with an earlier time than that is late. While a broker does not answer, time stands still, and goes on when it does.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use fleuve_streams::{TestDriver, TimeWindows, Topology};
    ///
    /// let app = Topology::new("clicks");
    /// app.advance_when_idle(Duration::from_secs(5));
    /// app.stream::<String, String>("clicks")
    ///     .group_by_key()
    ///     .windowed_by(TimeWindows::of_ms(60_000, 0))
    ///     .emit_final()
    ///     .count("per-minute")
    ///     .to_stream_by(|minute, _| minute.key.clone())
    ///     .to("counts");
    ///
    /// let mut driver = TestDriver::new(&app).unwrap();
    /// driver.input("clicks").at(30_000).send("page", "click");
    /// driver.advance_ms(29_999);
    /// driver.output::<String, i64>("counts").expect_none();
    /// driver.advance_ms(1);
    /// driver.output::<String, i64>("counts").expect([("page", 1)]);
    /// ```
    pub fn advance_when_idle(&self, idle: Duration) -> &Self {
        let idle_ms = i64::try_from(idle.as_millis()).unwrap_or(i64::MAX);
        self.graph.lock().time.idle_ms = Some(idle_ms);
        self
    }

    /// Has everything that waits for event time sent at the end of a run that ends ([`crate::Streams::run_until_end`],
    /// [`crate::LocalRun`]), as if time had passed to its end: windows close, suppressed changes and events without a
    /// partner go on, timers fire. What was closed stays closed: of a window that a run has sent, a later run sends
    /// nothing.
    ///
    /// Without this event time stands still at the end, and the next run goes on there.
    pub fn close_at_end(&self) -> &Self {
        self.graph.lock().time.closes_at_end = true;
        self
    }

    /// Tells event time through repartition topics, as Flink's watermarks do: each task that writes one tells all its
    /// readers how far it has come, and behind it event time is that of the least of them. So it does not matter which
    /// partition of the input is read first, or lags: no record is late behind a repartition because another task was
    /// faster. A task that is silent for `idle` while there is nothing to read of it no longer holds up the others, and
    /// neither does an input topic.
    ///
    /// Without this each operator goes by its newest record, as in Kafka Streams. The times are records of their own in
    /// the repartition topics, without key and value and with the header `fleuve.watermark`: whatever else reads these
    /// topics, Kafka Streams for example after it has taken the application over, sees them: its aggregations and joins drop
    /// them with a warning, a program's own operators are given nulls.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use fleuve_streams::{TestDriver, TimeWindows, Topology};
    ///
    /// let app = Topology::new("clicks");
    /// app.watermarks(Duration::from_secs(60));
    /// app.stream::<String, String>("clicks")
    ///     .group_by(|_, page| page.clone())
    ///     .windowed_by(TimeWindows::of_ms(60_000, 0))
    ///     .count("per-minute");
    ///
    /// let mut driver = TestDriver::with_partitions(&app, 2).unwrap();
    /// driver.input("clicks").partition(0).at(500_000).send("user", "page");
    /// driver.input("clicks").partition(1).at(0).send("user", "page");
    /// assert_eq!(driver.dropped("window closed"), 0);
    /// ```
    pub fn watermarks(&self, idle: Duration) -> &Self {
        let idle_ms = i64::try_from(idle.as_millis()).unwrap_or(i64::MAX);
        self.graph.lock().time.watermark_idle_ms = Some(idle_ms);
        self
    }
}
