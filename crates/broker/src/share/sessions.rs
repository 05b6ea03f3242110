//! Share sessions: which share-partitions a member asks for, without naming them every time.
//!
//! A session belongs to a member and a connection. Requests carry the session's epoch, 0 to begin
//! one and -1 to end it, so that an answer that got lost cannot be mistaken for one that did not.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fleuve_protocol::Str;
use fleuve_types::Uuid;
use parking_lot::Mutex;

use crate::request::Peer;

/// The epoch that begins a session.
const INITIAL: i32 = 0;
/// The epoch that ends a session.
const FINAL: i32 = -1;

/// Most partitions of one session.
const PARTITIONS_MAX: usize = 100_000;

/// A partition by topic id and index.
pub(crate) type Wanted = (Uuid, i32);

/// Why a request does not fit its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionError {
    NotFound,
    WrongEpoch,
    LimitReached,
    /// The request contradicts itself.
    Invalid,
}

/// What a request is part of.
#[derive(Debug)]
pub(crate) struct Session {
    /// What the member asks for, in the order in which it asked.
    pub(crate) wanted: Vec<Wanted>,
    /// How often it has asked; which partition is first depends on it.
    pub(crate) epoch: i32,
    /// Whether it has just begun, so that the answer names every partition.
    pub(crate) is_new: bool,
    /// Whether the member asks for the last time.
    pub(crate) is_final: bool,
}

#[derive(Debug)]
struct Entry {
    epoch: i32,
    wanted: Vec<Wanted>,
    connection: Weak<Peer>,
}

/// The share sessions of a broker, by group and member.
#[derive(Debug)]
pub(crate) struct Sessions {
    entries: Mutex<HashMap<(Str, Str), Entry>>,
    max: usize,
}

impl Sessions {
    /// Makes room for `max` sessions.
    pub(crate) fn new(max: usize) -> Self {
        Self { entries: Mutex::default(), max }
    }

    /// Sessions there are now.
    pub(crate) fn count(&self) -> usize {
        self.entries.lock().len()
    }

    /// Takes a fetch to its session.
    pub(crate) fn fetch(
        &self,
        (group, member): (&Str, &Str),
        epoch: i32,
        (added, forgotten): (&[Wanted], &[Wanted]),
        has_acknowledgements: bool,
        connection: &Arc<Peer>,
    ) -> Result<Session, SessionError> {
        let mut entries = self.entries.lock();
        let key = (group.detach(), member.detach());
        if epoch == INITIAL {
            if has_acknowledgements || added.len() > PARTITIONS_MAX {
                return Err(SessionError::Invalid);
            }
            if entries.len() >= self.max && !entries.contains_key(&key) {
                return Err(SessionError::LimitReached);
            }
            let mut wanted = Vec::new();
            add(&mut wanted, added);
            let entry =
                Entry { epoch: 1, wanted: wanted.clone(), connection: Arc::downgrade(connection) };
            entries.insert(key, entry);
            return Ok(Session { wanted, epoch: 0, is_new: true, is_final: false });
        }
        let entry = entries.get_mut(&key).ok_or(SessionError::NotFound)?;
        if epoch == FINAL {
            let session = Session { wanted: Vec::new(), epoch, is_new: false, is_final: true };
            return Ok(session);
        }
        entry.advance(epoch)?;
        entry.wanted.retain(|wanted| !forgotten.contains(wanted));
        if entry.wanted.len().saturating_add(added.len()) > PARTITIONS_MAX {
            return Err(SessionError::Invalid);
        }
        add(&mut entry.wanted, added);
        Ok(Session { wanted: entry.wanted.clone(), epoch, is_new: false, is_final: false })
    }

