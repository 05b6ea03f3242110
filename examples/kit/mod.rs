//! What applications share: a stage to run on, a feed for their input, a screen for what comes out.

mod error;
mod feed;
mod format;
mod random;
mod screen;
mod stage;

pub use error::DemoError;
pub use feed::{Ends, Feed, now_ms};
pub use format::{bar, clock, grouped, seconds};
pub use random::Random;
pub use screen::{Paint, Row, Screen};
pub use stage::{Stage, View};
