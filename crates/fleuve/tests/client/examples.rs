//! The examples of `fleuve-client` do what they say.

use crate::target::{Target, for_each_target, unique};

#[path = "../../../client/examples/administration.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod administration;
#[path = "../../../client/examples/consuming.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod consuming;
#[path = "../../../client/examples/observing.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod observing;
#[path = "../../../client/examples/producing.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod producing;
#[path = "../../../client/examples/share.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod share;
#[path = "../../../client/examples/transactions.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod transactions;

for_each_target! {
    the_example_of_administration_runs
    the_examples_of_producing_and_consuming_run
    the_example_of_observing_runs
    the_example_of_share_groups_runs
    the_example_of_transactions_runs
}

async fn the_example_of_administration_runs(target: &Target) {
    let client = target.client().await;
    let retention = administration::run(client, &unique("ledger")).await.expect("it runs");
    assert_eq!(retention, "86400000");
}

async fn the_examples_of_producing_and_consuming_run(target: &Target) {
    let topic = target.topic("greetings", 1).await;
    assert_eq!(producing::run(target.client().await, &topic).await.expect("it runs"), 3);
    let values = consuming::run(target.client().await, &topic, 4).await.expect("it runs");
    assert_eq!(values, ["bonjour", "hola", "[1,2,3]", "ciao"]);
}

async fn the_example_of_observing_runs(target: &Target) {
    let topic = target.topic("observed", 1).await;
    assert_eq!(observing::run(target.client().await, &topic).await.expect("it runs"), 1.0);
}

async fn the_example_of_share_groups_runs(target: &Target) {
    if !target.offers(fleuve_protocol::ApiKey::ShareFetch).await {
        return;
    }
    let topic = target.topic("jobs", 1).await;
    let done = share::run(target.client().await, &topic).await.expect("it runs");
    assert_eq!(done, 3);
}

async fn the_example_of_transactions_runs(target: &Target) {
    let sum = transactions::run(target.client().await).await.expect("it runs");
    assert_eq!(sum, 385);
}