    /// Takes an acknowledgement to its session; says whether it is the member's last.
    pub(crate) fn acknowledge(
        &self,
        (group, member): (&Str, &Str),
        epoch: i32,
    ) -> Result<bool, SessionError> {
        if epoch == INITIAL {
            return Err(SessionError::WrongEpoch);
        }
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&(group.clone(), member.clone()));
        let entry = entry.ok_or(SessionError::NotFound)?;
        if epoch == FINAL {
            return Ok(true);
        }
        entry.advance(epoch)?;
        Ok(false)
    }

    /// Whether the member has a session whose connection lives.
    pub(crate) fn is_connected(&self, group: &Str, member: &Str) -> bool {
        let entries = self.entries.lock();
        let entry = entries.get(&(group.clone(), member.clone()));
        entry.is_some_and(|entry| entry.connection.strong_count() > 0)
    }

    /// Whether any member of the group has a session.
    pub(crate) fn has_any(&self, group: &str) -> bool {
        self.entries.lock().keys().any(|(of, _)| **of == *group)
    }

    /// Ends the session of a member, if there is one.
    pub(crate) fn end(&self, group: &Str, member: &Str) {
        self.entries.lock().remove(&(group.clone(), member.clone()));
    }

    /// Ends the sessions of a connection and names the members.
    pub(crate) fn end_of_connection(&self, connection: &Arc<Peer>) -> Vec<(Str, Str)> {
        let mut entries = self.entries.lock();
        if entries.is_empty() {
            return Vec::new();
        }
        let of_it =
            |entry: &Entry| std::ptr::eq(entry.connection.as_ptr(), Arc::as_ptr(connection));
        let ended = entries.extract_if(|_, entry| of_it(entry)).map(|(key, _)| key);
        ended.collect()
    }
}

impl Entry {
    fn advance(&mut self, epoch: i32) -> Result<(), SessionError> {
        if epoch != self.epoch {
            return Err(SessionError::WrongEpoch);
        }
        self.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        Ok(())
    }
}

fn add(wanted: &mut Vec<Wanted>, added: &[Wanted]) {
    // Members that add many partitions at once do so when they begin, where all of them are new.
    let mut known: std::collections::HashSet<Wanted> = wanted.iter().copied().collect();
    wanted.extend(added.iter().copied().filter(|partition| known.insert(*partition)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Arc<Peer> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        Arc::new(Peer::new(address, 0))
    }

    const A: Wanted = (Uuid([1; 16]), 0);
    const B: Wanted = (Uuid([2; 16]), 3);

    #[test]
    fn a_session_remembers_what_was_asked_for() {
        let (sessions, peer) = (Sessions::new(1), peer());
        let who = (&Str::from("g"), &Str::from("m"));
        let fetch = |epoch, added: &[Wanted], forgotten: &[Wanted]| {
            let session = sessions.fetch(who, epoch, (added, forgotten), false, &peer);
            session.map(|session| session.wanted)
        };
        assert_eq!(fetch(1, &[A], &[]), Err(SessionError::NotFound));
        assert_eq!(fetch(0, &[A, A], &[]), Ok(vec![A]));
        assert_eq!(fetch(1, &[B], &[]), Ok(vec![A, B]));
        assert_eq!(fetch(1, &[], &[]), Err(SessionError::WrongEpoch));
        assert_eq!(fetch(2, &[], &[A]), Ok(vec![B]));
        assert_eq!(sessions.acknowledge(who, 3), Ok(false));
        assert_eq!(fetch(4, &[], &[]), Ok(vec![B]));
        assert_eq!(sessions.acknowledge(who, -1), Ok(true));
        let other = (&Str::from("g"), &Str::from("n"));
        let refused = sessions.fetch(other, 0, (&[], &[]), false, &peer).map(|s| s.wanted);
        assert_eq!(refused, Err(SessionError::LimitReached));
    }

    #[test]
    fn a_session_outlives_what_the_group_thinks_of_its_member() {
        let (sessions, here) = (Sessions::new(9), peer());
        let (group, member) = (Str::from("g"), Str::from("m"));
        assert!(!sessions.is_connected(&group, &member) && !sessions.has_any("g"));
        sessions.fetch((&group, &member), 0, (&[A], &[]), false, &here).expect("there is room");
        assert!(sessions.is_connected(&group, &member));
        assert!(sessions.has_any("g") && !sessions.has_any("h"));
        drop(here);
        assert!(!sessions.is_connected(&group, &member), "nobody can end it any more");
        sessions.end(&group, &member);
        assert!(!sessions.has_any("g"));
    }

    #[test]
    fn sessions_end_with_their_connection() {
        let (sessions, here, there) = (Sessions::new(9), peer(), peer());
        let group = Str::from("g");
        for (member, peer) in [("a", &here), ("b", &there)] {
            let member = Str::from(member);
            sessions.fetch((&group, &member), 0, (&[A], &[]), false, peer).expect("there is room");
        }
        assert_eq!(sessions.end_of_connection(&here), [(group.clone(), Str::from("a"))]);
        assert_eq!(sessions.count(), 1);
        sessions.end(&group, &"b".into());
        assert_eq!(sessions.count(), 0);
    }
}
