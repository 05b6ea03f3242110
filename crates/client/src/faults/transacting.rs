//! Transactions against the same faults: each is in the log as a whole or not at all, with its offsets, and the
//! application knows which, or knows that it does not know.

use super::*;
use crate::consumer::{Committed, GroupMetadata};
use crate::error::Advice;
use fleuve_types::TopicPartition;

/// What the application knows of a transaction in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    /// It was aborted, or its commit was never asked for.
    NotCommitted,
    /// Nobody said what became of the commit.
    Unknown,
}

struct Transaction {
    values: Vec<String>,
    /// What it commits for the group.
    offset: i64,
    fate: Fate,
}

struct Transactions {
    done: Vec<Transaction>,
    /// Whether the application heard of a failure.
    told: bool,
    model: Arc<Mutex<Model>>,
    asked: Arc<Mutex<HashSet<ApiKey>>>,
}

const TRANSACTIONS: usize = 5;
/// The application itself gives this one up.
const ABORTED: usize = 2;
/// How often the application asks again for the end of a transaction.
const ATTEMPTS: usize = 4;

async fn run(version_2: bool, chooser: Chooser) -> Transactions {
    let model = Arc::new(Mutex::new(Model::default()));
    model.lock().expect("no panic").coordinator.version_2 = version_2;
    let asked = Arc::new(Mutex::new(HashSet::new()));
    let broker = faulty(model.clone(), asked.clone(), chooser);
    let client = Client::with_transport(client_config(), Arc::new(broker));
    let mut run = Transactions { done: Vec::new(), told: false, model, asked };
    let whole = run.work(&client);
    assert!(tokio::time::timeout(HANGING, whole).await.is_ok(), "it hangs");
    run
}

async fn producer(client: &Client) -> Result<Producer, Error> {
    let config = ProducerConfig {
        transactional_id: Some("x".to_owned()),
        linger: Duration::ZERO,
        delivery_timeout: Duration::from_secs(40),
        max_block: Duration::from_secs(20),
        batch_size: 1,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client.clone(), config).expect("valid");
    producer.init_transactions().await?;
    Ok(producer)
}

impl Transactions {
    async fn work(&mut self, client: &Client) {
        let mut current = None;
        for number in 0..TRANSACTIONS {
            let mine = match current.take() {
                Some(mine) => mine,
                None => match producer(client).await {
                    Ok(mine) => mine,
                    Err(_) => {
                        self.told = true;
                        continue;
                    }
                },
            };
            if self.transact(&mine, number).await {
                current = Some(mine);
            }
        }
        if let Some(last) = current {
            self.told |= last.close().await.is_err();
        }
        // Whoever comes next finds nothing open.
        producer(client).await.map_or_else(|_| self.told = true, drop);
    }

    /// Does one transaction, and says whether the producer can go on.
    async fn transact(&mut self, producer: &Producer, number: usize) -> bool {
        let mut values: Vec<_> = (0..4).map(|record| format!("{}", 10 * number + record)).collect();
        let offset = number as i64 + 1;
        let (goes_on, fate) = match self.fill(producer, &mut values, offset).await {
            Ok(()) if number == ABORTED => self.abort(producer).await,
            Ok(()) => self.commit(producer).await,
            Err(error) => {
                self.told = true;
                match error.advice() {
                    Advice::Stop => (false, Fate::NotCommitted),
                    _ => self.abort(producer).await,
                }
            }
        };
        self.done.push(Transaction { values, offset, fate });
        goes_on
    }

