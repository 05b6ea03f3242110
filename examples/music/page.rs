//! The page: what it shows to whom, and the box for posts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_client::consumer::OwnedRecord;
use fleuve_client::{Producer, Record};
use fleuve_http::{Answer, Asset, Events, Reply, Site, SiteEvent};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::post::{HASHTAG, Post, User};
use super::topology::{CHARTS, MESSAGES, POSTS, SOUNDS, USERS};
use crate::kit::now_ms;

/// The page with its visitors.
pub(super) struct Page {
    producer: Producer,
    round_ms: i64,
    state: Mutex<State>,
}

/// What a new visitor is told, and who the visitors are.
#[derive(Default)]
struct State {
    users: BTreeMap<String, Arc<str>>,
    charts: Option<Arc<str>>,
    sounds: Option<Arc<str>>,
    messages: VecDeque<Arc<str>>,
    visitors: Vec<mpsc::Sender<SiteEvent>>,
    posted: VecDeque<Instant>,
}

/// What the box sends.
#[derive(Deserialize)]
struct Posted {
    name: String,
    text: String,
}

impl Page {
    pub(super) fn new(producer: Producer, round_ms: i64) -> Self {
        Self { producer, round_ms, state: Mutex::default() }
    }

    /// Shows a record of the application's to all visitors, and keeps what later ones need.
    pub(super) fn show(&self, record: &OwnedRecord) {
        let Some(value) = record.value.as_deref() else { return };
        // Through a value, so that what goes to browsers is JSON in one line, whoever wrote the topic.
        let Ok(mut value) = serde_json::from_slice::<Value>(value) else { return };
        let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.insert("key".to_owned(), json!(key));
            fields.insert("at".to_owned(), json!(record.timestamp));
        }
        let json: Arc<str> = value.to_string().into();
        let mut state = self.lock();
        let kind = match &*record.topic {
            USERS => {
                if state.users.contains_key(&*key) || state.users.len() < USERS_MAX {
                    state.users.insert(key.into_owned(), json.clone());
                }
                "users"
            }
            CHARTS => {
                state.charts = Some(json.clone());
                "charts"
            }
            SOUNDS => {
                state.sounds = Some(json.clone());
                "sounds"
            }
            MESSAGES => {
                state.messages.push_back(json.clone());
                if state.messages.len() > MESSAGES_MAX {
                    state.messages.pop_front();
                }
                "message"
            }
            _ => return,
        };
        let event = SiteEvent { kind, json };
        // Who does not keep up is cut off, comes back by itself, and is told everything anew.
        state.visitors.retain(|visitor| visitor.try_send(event.clone()).is_ok());
    }

    async fn take(&self, body: Bytes) -> Reply {
        let refused =
            |status, why: &str| Reply { status, json: json!({ "error": why }).to_string() };
        let Ok(posted) = serde_json::from_slice::<Posted>(&body) else {
            return refused(400, "send {\"name\": ..., \"text\": ...}");
        };
        let (name, text) = (posted.name.trim(), posted.text.trim());
        let fits = |text: &str, most| {
            (1..=most).contains(&text.chars().count()) && !text.contains(char::is_control)
        };
        if !fits(name, NAME_MAX) || !fits(text, TEXT_MAX) {
            let why = format!("a name has up to {NAME_MAX} letters, a post up to {TEXT_MAX}");
            return refused(400, &why);
        }
        if !self.may_post() {
            return refused(429, "that was a lot: take a breath");
        }
        let mut post = Post {
            created_at: now_ms(),
            id: now_ms(),
            text: text.to_owned(),
            source: "page".to_owned(),
            user: User {
                name: name.to_owned(),
                screen_name: name.to_lowercase().replace(char::is_whitespace, "_"),
                profile_image_url: String::new(),
            },
        };
        if !post.is_counted() {
            post.text = format!("{text} {HASHTAG}");
        }
        let instrument = post.instrument();
        let Ok(value) = serde_json::to_vec(&post) else {
            return refused(500, "the post cannot be written down");
        };
        let key = key_of(&post);
        let record = Record::new(POSTS).key(&key).value(&value).timestamp(post.created_at);
        match self.producer.send_and_wait(record).await {
            Ok(_) => Reply { status: 202, json: json!({ "instrument": instrument }).to_string() },
            Err(error) => refused(503, &error.to_string()),
        }
    }

    /// Whether the box may be used once more: so many posts in so long.
    fn may_post(&self) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        while state.posted.front().is_some_and(|at| now.duration_since(*at) > BREATH) {
            state.posted.pop_front();
        }
        let may = state.posted.len() < POSTS_MAX;
        if may {
            state.posted.push_back(now);
        }
        may
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is guarded is changed by whole entries, so a panic leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a post in its topic.
pub(super) fn key_of(post: &Post) -> String {
    json!({ "Id": post.id }).to_string()
}

impl Site for Page {
    fn asset(&self, path: &str) -> Option<Asset> {
        let (content_type, body) = match path {
            "/" => ("text/html; charset=utf-8", include_str!("page/index.html")),
            "/style.css" => ("text/css; charset=utf-8", include_str!("page/style.css")),
            "/app.js" => ("text/javascript; charset=utf-8", include_str!("page/app.js")),
            "/sounds.js" => ("text/javascript; charset=utf-8", include_str!("page/sounds.js")),
            "/mixer.js" => ("text/javascript; charset=utf-8", include_str!("page/mixer.js")),
            "/icon.svg" => ("image/svg+xml", include_str!("page/icon.svg")),
            _ => return None,
        };
        Some(Asset { content_type, body })
    }

    fn subscribe(&self, path: &str) -> Option<Events> {
        if path != "/events" {
            return None;
        }
        let mut state = self.lock();
        state.visitors.retain(|visitor| !visitor.is_closed());
        if state.visitors.len() >= VISITORS_MAX {
            return None;
        }
        let rules = json!({ "roundMs": self.round_ms, "now": now_ms() }).to_string();
        let mut events = vec![SiteEvent { kind: "rules", json: rules.into() }];
        let mut add = |kind, json: &Arc<str>| events.push(SiteEvent { kind, json: json.clone() });
        state.users.values().for_each(|user| add("users", user));
        state.messages.iter().for_each(|message| add("message", message));
        state.charts.iter().for_each(|charts| add("charts", charts));
        state.sounds.iter().for_each(|sounds| add("sounds", sounds));
        let (visitor, receiver) = mpsc::channel(events.len() + EVENTS_BEHIND_MAX);
        for event in events {
            // There is room for all of them.
            let _ = visitor.try_send(event);
        }
        state.visitors.push(visitor);
        Some(receiver)
    }

    fn post<'a>(&'a self, path: &'a str, body: Bytes) -> Answer<'a> {
        Box::pin(async move {
            match path {
                "/posts" => self.take(body).await,
                _ => Reply { status: 404, json: "{\"error\":\"post to /posts\"}".to_owned() },
            }
        })
    }
}

/// The longest name.
const NAME_MAX: usize = 30;
/// The longest post.
const TEXT_MAX: usize = 200;
/// Users that new visitors are told of.
const USERS_MAX: usize = 1000;
/// Messages that new visitors are told of.
const MESSAGES_MAX: usize = 12;
/// Visitors at a time.
const VISITORS_MAX: usize = 200;
/// How many events a visitor may be behind.
const EVENTS_BEHIND_MAX: usize = 256;
/// How many posts the box takes within a breath.
const POSTS_MAX: usize = 20;
const BREATH: Duration = Duration::from_secs(5);
