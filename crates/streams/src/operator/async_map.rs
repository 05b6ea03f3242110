//! Values that come from calls which take time: many calls under way at once, on the task's own thread.
//!
//! A future is polled when it has rung, and what it gives goes on as part of the input record that it came from. As
//! long as a call is under way nothing behind it is committed; a task with as many records as it may hold takes no
//! more.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::guarded::Input;
use super::stateless::UserError;
use crate::dsl::{AsyncOrder, Retry};
use crate::error::Cause;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Deferring, Down, Fan, Problem};

/// Calls a function of the program's for each record.
pub(crate) struct AsyncMap<K, V, W> {
    pub(crate) node: Arc<str>,
    pub(crate) call: Call<K, V, W>,
    /// How many records may be under way.
    pub(crate) limit: usize,
    pub(crate) order: AsyncOrder,
    pub(crate) retry: Option<Retry>,
    /// In the order in which they came.
    pub(crate) entries: VecDeque<Entry<K, V, W>>,
    /// Keys of which a call is under way or its result waits, where keys have one call at a time.
    pub(crate) busy: HashSet<K>,
    pub(crate) children: Fan<K, W>,
}

/// Begins a call.
pub(crate) type Call<K, V, W> = Box<dyn FnMut(K, V) -> Answer<W> + Send>;

/// A call under way.
pub(crate) type Answer<W> = Pin<Box<dyn Future<Output = Result<W, UserError>> + Send>>;

/// A record and what has become of it.
pub(crate) struct Entry<K, V, W> {
    record: Record<K, V>,
    input: Input,
    /// How often its call failed.
    failed: u32,
    state: State<W>,
}

enum State<W> {
    /// No call yet.
    Waiting,
    Running(Answer<W>, Arc<Bell>),
    /// To be tried again then.
    Pausing(i64),
    Done(Result<W, Cause>),
}

/// Tells that a future has something to say.
struct Bell {
    rung: AtomicBool,
    thread: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.thread.wake_by_ref();
    }
}

impl<K: Data + Eq + Hash, V: Data, W: Data> AsyncMap<K, V, W> {
    /// Takes every step that can be taken now.
    fn advance(&mut self, cx: &mut Cx) -> Result<(), Problem> {
        loop {
            self.start(cx);
            self.poll(cx);
            if !self.send(cx)? {
                return Ok(());
            }
        }
    }

    /// Begins calls, in the order of the records.
    fn start(&mut self, cx: &Cx) {
        let by_key = self.order == AsyncOrder::ByKey;
        let is_active = |entry: &&Entry<K, V, W>| !matches!(entry.state, State::Waiting);
        let mut active = self.entries.iter().filter(is_active).count();
        for entry in &mut self.entries {
            let begins = match entry.state {
                State::Waiting => {
                    active < self.limit && !(by_key && self.busy.contains(&entry.record.key))
                }
                State::Pausing(due_ms) => due_ms <= cx.now_ms,
                State::Running(..) | State::Done(_) => false,
            };
            if !begins {
                continue;
            }
            if matches!(entry.state, State::Waiting) {
                active += 1;
                if by_key {
                    self.busy.insert(entry.record.key.clone());
                }
            }
            let answer = (self.call)(entry.record.key.clone(), entry.record.value.clone());
            let bell = Bell { rung: AtomicBool::new(true), thread: cx.waker.clone() };
            entry.state = State::Running(answer, Arc::new(bell));
        }
    }

    /// Asks the calls that have something to say.
    fn poll(&mut self, cx: &Cx) {
        for entry in &mut self.entries {
            let State::Running(answer, bell) = &mut entry.state else {
                continue;
            };
            if !bell.rung.swap(false, Ordering::AcqRel) {
                continue;
            }
            let waker = Waker::from(bell.clone());
            let Poll::Ready(result) = answer.as_mut().poll(&mut Context::from_waker(&waker)) else {
                continue;
            };
            entry.state = match (result, &self.retry) {
                (Ok(value), _) => State::Done(Ok(value)),
                (Err(error), Some(retry)) if entry.failed < retry.attempts => {
                    entry.failed += 1;
                    tracing::warn!(node = %self.node, %error, failed = entry.failed, "call failed, trying again");
                    State::Pausing(cx.now_ms + retry.pause_ms(entry.failed))
                }
                (Err(error), _) => State::Done(Err(Cause::User(Arc::from(error)))),
            };
        }
    }

    /// Sends on what is done and has its turn. Returns whether there was anything.
    fn send(&mut self, cx: &mut Cx) -> Result<bool, Problem> {
        let current = Input::of(cx);
        let mut sent = false;
        let mut place = 0;
        while let Some(entry) = self.entries.get(place) {
            if !matches!(entry.state, State::Done(_)) {
                if self.order == AsyncOrder::Overall {
                    break;
                }
                place += 1;
                continue;
            }
            let Some(Entry { record, input, state: State::Done(result), .. }) =
                self.entries.remove(place)
            else {
                break;
            };
            sent = true;
            self.busy.remove(&record.key);
            input.resume(cx);
            match result {
                Ok(value) => self.children.push(record.with_value(value), cx)?,
                Err(cause) => cx.absorb(Problem::new(&self.node, cause))?,
            }
        }
        current.resume(cx);
        Ok(sent)
    }
}

impl<K: Data + Eq + Hash, V: Data, W: Data> Down<K, V> for AsyncMap<K, V, W> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let input = Input::of(cx);
        self.entries.push_back(Entry { record, input, failed: 0, state: State::Waiting });
        self.advance(cx)
    }
}

impl<K: Data + Eq + Hash, V: Data, W: Data> Deferring for AsyncMap<K, V, W> {
    fn is_settled(&self) -> bool {
        self.entries.is_empty()
    }

    fn holds(&self) -> bool {
        self.entries.len() >= self.limit
    }

    fn due_ms(&self) -> Option<i64> {
        let due = |entry: &Entry<K, V, W>| match entry.state {
            State::Pausing(due_ms) => Some(due_ms),
            State::Waiting | State::Running(..) | State::Done(_) => None,
        };
        self.entries.iter().filter_map(due).min()
    }

    fn resume(&mut self, _: bool, cx: &mut Cx) -> Result<(), Problem> {
        self.advance(cx)
    }
}