    async fn fill(
        &mut self,
        producer: &Producer,
        values: &mut [String],
        offset: i64,
    ) -> Result<(), Error> {
        producer.begin_transaction()?;
        let mut deliveries = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let record = Record::new("t").partition(index as i32 % 2).value(value.as_str());
            deliveries.push(producer.send(record).await?);
        }
        let offsets = HashMap::from([(TopicPartition::new("t", 0), Committed::at(offset))]);
        let group = GroupMetadata {
            group_id: "g".to_owned(),
            member_id: String::new(),
            generation: -1,
            instance_id: None,
        };
        producer.send_offsets(&offsets, &group).await?;
        for delivery in deliveries {
            delivery.await?;
        }
        Ok(())
    }

    async fn commit(&mut self, producer: &Producer) -> (bool, Fate) {
        for _ in 0..ATTEMPTS {
            let error = match producer.commit_transaction().await {
                Ok(()) => return (true, Fate::Committed),
                Err(error) => error,
            };
            self.told = true;
            match error.advice() {
                Advice::Retry => {}
                Advice::Abort => return self.abort(producer).await,
                Advice::Fix | Advice::Stop => break,
            }
        }
        (false, Fate::Unknown)
    }

    async fn abort(&mut self, producer: &Producer) -> (bool, Fate) {
        for _ in 0..ATTEMPTS {
            match producer.abort_transaction().await {
                Ok(()) => return (true, Fate::NotCommitted),
                Err(error) => {
                    self.told = true;
                    if error.advice() != Advice::Retry {
                        break;
                    }
                }
            }
        }
        (false, Fate::NotCommitted)
    }

    fn met(self, key: ApiKey) -> Self {
        assert!(self.asked.lock().expect("no panic").contains(&key), "{key:?} was never asked");
        self
    }

    fn check(&self, context: &str) {
        let model = self.model.lock().expect("no panic");
        let visible = model.values_of(|transaction| {
            transaction.is_some_and(|t| model.coordinator.is_committed(t))
        });
        let mut standing: HashMap<&str, usize> = HashMap::new();
        for (_, _, value) in &visible {
            *standing.entry(value).or_default() += 1;
        }
        for Transaction { values, fate, .. } in &self.done {
            let found: Vec<_> = values
                .iter()
                .map(|value| standing.get(value.as_str()).copied().unwrap_or(0))
                .collect();
            let (all, none) =
                (found.iter().all(|&count| count == 1), found.iter().all(|&count| count == 0));
            let holds = match fate {
                Fate::Committed => all,
                Fate::NotCommitted => none,
                Fate::Unknown => all || none,
            };
            assert!(holds, "{values:?} is {fate:?} and stands {found:?} times: {context}");
        }
        for partition in 0..2 {
            let of_partition = visible.iter().filter(|(p, _, _)| *p == partition);
            let numbers: Vec<i32> =
                of_partition.map(|(_, _, value)| value.parse().expect("a number")).collect();
            assert!(numbers.is_sorted(), "order was lost: {numbers:?}, {context}");
        }
        let known = self.done.iter().filter(|done| done.fate == Fate::Committed);
        let last_known = known.map(|done| done.offset).max().unwrap_or(0);
        let offset = model.coordinator.offsets.get(&0).copied().unwrap_or(0);
        let unknown = self.done.iter().filter(|done| done.fate == Fate::Unknown);
        let mut possible = unknown.map(|done| done.offset).chain([last_known]);
        assert!(
            offset >= last_known && possible.any(|possible| possible == offset),
            "the group stands at {offset}: {context}"
        );
        let whole = self.done.iter().filter(|done| done.fate == Fate::Committed).count();
        assert!(
            self.told || whole == TRANSACTIONS - 1,
            "transactions were lost in silence: {context}"
        );
    }
}

/// The requests of a transaction, with the versions of the protocol that send them.
fn kinds() -> impl Iterator<Item = (bool, ApiKey)> {
    const BOTH: &[ApiKey] = &[
        ApiKey::ApiVersions,
        ApiKey::Metadata,
        ApiKey::FindCoordinator,
        ApiKey::InitProducerId,
        ApiKey::Produce,
        ApiKey::TxnOffsetCommit,
        ApiKey::EndTxn,
    ];
    let both = BOTH.iter().flat_map(|&key| [(false, key), (true, key)]);
    both.chain([(false, ApiKey::AddPartitionsToTxn), (false, ApiKey::AddOffsetsToTxn)])
}

#[tokio::test(start_paused = true)]
async fn an_honest_broker_commits_what_is_committed() {
    for version_2 in [false, true] {
        let run = run(version_2, Box::new(|_| Fault::None)).await;
        run.check("no faults");
        assert!(!run.told);
        assert_eq!(run.done.len(), TRANSACTIONS);
    }
}

