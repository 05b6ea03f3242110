//! The golden scripts of the transaction coordinator, in `testscripts/`.

#[path = "../golden/runner.rs"]
mod runner;

use crate::script::Script;

impl runner::Interpreter for Script {
    fn begin() -> Self {
        Self::new()
    }

    fn run(&mut self, command: &str) -> Vec<String> {
        Self::run(self, command)
    }
}

#[test]
fn scripts_print_what_they_say() {
    runner::check::<Script>("tests/transactions/testscripts", 20);
}
