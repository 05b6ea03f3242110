//! Passwords that come as they are over another protocol, checked against the users of SASL.

use fleuve_metadata::image::ScramMechanism;

use super::{Credentials, scram};

/// Reports whether this is the password of a user of PLAIN or SCRAM.
///
/// All that could match is computed each time, so that the time taken does not tell who exists. It
/// takes as long as stretching a password twice, and so is no work for a thread with other tasks.
pub fn is_password_of(user: &str, password: &str, credentials: &dyn Credentials) -> bool {
    if user.is_empty() || password.is_empty() {
        return false;
    }
    let message = format!("\0{user}\0{password}");
    let by_plain = credentials.plain().authenticate(message.as_bytes()).is_ok();
    let by_scram = [ScramMechanism::Sha256, ScramMechanism::Sha512]
        .map(|mechanism| scram::is_password_of(user, password, mechanism, credentials));
    by_plain | by_scram[0] | by_scram[1]
}
