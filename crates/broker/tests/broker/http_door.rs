//! Who gets in at the HTTP door, and what they see there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleuve_metadata::config::{Override, Sources, load};
use fleuve_protocol::Str;
use fleuve_protocol::messages::alter_user_scram_credentials_request::{
    AlterUserScramCredentialsRequest, ScramCredentialUpsertion,
};
use fleuve_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};

use super::support::{TestBroker, TestClient};

const DESCRIBE: i8 = 8;
const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;

/// A broker with users: ada and bob of PLAIN, grace of SCRAM with the password of RFC 7677.
async fn start(more: &[(&str, &str)]) -> (TestBroker, TestClient) {
    let users = "x required user_ada=\"lovelace\" user_bob=\"bob\";";
    let keys = [
        ("listeners", "PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0"),
        ("fleuve.metrics.listen", "127.0.0.1:0"),
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256"),
        ("listener.name.sasl_plaintext.plain.sasl.jaas.config", users),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:ANONYMOUS"),
        ("connection.failed.authentication.delay.ms", "1"),
    ];
    let keys: Vec<_> = keys.into_iter().chain(more.iter().copied()).collect();
    let broker = TestBroker::start(&keys).await;
    let mut admin = broker.connect().await;
    let grace = ScramCredentialUpsertion {
        name: Str::from("grace"),
        mechanism: 1,
        iterations: 4096,
        salt: Bytes::from(STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("valid")),
        salted_password: Bytes::from_static(
            b"\xc4\xa4\x95\x10\x32\x3a\xb4\xf9\x52\xca\xc1\xfa\x99\x44\x19\x39\xe7\x8e\xa7\x4d\
              \x6b\xe8\x1d\xdf\x70\x96\xe8\x75\x13\xdc\x61\x5d",
        ),
    };
    let request =
        AlterUserScramCredentialsRequest { upsertions: vec![grace], ..Default::default() };
    assert_eq!(admin.call(&request, 0).await.results[0].error_code, 0);
    (broker, admin)
}

async fn allow(admin: &mut TestClient, user: &'static str, kind: i8, name: &'static str) {
    let creation = AclCreation {
        resource_type: kind,
        resource_name: Str::from(name),
        resource_pattern_type: 3,
        principal: Str::from(format!("User:{user}")),
        host: Str::from("*"),
        operation: DESCRIBE,
        permission_type: 3,
    };
    let request = CreateAclsRequest { creations: vec![creation] };
    assert_eq!(admin.call(&request, 3).await.results[0].error_code, 0);
}

fn basic(user: &str, password: &str) -> String {
    let text = STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {text}\r\n")
}

