//! What a command has done: a sentence for each thing, or for programs one list at the end.
//!
//! An entry of the list has `action` and what it was done to; with `--dry-run` it has `dry_run`, and
//! where it did not work, `error`.

use std::fmt;

use serde_json::{Map, Value};

use crate::args::Format;
use crate::failure::Failure;
use crate::output::{line, note, print_value};

/// What one command has done so far.
#[derive(Debug)]
pub(crate) struct Outcomes {
    format: Format,
    dry_run: bool,
    entries: Vec<Value>,
    has_failed: bool,
}

impl Outcomes {
    /// Begins with nothing done; with `dry_run` nothing will be.
    pub(crate) fn new(format: Format, dry_run: bool) -> Self {
        Self { format, dry_run, entries: Vec::new(), has_failed: false }
    }

    /// Tells of something that is done.
    pub(crate) fn done(
        &mut self,
        action: &str,
        subject: Value,
        sentence: impl fmt::Display,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => line(sentence.to_string()),
            Format::Json | Format::Yaml => {
                self.enter(action, subject, None);
                Ok(())
            }
        }
    }

    /// Tells of something that did not work; others may.
    pub(crate) fn failed(&mut self, action: &str, subject: Value, error: impl fmt::Display) {
        self.has_failed = true;
        match self.format {
            Format::Table => note(format!("error: {error}")),
            Format::Json | Format::Yaml => self.enter(action, subject, Some(error.to_string())),
        }
    }

    /// Prints the list, if it is one, and fails if something did not work.
    pub(crate) fn end(self) -> Result<(), Failure> {
        if self.format != Format::Table {
            print_value(self.format, &Value::Array(self.entries))?;
        }
        if self.has_failed { Err(Failure::Said) } else { Ok(()) }
    }

    fn enter(&mut self, action: &str, subject: Value, error: Option<String>) {
        let mut entry = Map::new();
        entry.insert("action".to_owned(), Value::from(action));
        if let Value::Object(fields) = subject {
            entry.extend(fields);
        }
        if self.dry_run {
            entry.insert("dry_run".to_owned(), Value::Bool(true));
        }
        if let Some(error) = error {
            entry.insert("error".to_owned(), Value::String(error));
        }
        self.entries.push(Value::Object(entry));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_get_a_list_with_what_failed() {
        let mut outcomes = Outcomes::new(Format::Json, true);
        outcomes
            .done("delete", json!({ "topic": "a" }), "would delete a")
            .expect("nothing printed");
        outcomes.failed("delete", json!({ "topic": "b" }), "there is none");
        assert_eq!(
            outcomes.entries,
            [
                json!({ "action": "delete", "topic": "a", "dry_run": true }),
                json!({
                    "action": "delete", "topic": "b", "dry_run": true, "error": "there is none",
                }),
            ]
        );
        assert!(outcomes.has_failed);
    }
}
