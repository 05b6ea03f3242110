//! TLS and SASL, against a broker that `tests/client/run.py --secure` has set up.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleuve::client::admin::{Principal, ScramMechanism};
use fleuve::client::producer::Producer;
use fleuve::client::{
    Admin, Advice, Client, ClientConfig, Error, ErrorCode, ProducerConfig, Properties, Record,
};

use crate::target::{PATIENCE, Target, unique};

/// The place that the environment names, if the broker was set up for these tests.
fn place(name: &str) -> Option<String> {
    std::env::var(format!("FLEUVE_TEST_{name}")).ok()
}

async fn connect(protocol: &str, lines: &[&str]) -> Result<Client, Error> {
    let address = place(protocol).expect("a secure broker");
    connect_to(&address, protocol, lines).await
}

async fn connect_to(address: &str, protocol: &str, lines: &[&str]) -> Result<Client, Error> {
    let certificates = place("CERTIFICATES").expect("a secure broker");
    let text = format!(
        "bootstrap.servers={address}\nsecurity.protocol={protocol}\nssl.truststore.type=PEM\n\
         ssl.truststore.location={certificates}/ca.pem\n{}",
        lines.join("\n")
    );
    let properties = Properties::parse(&text.replace("{certificates}", &certificates))?;
    Client::connect(ClientConfig::from_properties(&properties)?).await
}

/// Writes a record, which needs a connection to the address in the metadata, too.
async fn write(client: Client, topic: &str) {
    let producer = Producer::new(client, ProducerConfig::default()).expect("valid");
    producer.send_and_wait(Record::new(topic).value("secret")).await.expect("written");
    producer.close().await.expect("closed");
}

const PLAIN: &str = "sasl.mechanism=PLAIN\nsasl.jaas.config=X required username=ada \
                     password=lovelace;";

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    if place("CERTIFICATES").is_none() {
        return;
    }
    let target = Target::in_process().await.expect("external");
    let topic = target.topic("tls", 1).await;
    let ours = "ssl.keystore.type=PEM\nssl.keystore.location={certificates}/client.pem";
    write(connect("SSL", &[ours]).await.expect("mutual TLS"), &topic).await;

    let error = connect("SSL", &[]).await.err().expect("a client certificate is required");
    assert!(matches!(error, Error::Authentication { .. } | Error::NoBroker { .. }), "{error}");

    // The certificate names localhost and not this address.
    let address = place("SASL_SSL").expect("set").replace("localhost", "127.0.0.1");
    let error = connect_to(&address, "SASL_SSL", &[PLAIN]).await.err().expect("a wrong name");
    assert_eq!(error.advice(), Advice::Fix, "{error}");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let unchecked = "ssl.endpoint.identification.algorithm=";
    connect_to(&address, "SASL_SSL", &[PLAIN, unchecked]).await.expect("the name is not checked");

    // Nobody we trust has signed it.
    let other = "ssl.truststore.location={certificates}/client.crt";
    let error = connect("SASL_SSL", &[PLAIN, other]).await.err().expect("an unknown issuer");
    assert_eq!(error.advice(), Advice::Fix, "{error}");
    // The broker's own certificate may be trusted instead of its issuer's.
    let itself = "ssl.truststore.location={certificates}/server.crt";
    connect("SASL_SSL", &[PLAIN, itself]).await.expect("trusted itself");
}

#[tokio::test]
async fn stores_of_java_hold_what_pem_does() {
    if place("CERTIFICATES").is_none() {
        return;
    }
    let target = Target::in_process().await.expect("external");
    let topic = target.topic("stores", 1).await;
    // One key is of openssl; the other was made by keytool, on an elliptic curve.
    for (kind, key, end) in
        [("PKCS12", "key", "p12"), ("JKS", "key", "jks"), ("PKCS12", "curve", "p12")]
    {
        let place = |what: &str, name: &str| {
            format!(
                "ssl.{what}store.type={kind}\nssl.{what}store.password=changeit\n\
                 ssl.{what}store.location={{certificates}}/{name}.{end}"
            )
        };
        let store = |what: &str| place(what, if what == "key" { key } else { what });
        let client = connect("SSL", &[&store("key"), &store("trust")]).await;
        write(client.unwrap_or_else(|error| panic!("{kind}: {error}")), &topic).await;
        let wrong = format!("{}\nssl.keystore.password=wrong", store("key"));
        let error = connect("SSL", &[&wrong]).await.err().expect("a wrong password");
        assert_eq!(error.advice(), Advice::Fix, "{error}");
    }
}

