//! The accounts of one kind of quota: what everybody has used, and how long they must wait.
//!
//! A machine: it is told the time and answers with milliseconds. Whoever answers requests passes
//! them on to the client and stops reading from its connection for as long.

use std::collections::HashMap;

use super::limits::{Limits, Payer};
use super::rate::{Rate, TokenBucket, Window};

/// Accounts that are kept. Client-ids are made up by clients, so that they must be bounded.
const ACCOUNTS_MAX: usize = 10_000;
/// An account that nobody has used for this long is closed, as in Kafka.
const UNUSED_MS: i64 = 3_600_000;
/// The window of throttle times in metrics: Kafka's default for metrics of any kind.
const THROTTLE_WINDOW: Window = Window { samples: 2, sample_ms: 30_000 };

/// The accounts of one kind of quota.
#[derive(Debug)]
pub(crate) struct Ledger {
    window: Window,
    /// The longest wait that is ever asked for.
    wait_max_ms: Option<i64>,
    limits: Limits,
    accounts: HashMap<Payer, Account>,
    tidied_ms: i64,
}

/// What somebody has used.
#[derive(Debug, Default)]
struct Account {
    rate: Rate,
    bucket: TokenBucket,
    throttles: Rate,
    used_ms: i64,
}

/// What metrics tell about an account.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Whose it is.
    pub(crate) payer: Payer,
    /// The amount per second.
    pub(crate) rate: f64,
    /// Tokens left; of quotas that are buckets.
    pub(crate) tokens: f64,
    /// How long the client was asked to wait, on average.
    pub(crate) throttle_ms: f64,
}

impl Ledger {
    /// Opens a ledger without limits.
    pub(crate) fn new(window: Window, wait_max_ms: Option<i64>) -> Self {
        let (limits, accounts) = (Limits::default(), HashMap::new());
        Self { window, wait_max_ms, limits, accounts, tidied_ms: 0 }
    }

    /// Puts other limits in force; what was used stays.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        if self.limits.is_empty() {
            self.accounts.clear();
        }
    }

    /// Charges an amount that has been used and returns for how long the client must wait.
    pub(crate) fn charge(&mut self, user: &str, client_id: &str, amount: f64, now_ms: i64) -> i64 {
        let (window, wait_max_ms) = (self.window, self.wait_max_ms);
        let Some((account, limit)) = self.account(user, client_id, now_ms) else { return 0 };
        account.rate.record(&window, amount, now_ms);
        let rate = account.rate.per_second(&window, now_ms);
        if rate <= limit {
            return 0;
        }
        // The rate falls to the limit when as much again has passed as it is above it.
        let span_ms = account.rate.span_ms(&window, now_ms);
        let wait_ms = ((rate - limit) / limit * span_ms as f64).round() as i64;
        wait_ms.min(wait_max_ms.unwrap_or(i64::MAX))
    }

    /// Takes a charge back, of something that was not given after all.
    pub(crate) fn refund(&mut self, user: &str, client_id: &str, amount: f64, now_ms: i64) {
        let window = self.window;
        if let Some((account, _)) = self.account(user, client_id, now_ms) {
            account.rate.record(&window, -amount, now_ms);
        }
    }

    /// The most that a client can use at once without having to wait, if it is limited.
    pub(crate) fn ceiling(&self, user: &str, client_id: &str) -> Option<f64> {
        let (_, limit) = self.limits.find(user, client_id)?;
        let span_ms = (self.window.samples as i64 - 1) * self.window.sample_ms;
        Some(limit * span_ms as f64 / 1000.0)
    }

    /// Draws tokens unless the account is in debt; then says for how long it is.
    pub(crate) fn draw(
        &mut self,
        user: &str,
        client_id: &str,
        tokens: f64,
        now_ms: i64,
    ) -> Result<(), i64> {
        let window = self.window;
        let Some((account, limit)) = self.account(user, client_id, now_ms) else { return Ok(()) };
        let left = account.bucket.left(&window, limit, now_ms);
        if left < 0.0 {
            return Err((-left / limit * 1000.0).round() as i64);
        }
        account.rate.record(&window, tokens, now_ms);
        account.bucket.take(&window, limit, tokens, now_ms);
        Ok(())
    }

    /// Draws tokens in any case, and says for how long the account is in debt then.
    pub(crate) fn overdraw(
        &mut self,
        user: &str,
        client_id: &str,
        tokens: f64,
        now_ms: i64,
    ) -> i64 {
        let window = self.window;
        let Some((account, limit)) = self.account(user, client_id, now_ms) else { return 0 };
        account.rate.record(&window, tokens, now_ms);
        account.bucket.take(&window, limit, tokens, now_ms);
        let left = account.bucket.left(&window, limit, now_ms);
        if left < 0.0 { (-left / limit * 1000.0).round() as i64 } else { 0 }
    }

    /// Notes for metrics that a client was asked to wait.
    pub(crate) fn note_wait(&mut self, user: &str, client_id: &str, wait_ms: i64, now_ms: i64) {
        if let Some((account, _)) = self.account(user, client_id, now_ms) {
            account.throttles.record(&THROTTLE_WINDOW, wait_ms as f64, now_ms);
        }
    }

    /// What everybody uses, for metrics; not more than `count` of them.
    pub(crate) fn usage(&mut self, count: usize, now_ms: i64) -> Vec<Usage> {
        let (window, limits) = (self.window, &self.limits);
        let mut usage: Vec<Usage> = self
            .accounts
            .iter_mut()
            .filter_map(|(payer, account)| {
                let (_, limit) = limits.find(&payer.user, &payer.client_id)?;
                Some(Usage {
                    payer: payer.clone(),
                    rate: account.rate.per_second(&window, now_ms),
                    tokens: account.bucket.left(&window, limit, now_ms),
                    throttle_ms: account.throttles.mean(&THROTTLE_WINDOW, now_ms),
                })
            })
            .take(count)
            .collect();
        usage.sort_by(|one, other| one.payer.cmp(&other.payer));
        usage
    }

    fn account(&mut self, user: &str, client_id: &str, now_ms: i64) -> Option<(&mut Account, f64)> {
        let (mut payer, limit) = self.limits.find(user, client_id)?;
        if !self.accounts.contains_key(&payer) {
            self.make_room(now_ms);
            if self.accounts.len() >= ACCOUNTS_MAX {
                // All that come when the ledger is full share one.
                payer = Payer::default();
            }
        }
        let account = self.accounts.entry(payer).or_default();
        account.used_ms = now_ms;
        Some((account, limit))
    }

    /// Closes accounts whose absence makes no difference.
    fn make_room(&mut self, now_ms: i64) {
        // A look at all of them, and so not for every newcomer.
        let is_full = self.accounts.len() >= ACCOUNTS_MAX;
        let pause_ms = if is_full { self.window.sample_ms } else { UNUSED_MS / 60 };
        if now_ms - self.tidied_ms < pause_ms {
            return;
        }
        self.tidied_ms = now_ms;
        let window = self.window;
        self.accounts.retain(|_, account| {
            let is_forgotten = now_ms - account.used_ms >= UNUSED_MS
                || (is_full && account.rate.is_silent(&window, now_ms));
            !is_forgotten
        });
    }
}