fn status(page: &str) -> &str {
    page.split(' ').nth(1).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_authorizer_pages_are_for_users_with_rights() {
    let (broker, mut admin) = start(&[]).await;
    admin.create_topic("orders", 1).await;
    admin.create_topic("secrets", 1).await;
    let (ada, bob) = (basic("ada", "lovelace"), basic("bob", "bob"));
    let grace = basic("grace", "pencil");
    // Metrics and health are for everybody.
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(status(&broker.get(path).await), "200", "{path}");
    }
    // Everything else is not, whether it exists or not.
    for path in ["/v3/kafka", "/groups/g/rebalances", "/v3/kafka/x/topic", "/nothing"] {
        let page = broker.get(path).await;
        assert_eq!(status(&page), "401", "{path}: {page}");
        assert!(page.to_lowercase().contains("www-authenticate: basic"), "{page}");
        for wrong in [
            basic("ada", "wrong"),
            basic("nobody", "lovelace"),
            basic("grace", "wrong"),
            basic("", ""),
            basic("ada\0ada", "lovelace"),
            "Authorization: Bearer x.y.z\r\n".to_owned(),
            "Authorization: Basic !\r\n".to_owned(),
        ] {
            let page = broker.get_with(path, &wrong).await;
            assert_eq!(status(&page), "401", "{path} with {wrong}: {page}");
        }
    }
    // Known users of either mechanism get in, and see what they may describe.
    let cluster = broker.broker.cluster_id().to_string();
    let topics = format!("/v3/kafka/{cluster}/topic");
    for user in [&ada, &bob, &grace] {
        let page = broker.get_with(&topics, user).await;
        assert_eq!(status(&page), "200", "{page}");
        assert!(!page.contains("orders") && !page.contains("secrets"), "{page}");
    }
    allow(&mut admin, "grace", TOPIC, "orders").await;
    let page = broker.get_with(&topics, &grace).await;
    assert!(page.contains("orders") && !page.contains("secrets"), "{page}");
    assert_eq!(status(&broker.get_with(&format!("{topics}/orders"), &grace).await), "200");
    // What may not be described looks as if it were not there.
    let hidden = broker.get_with(&format!("{topics}/secrets"), &grace).await;
    let missing = broker.get_with(&format!("{topics}/missing"), &grace).await;
    assert_eq!((status(&hidden), status(&missing)), ("404", "404"));
    let history = "/groups/readers/rebalances";
    assert_eq!(status(&broker.get_with(history, &ada).await), "403");
    allow(&mut admin, "ada", GROUP, "readers").await;
    let page = broker.get_with(history, &ada).await;
    assert_eq!(status(&page), "404", "it may hear that there is no such group: {page}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_be_for_users_too() {
    let (broker, mut admin) = start(&[("fleuve.http.authentication", "all")]).await;
    let ada = basic("ada", "lovelace");
    assert_eq!(status(&broker.get("/metrics").await), "401");
    assert_eq!(status(&broker.get("/healthz").await), "200");
    assert_eq!(status(&broker.get_with("/metrics", &ada).await), "403");
    allow(&mut admin, "ada", CLUSTER, "kafka-cluster").await;
    let page = broker.get_with("/metrics", &ada).await;
    assert_eq!(status(&page), "200");
    assert!(page.contains("kafka_server_kafkaserver_brokerstate 3"), "{page}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authorizer_the_door_is_open_unless_it_is_told_otherwise() {
    for (keys, expected) in [
        (&[("authorizer.class.name", "")][..], "200"),
        (&[("authorizer.class.name", ""), ("fleuve.http.authentication", "pages")], "401"),
        (&[("fleuve.http.authentication", "none")], "200"),
    ] {
        let (broker, _admin) = start(keys).await;
        let page = broker.get("/v3/kafka").await;
        assert_eq!(status(&page), expected, "{keys:?}: {page}");
        let page = broker.get_with("/v3/kafka", &basic("ada", "lovelace")).await;
        assert_eq!(status(&page), "200", "{keys:?}: {page}");
        broker.stop().await;
    }
}

#[test]
fn a_door_that_other_machines_reach_has_to_ask_who_they_are() {
    let refused = |keys: &[(&str, &str)]| {
        let overrides: Vec<Override> = keys
            .iter()
            .map(|(key, value)| Override {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
                flag: "--set".to_owned(),
            })
            .collect();
        let loaded = load(Sources { overrides: &overrides, ..Sources::default() });
        loaded.err().map(|error| error.to_string())
    };
    let anywhere = ("fleuve.metrics.listen", "0.0.0.0:9644");
    let all = ("fleuve.http.authentication", "all");
    let told = refused(&[anywhere]).expect("refused");
    assert!(told.contains("fleuve.allow.unauthenticated.network=true"), "{told}");
    let told = refused(&[anywhere, ("fleuve.http.authentication", "pages")]).expect("refused");
    assert!(told.contains("fleuve.http.authentication=all"), "{told}");
    let told = refused(&[anywhere, all]).expect("refused");
    assert!(told.contains("fleuve.allow.plain.without.tls=true"), "{told}");
    assert_eq!(refused(&[anywhere, ("fleuve.allow.unauthenticated.network", "true")]), None);
    assert_eq!(refused(&[anywhere, all, ("fleuve.allow.plain.without.tls", "true")]), None);
    for local in ["127.0.0.1:9644", "localhost:1", "[::1]:9644", ""] {
        assert_eq!(refused(&[("fleuve.metrics.listen", local)]), None, "{local}");
    }
}
