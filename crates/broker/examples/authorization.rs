//! Runs the table of `tests/authorization` against any broker and prints what was answered, so that
//! `tests/foreign/authorization.py` can compare Fleuve with Apache Kafka.
//!
//! The broker needs a SASL_PLAINTEXT listener with the users `admin`, who is a super user, and
//! `ada`, whose passwords are their names.

#![expect(clippy::print_stdout, reason = "a tool for the command line")]

#[path = "../tests/authorization/matrix.rs"]
#[expect(dead_code, reason = "the test has more use for it")]
mod matrix;
#[path = "../tests/authorization/rows.rs"]
#[expect(dead_code, reason = "the test has more use for it")]
mod rows;
#[path = "../tests/authorization/wire.rs"]
mod wire;

use fleuve_protocol::ErrorCode;

#[tokio::main]
async fn main() {
    let Some(address) = std::env::args().nth(1) else {
        println!("usage: authorization HOST:PORT");
        return;
    };
    matrix::run(&address, |outcome| {
        for (what, answer) in [("", &outcome.answer), (", of nothing", &outcome.of_nothing)] {
            let Some(answer) = answer else { continue };
            let name =
                |code: &i16| ErrorCode::from_code(*code).map_or("?", |code| code.name()).to_owned();
            let names: Vec<String> = answer.codes.iter().map(name).collect();
            println!("{}{what}\t{}\t{}", outcome.title, names.join(","), answer.text);
        }
    })
    .await;
}