#[cfg(test)]
mod tests {
    use fleuve_metadata::image::Quotas as QuotaImage;

    use super::*;

    const WINDOW: Window = Window { samples: 11, sample_ms: 1000 };

    fn limited(limit: f64) -> Ledger {
        let mut ledger = Ledger::new(WINDOW, None);
        ledger.set_limits(Limits::for_every_client(limit));
        ledger
    }

    #[test]
    fn waits_follow_apaches_formula() {
        let mut ledger = limited(1000.0);
        assert_eq!(ledger.charge("", "app", 10_000.0, 0), 0, "a window's worth is free");
        // 15,000 over 10 s are half more than allowed.
        assert_eq!(ledger.charge("", "app", 5_000.0, 0), 5000);
        // The window still begins where it began, so that it takes as long again.
        assert_eq!(ledger.charge("", "app", 0.0, 5000), 5000);
        assert_eq!(ledger.charge("", "app", 1000.0, 11_000), 0);
    }

    #[test]
    fn a_client_that_waits_as_told_gets_exactly_its_limit() {
        let mut ledger = limited(1_000_000.0);
        let (mut now_ms, mut sent) = (0, 0.0);
        while now_ms < 120_000 {
            sent += 100_000.0;
            now_ms += 1 + ledger.charge("", "app", 100_000.0, now_ms);
        }
        let rate = sent / (now_ms as f64 / 1000.0);
        assert!((0.9e6..1.15e6).contains(&rate), "{rate}");
    }

    #[test]
    fn accounts_are_apart_and_waits_bounded_where_they_should() {
        let mut ledger = Ledger::new(WINDOW, Some(1000));
        ledger.set_limits(Limits::for_every_client(10.0));
        assert_eq!(ledger.charge("", "one", 1e6, 0), 1000);
        assert_eq!(ledger.charge("", "two", 1.0, 0), 0);
        ledger.refund("", "one", 1e6, 0);
        assert_eq!(ledger.charge("", "one", 1.0, 0), 0);
        assert_eq!(ledger.ceiling("", "one"), Some(100.0));
    }

    #[test]
    fn tokens_are_given_until_there_is_a_debt() {
        let mut ledger = limited(1.0);
        assert_eq!(ledger.draw("", "app", 10.0, 0), Ok(()));
        assert_eq!(ledger.draw("", "app", 6.0, 0), Ok(()), "overdrawn once");
        assert_eq!(ledger.draw("", "app", 1.0, 0), Err(5000));
        assert_eq!(ledger.draw("", "app", 1.0, 5000), Ok(()));
        assert_eq!(ledger.overdraw("", "app", 3.0, 5000), 4000);
    }

    #[test]
    fn no_number_of_names_makes_the_ledger_grow_for_ever() {
        let mut ledger = limited(1000.0);
        for index in 0..ACCOUNTS_MAX * 2 {
            ledger.charge("", &format!("client-{index}"), 1.0, 100_000);
        }
        assert!(ledger.accounts.len() <= ACCOUNTS_MAX + 1);
        ledger.charge("", "later", 1.0, 200_000);
        assert_eq!(ledger.accounts.len(), 1, "all others had become silent");
        ledger.set_limits(Limits::of(&QuotaImage::default(), "producer_byte_rate"));
        assert!(ledger.accounts.is_empty());
    }
}
