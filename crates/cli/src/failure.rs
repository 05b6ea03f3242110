//! Errors as the user sees them: one line that says what to do.

use std::fmt;
use std::io;
use std::process::ExitCode;

use fleuve_client::Error;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What went wrong and what to do, in one line.
    Message(String),
    /// Everything has been said already.
    Said,
    /// Nobody reads our output any more.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self::Message(message.to_string())
    }

    /// Prints the failure and returns the exit code.
    #[expect(clippy::print_stderr, reason = "this is where errors reach the user")]
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Message(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
            Self::Said => ExitCode::FAILURE,
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => f.write_str(message),
            Self::Said => f.write_str("see above"),
            Self::BrokenPipe => f.write_str("nobody reads the output"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Message(explain(&error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Message(error.to_string()),
        }
    }
}

/// What a broker said of a request in its own words, which scripts around Kafka's tools look for.
pub(crate) fn own_words(error: &Error) -> String {
    match error {
        Error::Broker { message: Some(message), .. } => message.clone(),
        error => explain(error),
    }
}

/// Says what went wrong, and what to do where that is known.
pub(crate) fn explain(error: &Error) -> String {
    use fleuve_protocol::ErrorCode as Code;
    let remedy = match error {
        Error::NoBroker { servers, refused: true, .. } => {
            return format!(
                "no broker at {servers}: start one with `fleuve serve`, or pass --bootstrap-server"
            );
        }
        Error::NoBroker { .. } => "check the address given with --bootstrap-server",
        Error::Broker { code, .. } => match code {
            Code::UnknownTopicOrPartition => "see `fleuve topic list`",
            Code::TopicAlreadyExists => {
                "choose another name, or pass --if-not-exists to accept the one that is there"
            }
            Code::InvalidReplicationFactor => {
                "a replica needs a broker of its own: see `fleuve cluster describe`"
            }
            Code::NonEmptyGroup => "stop its members first",
            Code::UnknownMemberId => "the group has members: stop them first",
            Code::GroupIdNotFound => "see `fleuve group list`",
            Code::OffsetOutOfRange => "see `fleuve topic offsets`",
            Code::TransactionalIdNotFound => "see `fleuve transaction list`",
            Code::BrokerIdNotRegistered => "see `fleuve cluster describe`",
            Code::SecurityDisabled => {
                "set authorizer.class.name of the broker, as docs/security.md says"
            }
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => {
                "ask an administrator for the right, which `fleuve acl add` gives"
            }
            Code::MessageTooLarge => {
                "send smaller records, or raise max.message.bytes of the topic"
            }
            _ => return error.to_string(),
        },
        Error::NoSuchPartition { .. } => "see `fleuve topic describe`",
        _ => return error.to_string(),
    };
    format!("{}: {remedy}", error.to_string().replace(". (", " ("))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_says_how_to_get_a_broker() {
        let error = Error::NoBroker {
            servers: "localhost:9092".to_owned(),
            reason: "connection refused".to_owned(),
            refused: true,
        };
        assert_eq!(
            explain(&error),
            "no broker at localhost:9092: start one with `fleuve serve`, or pass --bootstrap-server"
        );
    }

    #[test]
    fn every_explanation_fits_a_line() {
        for code in fleuve_protocol::ErrorCode::ALL {
            let error = Error::Broker { subject: "topic t".to_owned(), code: *code, message: None };
            assert!(!explain(&error).contains('\n'));
        }
    }
}
