//! The Prometheus text format, version 0.0.4.
//!
//! ```text
//! # HELP name what it counts
//! # TYPE name counter
//! name{label="value"} 17
//! ```
//!
//! The format wants every sample of a family in one block under one header, so a family is opened
//! once and its samples follow.

use std::fmt::Write;

/// What a family of samples measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A total that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Quantiles with a sum and a count.
    Summary,
}

/// A metrics page under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: String,
}

impl Exposition {
    /// Begins an empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the family that the next samples belong to.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        };
        self.family.clear();
        self.family.push_str(name);
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a String grows");
        self
    }

    /// Adds a sample to the open family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.suffixed("", labels, value)
    }

    /// Adds a sample whose name is the open family's with a suffix, such as `_sum`.
    pub fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        match value {
            // The format's own words for what Rust writes as `inf`.
            f64::INFINITY => writeln!(self.text, " +Inf"),
            f64::NEG_INFINITY => writeln!(self.text, " -Inf"),
            // `{}` prints whole numbers without a fraction and never in exponent form.
            value => writeln!(self.text, " {value}"),
        }
        .expect("a String grows");
        self
    }

    /// Finishes the page.
    pub fn into_text(self) -> String {
        self.text
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_one_header_and_its_samples_follow() {
        let mut page = Exposition::new();
        page.family("bytes_total", Kind::Counter, "Bytes received.")
            .sample(&[("topic", "a")], 17.0)
            .sample(&[("topic", "b"), ("listener", "x")], 1e15);
        page.family("up", Kind::Gauge, "Whether it runs.").sample(&[], 0.5);
        assert_eq!(
            page.into_text(),
            "# HELP bytes_total Bytes received.\n# TYPE bytes_total counter\n\
             bytes_total{topic=\"a\"} 17\n\
             bytes_total{topic=\"b\",listener=\"x\"} 1000000000000000\n\
             # HELP up Whether it runs.\n# TYPE up gauge\nup 0.5\n"
        );
    }

    #[test]
    fn label_values_cannot_leave_their_quotes() {
        let mut page = Exposition::new();
        page.family("x", Kind::Gauge, "back\\slash\nline").sample(&[("l", "a\"b\\c\nd")], 1.0);
        assert_eq!(
            page.into_text(),
            "# HELP x back\\\\slash\\nline\n# TYPE x gauge\nx{l=\"a\\\"b\\\\c\\nd\"} 1\n"
        );
    }
}
