//! Tests of the gate, with a clock that stands still.

use std::net::Ipv4Addr;

use fleuve_metadata::image::QuotaEntity;
use fleuve_sim::SimClock;

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const WINDOW: Window = Window { samples: 11, sample_ms: 1000 };

fn limits(total_max: usize, per_address_max: usize) -> GateLimits {
    GateLimits { total_max, per_address_max, ..GateLimits::default() }
}

fn gate(limits: GateLimits) -> (Arc<ConnectionGate>, Arc<SimClock>) {
    let clock = Arc::new(SimClock::at(0));
    (Arc::new(ConnectionGate::new(limits, WINDOW, Arc::clone(&clock) as _)), clock)
}

fn admitted(verdict: Verdict) -> Option<Admission> {
    match verdict {
        Verdict::Admitted(admission, _) => Some(admission),
        Verdict::TooMany | Verdict::TooFast(_) => None,
    }
}

#[test]
fn an_address_may_hold_its_share_and_gets_it_back() {
    let (gate, _) = gate(limits(10, 2));
    let first = admitted(gate.admit("A", HERE)).expect("the first");
    let _second = admitted(gate.admit("A", HERE)).expect("the second");
    assert!(matches!(gate.admit("A", HERE), Verdict::TooMany));
    drop(first);
    assert!(admitted(gate.admit("A", HERE)).is_some());
    assert_eq!(gate.open(), 1);
}

#[test]
fn an_address_may_have_a_limit_of_its_own() {
    let overrides = HashMap::from([(HERE, 1)]);
    let (gate, _) = gate(GateLimits { overrides, ..limits(10, 5) });
    let _only = admitted(gate.admit("A", HERE)).expect("the first");
    assert!(admitted(gate.admit("A", HERE)).is_none());
    assert!(admitted(gate.admit("A", THERE)).is_some());
}

#[tokio::test]
async fn a_full_broker_accepts_again_when_a_connection_ends() {
    let (gate, _) = gate(limits(1, 10));
    let only = admitted(gate.admit("A", HERE)).expect("the first");
    let waiting = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.wait_for_room("A").await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(only);
    waiting.await.expect("woken");
}

#[tokio::test]
async fn a_listener_waits_for_its_own_limit_and_for_a_higher_one() {
    let own = |connections_max| GateLimits {
        listeners: HashMap::from([(
            "A".to_owned(),
            ListenerLimits { connections_max: Some(connections_max), ..Default::default() },
        )]),
        ..limits(10, 10)
    };
    let (gate, _) = gate(own(1));
    let _only = admitted(gate.admit("A", HERE)).expect("the first");
    let waiting = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.wait_for_room("A").await }
    });
    gate.wait_for_room("B").await;
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    gate.set_limits(own(2));
    waiting.await.expect("woken");
}

#[tokio::test]
async fn the_longest_silent_goes_when_the_protected_listener_fills_up_or_a_limit_falls() {
    let protected = ListenerLimits { is_protected: true, ..Default::default() };
    let all = |total_max| GateLimits {
        listeners: HashMap::from([("INTERNAL".to_owned(), protected)]),
        ..limits(total_max, 10)
    };
    let (gate, _) = gate(all(2));
    let mut tasks = Vec::new();
    let mut admissions = Vec::new();
    for _ in 0..2 {
        let admission = admitted(gate.admit("A", HERE)).expect("room");
        let task = tokio::spawn(std::future::pending::<()>());
        gate.attach(admission.id(), task.abort_handle());
        tasks.push(task);
        admissions.push(admission);
    }
    // The first did something after the second came.
    admissions[0].activity.note(Instant::now() + Duration::from_secs(1));
    let _broker = admitted(gate.admit("INTERNAL", HERE)).expect("whatever the limit");
    assert!(tasks.pop().expect("two").await.expect_err("ended").is_cancelled());
    drop(admissions.pop());
    assert!(!tasks[0].is_finished());
    gate.set_limits(all(1));
    assert!(tasks.pop().expect("one").await.expect_err("ended").is_cancelled());
}

#[test]
fn connections_come_no_faster_than_the_rate() {
    let (gate, clock) = gate(GateLimits { rate_max: Some(10), ..limits(1000, 1000) });
    let mut kept = Vec::new();
    let mut waited = Duration::ZERO;
    for _ in 0..200 {
        let Verdict::Admitted(admission, wait) = gate.admit("A", HERE) else { panic!("room") };
        kept.push(admission);
        clock.advance(wait);
        waited += wait;
    }
    // A window's worth at once, then ten a second.
    assert!(waited >= Duration::from_secs(9), "{waited:?}");
}

#[test]
fn an_address_over_its_quota_is_told_to_wait_and_let_go() {
    let (gate, clock) = gate(limits(1000, 1000));
    let mut quotas = fleuve_metadata::image::Image::new("test".into());
    let entity = |name: Option<&'static str>| {
        QuotaEntity([(QuotaEntityType::Ip, name.map(Into::into))].into())
    };
    for (name, rate) in [(Some("127.0.0.1"), 1.0), (None, 2.0)] {
        let record = entity(name).to_record(RATE_KEY, Some(rate));
        quotas.apply(&record.into()).expect("a quota");
    }
    gate.take_quotas(quotas.quotas());
    let admit = |address| matches!(gate.admit("A", address), Verdict::Admitted(..));
    assert_eq!((0..30).filter(|_| admit(HERE)).count(), 10);
    assert_eq!((0..30).filter(|_| admit(THERE)).count(), 20);
    let Verdict::TooFast(wait) = gate.admit("A", HERE) else { panic!("over its quota") };
    assert_eq!(wait, Duration::from_millis(1000));
    clock.advance(Duration::from_secs(11));
    assert!(admit(HERE));
}
