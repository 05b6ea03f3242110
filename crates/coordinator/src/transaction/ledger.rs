//! What the log says: the persistent state of a shard, and the only way to change it.

use std::collections::BTreeMap;

use fleuve_protocol::Str;

use super::metadata::Transaction;
use super::record::Record;

/// Transactional ids as the log has them: the last record of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    transactions: BTreeMap<Str, Transaction>,
}

impl Ledger {
    /// Takes in one record.
    pub fn apply(&mut self, record: &Record) {
        match record.transaction() {
            Some(transaction) => match self.transactions.get_mut(&record.transactional_id) {
                // Looking first spares the usual record the copy of its id.
                Some(place) => *place = transaction.clone(),
                None => {
                    let id = record.transactional_id.detach();
                    self.transactions.insert(id, transaction.clone());
                }
            },
            None => {
                self.transactions.remove(&record.transactional_id);
            }
        }
    }

    /// What is known of a transactional id.
    pub fn get(&self, transactional_id: &str) -> Option<&Transaction> {
        self.transactions.get(transactional_id)
    }

    /// Every transactional id, in order.
    pub fn transactions(&self) -> impl Iterator<Item = (&Str, &Transaction)> {
        self.transactions.iter()
    }

    /// Number of transactional ids.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether there is no transactional id.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }
}
