//! Every demo against a broker in this process, as `fleuve demo` runs it where nobody watches.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::Command;
use fleuve::Embedded;
use fleuve_demos::{DEMOS, DemoError, Screen, Stage};
use tokio::sync::watch;

/// What a demo has written.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("one writer").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a demo to its end and returns the last line that it wrote.
async fn run(broker: &Embedded, name: &str, arguments: &[&str]) -> Result<String, DemoError> {
    let entry = DEMOS.iter().find(|entry| entry.name == name).expect("a demo of that name");
    let command = entry.with_arguments(Command::new("demo"));
    let matches =
        command.try_get_matches_from([&["demo"], arguments].concat()).expect("known options");
    let output = Output::default();
    let (_going, stop) = watch::channel(false);
    let stage = Stage::new(broker.client(), Screen::lines(output.clone()), stop);
    entry.run(&matches, stage).await?;
    let written = output.0.lock().expect("one writer").clone();
    let text = String::from_utf8(written).expect("text");
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn word_count_counts_every_word_and_goes_on_where_it_was() {
    let broker = Embedded::start().await.expect("a broker");
    let last = run(&broker, "word-count", &["--times", "3"]).await.expect("a clean end");
    assert!(
        last.starts_with("word-count: 4,") && last.contains(" in 207 lines, "),
        "unexpected: {last}"
    );
    assert!(last.ends_with("every count equals a plain one"), "unexpected: {last}");

    let last = run(&broker, "word-count", &["--times", "1"]).await.expect("a clean end");
    assert!(
        last.contains(" in 276 lines, ") && last.ends_with("every count equals a plain one"),
        "unexpected: {last}"
    );
    let error = run(&broker, "word-count", &["no-such.txt"]).await.expect_err("no such file");
    assert!(error.to_string().starts_with("cannot read no-such.txt"), "unexpected: {error}");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_views_join_and_count_as_plainly() {
    let broker = Embedded::start().await.expect("a broker");
    let last = run(&broker, "page-views", &["--views", "2000"]).await.expect("a clean end");
    assert!(last.starts_with("page-views: 2,000 views of 9 users, 2,000 counted"), "{last}");
    assert!(last.ends_with("every count equals a plain join"), "unexpected: {last}");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn music_counts_every_post_and_makes_rounds_of_them() {
    let broker = Embedded::start().await.expect("a broker");
    let last = run(&broker, "music", &[]).await.expect("a clean end");
    assert!(last.starts_with("music: ") && last.contains(" posts by 10 users in "), "{last}");
    assert!(!last.contains("music: 0;"), "unexpected: {last}");
    assert!(last.ends_with("every post is counted"), "unexpected: {last}");
    broker.shutdown().await;
}

#[test]
fn every_demo_has_a_readme_and_a_valid_topology() {
    for entry in DEMOS {
        let readme = format!("{}/{}/README.md", env!("CARGO_MANIFEST_DIR"), entry.name);
        assert!(std::path::Path::new(&readme).is_file(), "{readme} is missing");
        let described = entry.topology().describe().expect("a valid topology");
        assert!(described.starts_with("Topologies:"), "{described}");
    }
}
