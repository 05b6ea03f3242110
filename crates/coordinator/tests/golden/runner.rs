//! Runs golden scripts, each named after the behaviour it shows.
//!
//! A script is a series of blocks: commands, a line `----`, and what they print. With
//! `UPDATE_GOLDEN=1` in the environment the outputs are written anew, to be read as a diff.

use std::fs;
use std::path::{Path, PathBuf};

/// Something that carries out commands and says what they print.
pub(crate) trait Interpreter {
    /// Begins a script.
    fn begin() -> Self;

    /// Runs one command and returns what it prints.
    fn run(&mut self, command: &str) -> Vec<String>;
}

const SEPARATOR: &str = "----";

/// Runs all scripts of a folder of this crate, which are more than `least`.
pub(crate) fn check<I: Interpreter>(folder: &str, least: usize) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    let paths = scripts(folder);
    assert!(paths.len() > least, "the scripts are where they are looked for");
    for path in paths {
        let text = fs::read_to_string(&path).expect("a script can be read");
        let actual = run::<I>(&text);
        if actual == text {
            continue;
        }
        if update {
            fs::write(&path, actual).expect("a script can be written");
        } else {
            differing.push(difference(&path, &text, &actual));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn scripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("the scripts have a folder");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    paths
}

/// Runs a script and returns it with the outputs that it had this time.
fn run<I: Interpreter>(text: &str) -> String {
    let mut script = I::begin();
    let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    let blocks = blocks.map(|block| {
        let commands: Vec<&str> = block.lines().take_while(|line| *line != SEPARATOR).collect();
        if commands.iter().all(|line| line.starts_with('#')) {
            return format!("{}\n", commands.join("\n"));
        }
        let mut output = String::new();
        for command in commands.iter().filter(|line| !line.starts_with('#')) {
            for line in script.run(command) {
                output.push_str(&line);
                output.push('\n');
            }
        }
        format!("{}\n{SEPARATOR}\n{output}", commands.join("\n"))
    });
    blocks.collect::<Vec<_>>().join("\n")
}

fn difference(path: &Path, expected: &str, actual: &str) -> String {
    let mut lines = vec![format!("{} differs:", path.display())];
    let pairs = expected.lines().zip(actual.lines()).enumerate();
    if let Some((number, (expected, actual))) = pairs.into_iter().find(|(_, (a, b))| a != b) {
        lines.push(format!("  line {}", number + 1));
        lines.push(format!("  - {expected}"));
        lines.push(format!("  + {actual}"));
    }
    lines.push(format!("whole output:\n{actual}"));
    lines.join("\n")
}
