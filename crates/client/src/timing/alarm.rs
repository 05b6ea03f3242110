//! Waking up at a time finer than the runtime's timer.
//!
//! Tokio's timer rounds a deadline up to its own milliseconds, and then waits for whole ones: a
//! linger of one millisecond takes up to three. On Linux a timer of the system wakes us in time.
//! It replaces tokio's where the time is short: a deadline before all others makes tokio wake the
//! thread that waits for the network, which costs as much as a record. Elsewhere, over longer times
//! and in virtual time it is tokio's timer that counts.

use std::time::Duration;

use tokio::time::Instant;

/// Wakes its owner at a time, or a little later.
///
/// Others may ask for an earlier time by [`Alarm::ring_by`], without waking the owner before it:
/// that costs them a call of the system, where waking a thread costs ten.
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
    #[cfg(target_os = "linux")]
    times: std::sync::Mutex<Times>,
}

/// When an alarm rings.
#[cfg(target_os = "linux")]
#[derive(Default)]
struct Times {
    /// What the system's timer is set for, until its ringing is noticed.
    set_for: Option<Instant>,
    /// The earliest time that others asked for since the owner began to look what there is to do.
    asked: Option<Instant>,
}

/// Over longer times a millisecond more or less does not matter.
const LONGEST: Duration = Duration::from_millis(50);

#[cfg(target_os = "linux")]
impl Alarm {
    #[expect(
        deprecated,
        reason = "its successor wants a promise, in unsafe, that OwnedFd gives by its type: that the descriptor stays open"
    )]
    pub(crate) fn new() -> Self {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).ok();
        let timer = timer.and_then(|timer| tokio::io::unix::AsyncFd::new(timer).ok());
        Self { timer, times: std::sync::Mutex::default() }
    }

    /// Makes the alarm ring at `at` if it would not before; false if it cannot, so that its owner
    /// has to be woken now.
    pub(crate) fn ring_by(&self, at: Instant) -> bool {
        let Some(timer) = self.precise(at) else { return false };
        let mut times = self.times();
        if times.asked.is_none_or(|asked| asked > at) {
            times.asked = Some(at);
        }
        times.set_for.is_some_and(|set_for| set_for <= at) || times.set(timer.get_ref(), at)
    }

    /// Forgets what others asked for until now, because the owner is about to see why.
    pub(crate) fn forget(&self) {
        self.times().asked = None;
    }

    /// Waits until `at`, or until the time others have asked for since [`Alarm::forget`].
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn until(&self, at: Instant) {
        let asked = self.times().asked;
        let at = asked.map_or(at, |asked| asked.min(at));
        let Some(timer) = &self.timer else { return tokio::time::sleep_until(at).await };
        let is_set = match self.precise(at) {
            None => false,
            Some(timer) => {
                let mut times = self.times();
                // Whoever asked for an earlier time a moment ago has set it already.
                times.asked.is_some_and(|asked| asked < at)
                    || times.set_for == Some(at)
                    || times.set(timer.get_ref(), at)
            }
        };
        if is_set {
            self.ringing(timer).await;
        } else {
            tokio::select! {
                () = self.ringing(timer) => {}
                () = tokio::time::sleep_until(at) => {}
            }
        }
    }

    async fn ringing(&self, timer: &tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>) {
        if let Ok(mut ready) = timer.readable().await {
            // How often it rang does not matter, and setting it anew silences it.
            ready.clear_ready();
        }
        self.times().set_for = None;
    }

    /// Returns the system's timer where it is the one to take.
    fn precise(&self, at: Instant) -> Option<&tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
        let now = Instant::now();
        // Virtual time stands still between two questions, and knows nothing of the system's timers.
        let is_precise = at.saturating_duration_since(now) <= LONGEST && Instant::now() != now;
        self.timer.as_ref().filter(|_| is_precise)
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        // What is guarded are two times, each good by itself.
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(target_os = "linux")]
impl Times {
    /// Sets the system's timer, and reports whether that went well.
    fn set(&mut self, timer: &std::os::fd::OwnedFd, at: Instant) -> bool {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let after = at.saturating_duration_since(Instant::now());
        let it_value = Timespec {
            tv_sec: after.as_secs() as i64,
            // Nothing at all would switch it off.
            tv_nsec: i64::from(after.subsec_nanos()).max(1),
        };
        let once = Itimerspec { it_interval: NEVER, it_value };
        let is_set = timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).is_ok();
        self.set_for = is_set.then_some(at);
        is_set
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new() -> Self {
        Self {}
    }

    /// Elsewhere the owner has to be woken.
    pub(crate) fn ring_by(&self, _: Instant) -> bool {
        false
    }

    /// Nobody can have asked for anything.
    pub(crate) fn forget(&self) {}

    /// Waits until `at`.
    pub(crate) async fn until(&self, at: Instant) {
        tokio::time::sleep_until(at).await
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_not_before_its_time_and_again_when_set_again() {
        let alarm = Alarm::new();
        for _ in 0..3 {
            let at = Instant::now() + Duration::from_micros(300);
            alarm.until(at).await;
            assert!(Instant::now() >= at);
        }
        // One that was given up is replaced by the next.
        let far = Instant::now() + LONGEST;
        tokio::select! {
            biased;
            () = alarm.until(far) => panic!("it rang too early"),
            () = tokio::task::yield_now() => {}
        }
        let near = Instant::now() + Duration::from_micros(100);
        alarm.until(near).await;
        assert!((near..far).contains(&Instant::now()));
    }

    #[tokio::test]
    async fn others_make_it_ring_earlier_without_waking_its_owner_now() {
        let alarm = std::sync::Arc::new(Alarm::new());
        let began = Instant::now();
        let (near, far) = (began + Duration::from_millis(20), began + Duration::from_secs(3600));
        let owner = tokio::spawn({
            let alarm = alarm.clone();
            async move { alarm.until(far).await }
        });
        tokio::task::yield_now().await;
        assert!(alarm.ring_by(near));
        assert!(alarm.ring_by(near + Duration::from_millis(1)), "it rings before that anyway");
        owner.await.expect("no panic");
        assert!((near..far).contains(&Instant::now()));

        // What was asked before the owner looked is over, what came after is not.
        assert!(alarm.ring_by(Instant::now()));
        alarm.forget();
        let later = Instant::now() + Duration::from_millis(10);
        assert!(alarm.ring_by(later));
        alarm.until(far).await;
        assert!(Instant::now() < far);
        assert!(!alarm.ring_by(far), "so long is not the system's timer's business");
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_hold_up_virtual_time() {
        let alarm = Alarm::new();
        let at = Instant::now() + Duration::from_secs(3600);
        alarm.until(at).await;
        alarm.until(Instant::now() + Duration::from_millis(1)).await;
        assert!(Instant::now() >= at);
        assert!(!alarm.ring_by(Instant::now()), "whoever asks has to wake the owner");
    }
}