#[tokio::test(start_paused = true)]
async fn every_error_code_leaves_transactions_whole() {
    for (version_2, key) in kinds() {
        for &code in ErrorCode::ALL {
            // A leader that calls a batch a duplicate has it; this one would lie.
            let lie = (key, code) == (ApiKey::Produce, ErrorCode::DuplicateSequenceNumber);
            if code == ErrorCode::None || lie {
                continue;
            }
            let without_end = WITHOUT_END.contains(&code);
            for count in [1, if without_end { usize::MAX } else { 2 }] {
                let context = format!("{code:?} {count} times in {key:?}, version 2: {version_2}");
                run(version_2, first(key, count, Fault::Refused(code)))
                    .await
                    .met(key)
                    .check(&context);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_before_a_retriable_error_is_not_done_twice() {
    for (version_2, key) in kinds() {
        for &code in ErrorCode::ALL {
            if code == ErrorCode::None || !code.is_retriable() {
                continue;
            }
            for count in [1, 3] {
                let context = format!("{code:?} {count} times after {key:?}, {version_2}");
                run(version_2, first(key, count, Fault::DoneAndRefused(code)))
                    .await
                    .check(&context);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lost_late_and_missing_answers_leave_transactions_whole() {
    let faults = [
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Late(Duration::from_secs(3)),
        Fault::Late(Duration::from_secs(9)),
        Fault::Silence,
    ];
    for (version_2, key) in kinds() {
        for fault in &faults {
            for count in [1, 4, usize::MAX] {
                let context = format!("{fault:?} {count} times in {key:?}, version 2: {version_2}");
                run(version_2, first(key, count, fault.clone())).await.met(key).check(&context);
            }
        }
    }
}

/// A broker that breaks the connection behind the first answer to EndTxn, and takes no other one for a minute.
fn broker_that_goes_away_after_a_commit(model: Arc<Mutex<Model>>) -> ScriptedBroker {
    /// Answers a request that nobody made, which the client takes for the end.
    const STRAY: &[u8] = &[0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff];
    let mut away_until = None;
    ScriptedBroker::raw(move |request| {
        if away_until.is_some_and(|until| Instant::now() < until) {
            return Reply::HangUp;
        }
        let reply = model.lock().expect("no panic").answer(&request, None);
        match reply {
            Reply::Send(mut segments) if request.key == ApiKey::EndTxn && away_until.is_none() => {
                away_until = Some(Instant::now() + Duration::from_secs(60));
                segments.push(Bytes::from_static(STRAY));
                Reply::Send(segments)
            }
            reply => reply,
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_done_is_not_asked_for_under_the_next_epoch() {
    // The application waits for the commit, or gives it up before the client does.
    for patience in [Duration::from_secs(200), Duration::from_secs(3)] {
        let model = Arc::new(Mutex::new(Model::default()));
        model.lock().expect("no panic").coordinator.version_2 = true;
        let broker = broker_that_goes_away_after_a_commit(model.clone());
        let client = Client::with_transport(client_config(), Arc::new(broker));
        let producer = producer(&client).await.expect("an honest coordinator");
        for value in ["1", "2"] {
            producer.begin_transaction().expect("ready");
            let record = Record::new("t").partition(0).value(value);
            producer.send_and_wait(record).await.expect("written");
            match tokio::time::timeout(patience, producer.commit_transaction()).await {
                Ok(committed) => committed.expect("it stands"),
                Err(_) => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    producer.commit_transaction().await.expect("it still stands");
                }
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let model = model.lock().expect("no panic");
        let committed = |t: Option<u64>| t.is_some_and(|t| model.coordinator.is_committed(t));
        assert_eq!(model.values_of(committed).len(), 2, "{patience:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn random_storms_leave_transactions_whole() {
    for seed in 0..200 {
        let mut dice = Dice(seed + 5000);
        let mut left = 40;
        let chooser: Chooser = Box::new(move |_| {
            if left == 0 || dice.draw(3) > 0 {
                return Fault::None;
            }
            left -= 1;
            match dice.draw(8) {
                0 => Fault::LostBefore,
                1 => Fault::LostAfter,
                2 => Fault::Late(Duration::from_millis(dice.draw(8000))),
                3 => Fault::Silence,
                4 => Fault::Refused(ErrorCode::NotLeaderOrFollower),
                5 => Fault::Refused(ErrorCode::ConcurrentTransactions),
                6 => Fault::DoneAndRefused(ErrorCode::RequestTimedOut),
                _ => Fault::Refused(ErrorCode::NotCoordinator),
            }
        });
        run(seed % 2 == 0, chooser).await.check(&format!("seed {seed}"));
    }
}

#[tokio::test(start_paused = true)]
async fn lies_about_transactions_are_outlived() {
    for seed in 0..200 {
        let chooser = garbling(Dice(seed + 6000));
        drop(run(seed % 2 == 0, chooser).await);
    }
}
