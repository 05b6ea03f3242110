//! Passwords that somebody types, or that stdin brings.

use std::io::{self, BufRead, IsTerminal, Read, Stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::failure::Failure;
use crate::output::{ask, note};

/// Longer than anything somebody types or generates.
const LENGTH_MAX: u64 = 4096;

/// Reads a new password: typed twice without being shown where stdin is a terminal, and otherwise
/// all that stdin brings.
pub(crate) fn read_new(whose: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let password = read_hidden(&stdin, &format!("New password of {whose}: "))?;
        if password != read_hidden(&stdin, "Once more: ")? {
            return Err(Failure::new("the two passwords differ: nothing is changed"));
        }
        password
    } else {
        let mut text = String::new();
        stdin.lock().take(LENGTH_MAX).read_to_string(&mut text)?;
        text
    };
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::new("the password is empty: type one, or write it to stdin"));
    }
    Ok(password.to_owned())
}

/// Reads a line that the terminal does not show.
fn read_hidden(stdin: &Stdin, prompt: &str) -> Result<String, Failure> {
    ask(prompt);
    let mut line = String::new();
    {
        let _hidden = Hidden::new(stdin)?;
        stdin.lock().take(LENGTH_MAX).read_line(&mut line)?;
    }
    // The end of the line was not shown either.
    note("");
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden<'a> {
    stdin: &'a Stdin,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(stdin: &'a Stdin) -> Result<Self, Failure> {
        let before = tcgetattr(stdin).map_err(io::Error::from)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        // What was typed before the question is not meant for it.
        tcsetattr(stdin, OptionalActions::Flush, &modes).map_err(io::Error::from)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = tcsetattr(self.stdin, OptionalActions::Now, &self.before);
    }
}
