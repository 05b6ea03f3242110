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
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
    #[cfg(target_os = "linux")]
    set_for: Option<Instant>,
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
        Self { timer, set_for: None }
    }

    /// Waits until `at`.
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn until(&mut self, at: Instant) {
        let now = Instant::now();
        let after = at.saturating_duration_since(now);
        // Virtual time stands still between two questions, and knows nothing of the system's timers.
        let is_precise = after <= LONGEST && Instant::now() != now;
        let Some(timer) = self.timer.as_ref().filter(|_| is_precise) else {
            return tokio::time::sleep_until(at).await;
        };
        if self.set_for != Some(at) {
            if set(timer.get_ref(), after).is_err() {
                return tokio::time::sleep_until(at).await;
            }
            self.set_for = Some(at);
        }
        if let Ok(mut ready) = timer.readable().await {
            ready.clear_ready();
        }
        // How often it rang does not matter, and setting it anew silences it.
        self.set_for = None;
    }
}

#[cfg(target_os = "linux")]
fn set(timer: &std::os::fd::OwnedFd, after: Duration) -> std::io::Result<()> {
    use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
    const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let it_value = Timespec {
        tv_sec: after.as_secs() as i64,
        // Nothing at all would switch it off.
        tv_nsec: i64::from(after.subsec_nanos()).max(1),
    };
    let once = Itimerspec { it_interval: NEVER, it_value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new() -> Self {
        Self {}
    }

    /// Waits until `at`.
    pub(crate) async fn until(&mut self, at: Instant) {
        tokio::time::sleep_until(at).await
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_not_before_its_time_and_again_when_set_again() {
        let mut alarm = Alarm::new();
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

    #[tokio::test(start_paused = true)]
    async fn it_does_not_hold_up_virtual_time() {
        let mut alarm = Alarm::new();
        let at = Instant::now() + Duration::from_secs(3600);
        alarm.until(at).await;
        alarm.until(Instant::now() + Duration::from_millis(1)).await;
        assert!(Instant::now() >= at);
    }
}
