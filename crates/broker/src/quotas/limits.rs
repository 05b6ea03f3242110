//! Which limit holds for a client, of the quotas that the cluster has.
//!
//! The order of precedence is Kafka's, most specific first:
//!
//! ```text
//! 1  user ada, client-id app      5  any user, any client-id
//! 2  user ada, any client-id      6  any user
//! 3  user ada                     7  client-id app
//! 4  any user, client-id app      8  any client-id
//! ```
//!
//! The first that exists also says who shares the limit: 1, 2, 4 and 5 give one to each pair, 3
//! and 6 one to each user with all its clients, 7 and 8 one to each client-id of whatever user.

use std::collections::HashMap;

use fleuve_metadata::image::{QuotaEntityType, Quotas as QuotaImage};
use fleuve_protocol::Str;

/// Whoever pays out of one account: a user, a client-id, or both; the other is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Payer {
    /// The user, if its name matters.
    pub(crate) user: Str,
    /// The client-id, if it matters.
    pub(crate) client_id: Str,
}

/// A name, or `None` for everybody without a quota of their own.
type Name = Option<Str>;

/// The limits of one kind of quota.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    pairs: HashMap<(Name, Name), f64>,
    users: HashMap<Name, f64>,
    clients: HashMap<Name, f64>,
}

impl Limits {
    /// Picks the limits with this key out of all quotas.
    pub(crate) fn of(quotas: &QuotaImage, key: &str) -> Self {
        let mut limits = Self::default();
        for (entity, values) in quotas.iter() {
            let Some(limit) = values.get(key) else { continue };
            let user = entity.0.get(&QuotaEntityType::User).cloned();
            let client = entity.0.get(&QuotaEntityType::ClientId).cloned();
            match (user, client) {
                (Some(user), Some(client)) => limits.pairs.insert((user, client), *limit),
                (Some(user), None) => limits.users.insert(user, *limit),
                (None, Some(client)) => limits.clients.insert(client, *limit),
                (None, None) => None,
            };
        }
        limits
    }

    /// One limit for each client-id.
    #[cfg(test)]
    pub(crate) fn for_every_client(limit: f64) -> Self {
        Self { clients: HashMap::from([(None, limit)]), ..Self::default() }
    }

    /// Reports whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.users.is_empty() && self.clients.is_empty()
    }

    /// Finds the limit of a client and who shares it; `None` if it has none.
    pub(crate) fn find(&self, user: &str, client_id: &str) -> Option<(Payer, f64)> {
        let (user, client) = (Str::copy_from(user), Str::copy_from(client_id));
        if !user.is_empty() {
            if !client.is_empty() && !self.pairs.is_empty() {
                let names =
                    [(Some(user.clone()), Some(client.clone())), (Some(user.clone()), None)];
                if let Some(limit) = names.iter().find_map(|names| self.pairs.get(names)) {
                    return Some((Payer { user, client_id: client }, *limit));
                }
            }
            if let Some(limit) = self.users.get(&Some(user.clone())) {
                return Some((Payer { user, client_id: Str::EMPTY }, *limit));
            }
            if !client.is_empty() && !self.pairs.is_empty() {
                let names = [(None, Some(client.clone())), (None, None)];
                if let Some(limit) = names.iter().find_map(|names| self.pairs.get(names)) {
                    return Some((Payer { user, client_id: client }, *limit));
                }
            }
            if let Some(limit) = self.users.get(&None) {
                return Some((Payer { user, client_id: Str::EMPTY }, *limit));
            }
        }
        if client.is_empty() {
            return None;
        }
        let limit = self.clients.get(&Some(client.clone())).or_else(|| self.clients.get(&None))?;
        Some((Payer { user: Str::EMPTY, client_id: client }, *limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let name = |name: &'static str| Some(Str::from(name));
        Limits {
            pairs: HashMap::from([
                ((name("ada"), name("app")), 1.0),
                ((name("ada"), None), 2.0),
                ((None, name("app")), 4.0),
                ((None, None), 5.0),
            ]),
            users: HashMap::from([(name("ada"), 3.0), (None, 6.0)]),
            clients: HashMap::from([(name("app"), 7.0), (None, 8.0)]),
        }
    }

    fn found(limits: &Limits, user: &'static str, client: &'static str) -> (String, f64) {
        let (payer, limit) = limits.find(user, client).expect("limited");
        (format!("{}/{}", payer.user.as_str(), payer.client_id.as_str()), limit)
    }

    #[test]
    fn the_most_specific_limit_holds_and_says_who_shares_it() {
        let mut limits = limits();
        let mut expect = |remove: fn(&mut Limits) -> Option<f64>, payer: &str, limit: f64| {
            assert_eq!(found(&limits, "ada", "app"), (payer.to_owned(), limit));
            remove(&mut limits);
        };
        expect(|it| it.pairs.remove(&(Some("ada".into()), Some("app".into()))), "ada/app", 1.0);
        expect(|it| it.pairs.remove(&(Some("ada".into()), None)), "ada/app", 2.0);
        expect(|it| it.users.remove(&Some("ada".into())), "ada/", 3.0);
        expect(|it| it.pairs.remove(&(None, Some("app".into()))), "ada/app", 4.0);
        expect(|it| it.pairs.remove(&(None, None)), "ada/app", 5.0);
        expect(|it| it.users.remove(&None), "ada/", 6.0);
        expect(|it| it.clients.remove(&Some("app".into())), "/app", 7.0);
        expect(|it| it.clients.remove(&None), "/app", 8.0);
        assert!(limits.is_empty() && limits.find("ada", "app").is_none());
    }

    #[test]
    fn others_get_the_defaults() {
        assert_eq!(found(&limits(), "bob", "app"), ("bob/app".to_owned(), 4.0));
        assert_eq!(found(&limits(), "bob", "x"), ("bob/x".to_owned(), 5.0));
        assert_eq!(found(&limits(), "bob", ""), ("bob/".to_owned(), 6.0));
        assert_eq!(found(&limits(), "", "x"), ("/x".to_owned(), 8.0));
    }
}