#[tokio::test]
async fn every_mechanism_lets_the_right_ones_in_and_says_why_not() {
    if place("CERTIFICATES").is_none() {
        return;
    }
    let target = Target::in_process().await.expect("external");
    let topic = target.topic("sasl", 1).await;
    let user = unique("user");
    let admin = Admin::new(target.client().await);
    for mechanism in ScramMechanism::ALL {
        let set = admin.set_scram_password(&user, mechanism, 4096, b"some salt", "pencil");
        set.await.expect("altered");
    }
    let jaas = |user: &str, password: &str| {
        format!("sasl.jaas.config=X required username=\"{user}\" password=\"{password}\";")
    };
    for protocol in ["SASL_PLAINTEXT", "SASL_SSL"] {
        write(connect(protocol, &[PLAIN]).await.expect("PLAIN"), &topic).await;
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let mechanism = format!("sasl.mechanism={mechanism}");
            let right = jaas(&user, "pencil");
            write(connect(protocol, &[&mechanism, &right]).await.expect("SCRAM"), &topic).await;
            for wrong in [jaas(&user, "eraser"), jaas("nobody", "pencil")] {
                let error = connect(protocol, &[&mechanism, &wrong]).await.err().expect("wrong");
                assert_eq!(error.advice(), Advice::Fix, "{error}");
                assert!(error.to_string().contains("uthentication"), "{error}");
            }
        }
        let token = "sasl.mechanism=OAUTHBEARER\nsasl.jaas.config=X required \
                     unsecuredLoginStringClaim_sub=\"ada\";";
        match (place("UNSECURED_TOKENS"), connect(protocol, &[token]).await) {
            (Some(_), client) => write(client.expect("OAUTHBEARER"), &topic).await,
            // Fleuve takes no token that nobody has signed.
            (None, client) => assert!(client.is_err(), "an unsigned token"),
        }
        let broken = "sasl.mechanism=OAUTHBEARER\n\
                      sasl.oauthbearer.token.endpoint.url=file://{certificates}/ca.pem";
        let error = connect(protocol, &[broken]).await.err().expect("not a token");
        assert_eq!(error.advice(), Advice::Fix, "{error}");
    }
    let error = connect("SASL_SSL", &["sasl.mechanism=PLAIN", &jaas("ada", "wrong")]).await;
    let error = error.err().expect("a wrong password");
    assert!(error.to_string().contains("Invalid username or password"), "{error}");
}

#[tokio::test]
async fn delegation_tokens_are_made_renewed_used_and_ended() {
    if place("CERTIFICATES").is_none() {
        return;
    }
    let target = Target::in_process().await.expect("external");
    let topic = target.topic("tokens", 1).await;
    let admin = Admin::new(connect("SASL_SSL", &[PLAIN]).await.expect("PLAIN"));
    let (ada, bob) = (Principal::user("ada"), Principal::user("bob"));
    let renewers = std::slice::from_ref(&bob);
    let token = admin.create_delegation_token(None, renewers, 3_600_000).await.expect("made");
    assert_eq!((&token.owner, &token.renewers[..]), (&ada, renewers));
    assert!(token.issued_ms < token.expires_ms && token.expires_ms <= token.ends_ms);

    // The controller makes it, and brokers hear of it a little later.
    let begun = tokio::time::Instant::now();
    let described = loop {
        let owners = std::slice::from_ref(&ada);
        let tokens = admin.describe_delegation_tokens(Some(owners)).await.expect("described");
        if let Some(found) = tokens.into_iter().find(|found| found.id == token.id) {
            break found;
        }
        assert!(begun.elapsed() < PATIENCE, "the token never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&described.hmac, &described.renewers), (&token.hmac, &token.renewers));
    // Whoever may renew a token counts like its owner.
    for (principal, expected) in [(bob.clone(), true), (Principal::user("carol"), false)] {
        let tokens = admin.describe_delegation_tokens(Some(&[principal])).await.expect("described");
        assert_eq!(tokens.iter().any(|other| other.id == token.id), expected);
    }

    let renewed = admin.renew_delegation_token(&token.hmac, 600_000).await.expect("renewed");
    assert!((token.issued_ms..=token.ends_ms).contains(&renewed), "{renewed}");

    let password = STANDARD.encode(&token.hmac);
    let shown = format!(
        "sasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=X required username=\"{}\" \
         password=\"{password}\" tokenauth=\"true\";",
        token.id
    );
    let bearer = connect("SASL_SSL", &[&shown]).await.expect("whoever has it");
    write(bearer.clone(), &topic).await;
    let refused = Admin::new(bearer).create_delegation_token(None, &[], -1).await;
    let refused = refused.expect_err("a token makes no tokens");
    assert_eq!(refused.code(), Some(ErrorCode::DelegationTokenRequestNotAllowed), "{refused}");

    admin.expire_delegation_token(&token.hmac, -1).await.expect("ended");
    let begun = tokio::time::Instant::now();
    while connect("SASL_SSL", &[&shown]).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the token never ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = admin.renew_delegation_token(&token.hmac, -1).await.expect_err("it is over");
    assert!(
        matches!(
            refused.code(),
            Some(ErrorCode::DelegationTokenNotFound | ErrorCode::DelegationTokenExpired)
        ),
        "{refused}"
    );
}

/// The broker ends sessions after 1.5 s; a connection that did not authenticate again would break.
#[tokio::test]
async fn sessions_are_renewed_while_requests_go_on() {
    if place("CERTIFICATES").is_none() {
        return;
    }
    let client = connect("SASL_PLAINTEXT", &[PLAIN]).await.expect("PLAIN");
    let connection = client.any_connection().await.expect("open");
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let request =
            fleuve_protocol::messages::api_versions_request::ApiVersionsRequest::default();
        connection.submit(&request, 0).expect("open").wait().await.expect("still ours");
    }
    assert!(!connection.is_closed());
}
