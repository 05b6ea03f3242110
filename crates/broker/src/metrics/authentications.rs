//! How often clients have said who they are, and how that ended.

use super::Counter;

/// What has become of the authentications of one listener.
#[derive(Debug, Default)]
pub(crate) struct Authentications {
    succeeded: Counter,
    failed: Counter,
    succeeded_again: Counter,
    failed_again: Counter,
    /// Connections that ended because their session did.
    sessions_over: Counter,
}

impl Authentications {
    /// Counts the end of an authentication, of a new connection or of one that did so `again`.
    pub(crate) fn count(&self, again: bool, has_succeeded: bool) {
        let counter = match (again, has_succeeded) {
            (false, true) => &self.succeeded,
            (false, false) => &self.failed,
            (true, true) => &self.succeeded_again,
            (true, false) => &self.failed_again,
        };
        counter.add(1);
    }

    /// Counts a connection whose client did not authenticate again in time.
    pub(crate) fn session_over(&self) {
        self.sessions_over.add(1);
    }

    /// What there is to show, by the ends of Kafka's names.
    pub(crate) fn totals(&self) -> [(&'static str, &'static str, u64); 5] {
        [
            (
                "successful_authentication_total",
                "Connections whose client was authenticated, by TLS or SASL.",
                self.succeeded.get(),
            ),
            (
                "failed_authentication_total",
                "Connections whose client was not let in, by TLS or SASL.",
                self.failed.get(),
            ),
            (
                "successful_reauthentication_total",
                "Sessions that were prolonged.",
                self.succeeded_again.get(),
            ),
            (
                "failed_reauthentication_total",
                "Sessions that were to be prolonged and were not.",
                self.failed_again.get(),
            ),
            (
                "expired_connections_killed_count",
                "Connections ended because their session was over.",
                self.sessions_over.get(),
            ),
        ]
    }
}
