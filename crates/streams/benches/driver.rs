//! How long a test of ten operators takes: `cargo bench -p fleuve-streams --bench driver`.
//!
//! Prints microseconds; nothing is asserted but the output.

#![expect(clippy::print_stdout, reason = "the times are the result")]

use std::time::Instant;

use fleuve_streams::{TestDriver, Topology};

/// Ten operators, a repartition and two stores.
fn topology() -> Topology {
    let app = Topology::new("ten");
    let users = app.table::<String, String>("users");
    app.stream::<String, String>("clicks")
        .filter(|_, page| !page.is_empty())
        .map_values(|page| page.to_lowercase())
        .flat_map_values(|pages: String| pages.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .join(&users, |page, user| format!("{user}/{page}"))
        .peek(|_, _| {})
        .select_key(|_, seen| seen.clone())
        .filter_not(|seen, _| seen.is_empty())
        .group_by_key()
        .count("seen")
        .filter(|_, count| *count > 0)
        .to_stream()
        .to("counts");
    app
}

fn run(app: &Topology) {
    let mut driver = TestDriver::new(app).expect("a valid topology");
    driver.input("users").at(0).send("ann", "Ann");
    driver.input("clicks").at(1).send("ann", "HOME basket");
    driver.output::<String, i64>("counts").expect([("Ann/home", 1, 1), ("Ann/basket", 1, 1)]);
}

fn main() {
    let app = topology();
    run(&app);
    let runs = 1_000;
    let begun = Instant::now();
    for _ in 0..runs {
        run(&app);
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(runs);
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("users").at(0).send("ann", "Ann");
    let records = 10_000;
    let begun = Instant::now();
    for at in 0..records {
        driver.input("clicks").at(at).send("ann", "home basket");
    }
    let record = begun.elapsed().as_secs_f64() * 1e6 / records as f64;
    println!("a driver test of ten operators: {each:.1} µs a run, {record:.2} µs a further record");
}
