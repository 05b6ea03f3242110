//! What is wrong, or worth knowing, about a configuration, as its author reads it.

use std::fmt;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On a line of a file.
    File {
        /// The file's name as the user gave it.
        name: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// By a flag of the command line, which the text names.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One remark about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the remark applies; none when it follows from what is not set.
    pub origin: Option<Origin>,
    /// The remark, ending with the remedy.
    pub message: String,
}

impl Problem {
    pub(super) fn new(origin: Option<&Origin>, message: impl Into<String>) -> Self {
        Self { origin: origin.cloned(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// All remarks about one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// What keeps the broker from starting.
    pub errors: Vec<Problem>,
    /// What the operator should know, and can live with.
    pub warnings: Vec<Problem>,
}

impl Problems {
    /// Sorts remarks as their reader meets them: by line, then flags, then what is nowhere written.
    pub(super) fn sort(&mut self) {
        let place = |problem: &Problem| match &problem.origin {
            Some(Origin::File { line, .. }) => (0, *line),
            Some(Origin::Flag(_)) => (1, 0),
            None => (2, 0),
        };
        self.errors.sort_by_key(place);
        self.warnings.sort_by_key(place);
    }

    pub(super) fn error(&mut self, origin: Option<&Origin>, message: impl Into<String>) {
        self.errors.push(Problem::new(origin, message));
    }

    pub(super) fn warning(&mut self, origin: Option<&Origin>, message: impl Into<String>) {
        self.warnings.push(Problem::new(origin, message));
    }
}

/// Reports that a configuration cannot be used; its text has one line for each error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Everything that was found, warnings included.
    pub problems: Problems,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.problems.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
