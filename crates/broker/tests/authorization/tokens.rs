//! Delegation tokens, who may see and make them, and sessions that end.

use bytes::Bytes;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use fleuve_protocol::messages::create_delegation_token_request::{
    CreatableRenewers, CreateDelegationTokenRequest,
};
use fleuve_protocol::messages::describe_delegation_token_request::DescribeDelegationTokenRequest;
use fleuve_protocol::messages::expire_delegation_token_request::ExpireDelegationTokenRequest;
use fleuve_protocol::messages::list_groups_request::ListGroupsRequest;
use fleuve_protocol::messages::renew_delegation_token_request::RenewDelegationTokenRequest;
use fleuve_protocol::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use fleuve_protocol::messages::sasl_handshake_request::SaslHandshakeRequest;
use fleuve_protocol::{ErrorCode, Str};

use crate::start;
use crate::wire::{Answer, Connection, ask};

fn creation(owner: Option<&str>) -> CreateDelegationTokenRequest {
    CreateDelegationTokenRequest {
        owner_principal_type: owner.map(|_| Str::from("User")),
        owner_principal_name: owner.map(Str::copy_from),
        renewers: vec![CreatableRenewers {
            principal_type: Str::from("User"),
            principal_name: Str::from("bob"),
        }],
        max_lifetime_ms: -1,
    }
}

/// What stands behind a field in an answer.
fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let text = answer.text.split(&format!("{name}: ")).nth(1).expect("the field");
    text.split([',', ' ']).next().expect("a value").trim_matches('"')
}

async fn allow(admin: &mut Connection, operation: AclOperation, kind: AclResourceType, name: &str) {
    let creation = AclCreation {
        resource_type: kind.wire_id(),
        resource_name: Str::copy_from(name),
        resource_pattern_type: 3,
        principal: Str::from("User:bob"),
        host: Str::from("*"),
        operation: operation.wire_id(),
        permission_type: 3,
    };
    let request = CreateAclsRequest { creations: vec![creation] };
    let answer = admin.call(&ask(request, 3)).await.expect("an answer");
    assert!(answer.codes.is_empty(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_for_their_owners_and_those_who_may() {
    let (_directory, broker) = start(&[]).await;
    let address = broker.listeners()[0].address.to_string();
    let admin = &mut Connection::open(&address, "admin").await;
    let ada = &mut Connection::open(&address, "ada").await;
    let bob = &mut Connection::open(&address, "bob").await;
    let describe = || ask(DescribeDelegationTokenRequest { owners: None }, 3);

    let created = ada.call(&ask(creation(None), 3)).await.expect("an answer");
    assert!(created.codes.is_empty(), "{created:?}");
    let id = field(&created, "token_id").to_owned();
    let own = ada.call(&describe()).await.expect("an answer");
    assert!(own.text.contains(&id), "{own:?}");
    let renewers = bob.call(&describe()).await.expect("an answer");
    assert!(renewers.text.contains(&id), "who may renew it may see it: {renewers:?}");

    // Tokens of others: to make them and to see them are rights of their own.
    let mine = CreateDelegationTokenRequest { renewers: Vec::new(), ..creation(None) };
    let second = ada.call(&ask(mine, 3)).await.expect("an answer");
    let second = field(&second, "token_id").to_owned();
    let seen = bob.call(&describe()).await.expect("an answer");
    assert!(!seen.text.contains(&second), "{seen:?}");
    let refused = bob.call(&ask(creation(Some("ada")), 3)).await.expect("an answer");
    assert_eq!(refused.codes, [ErrorCode::DelegationTokenAuthorizationFailed.code()]);
    let (user, user_kind) = ("User:ada", AclResourceType::User);
    allow(admin, AclOperation::CreateTokens, user_kind, user).await;
    let theirs = CreateDelegationTokenRequest { renewers: Vec::new(), ..creation(Some("ada")) };
    let made = bob.call(&ask(theirs, 3)).await.expect("an answer");
    assert!(made.codes.is_empty(), "{made:?}");
    let made = field(&made, "token_id").to_owned();
    let seen = bob.call(&describe()).await.expect("an answer");
    assert!(seen.text.contains(&made), "who asked for it may see it: {seen:?}");
    assert!(!seen.text.contains(&second), "{seen:?}");
    allow(admin, AclOperation::DescribeTokens, user_kind, user).await;
    let seen = bob.call(&describe()).await.expect("an answer");
    assert!(seen.text.contains(&second), "{seen:?}");

    // Only owners and renewers change a token's end, and only with its password.
    for hmac in [Bytes::new(), Bytes::from_static(b"no password")] {
        let renew = RenewDelegationTokenRequest { hmac: hmac.clone(), renew_period_ms: -1 };
        let answer = ada.call(&ask(renew, 2)).await.expect("an answer");
        assert_eq!(answer.codes, [ErrorCode::DelegationTokenNotFound.code()]);
        let expire = ExpireDelegationTokenRequest { hmac, expiry_time_period_ms: -1 };
        let answer = ada.call(&ask(expire, 2)).await.expect("an answer");
        assert_eq!(answer.codes, [ErrorCode::DelegationTokenNotFound.code()]);
    }
    broker.shutdown().await;
}

/// Goes through an exchange of PLAIN; the answer to its last message.
async fn authenticate(connection: &mut Connection, user: &str) -> (Answer, Option<Answer>) {
    let handshake = SaslHandshakeRequest { mechanism: Str::from("PLAIN") };
    let begun = connection.call(&ask(handshake, 1)).await.expect("an answer");
    let auth_bytes = Bytes::from(format!("\0{user}\0{user}"));
    (begun, connection.call(&ask(SaslAuthenticateRequest { auth_bytes }, 2)).await)
}

fn work() -> crate::wire::Ask {
    ask(ListGroupsRequest::default(), 4)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_be_prolonged_by_whom_it_belongs_to() {
    let (_directory, broker) = start(&[("connections.max.reauth.ms", "60000")]).await;
    let address = broker.listeners()[0].address.to_string();
    let ada = &mut Connection::open(&address, "ada").await;
    let (_, again) = authenticate(ada, "ada").await;
    let again = again.expect("an answer");
    assert!(again.codes.is_empty(), "{again:?}");
    assert_eq!(field(&again, "session_lifetime_ms"), "60000");
    assert!(ada.call(&work()).await.is_some());
    // Not twice in a row, which would be a way to keep the broker busy.
    let (refused, _) = authenticate(ada, "ada").await;
    assert_eq!(refused.codes, [ErrorCode::IllegalSaslState.code()]);

    // Somebody else cannot take the session over.
    let other = &mut Connection::open(&address, "ada").await;
    let (_, refused) = authenticate(other, "bob").await;
    assert_eq!(refused.expect("an answer").codes, [ErrorCode::SaslAuthenticationFailed.code()]);
    assert!(other.call(&work()).await.is_none(), "the connection is over");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_ends_the_connection() {
    let (_directory, broker) = start(&[("connections.max.reauth.ms", "300")]).await;
    let address = broker.listeners()[0].address.to_string();
    let ada = &mut Connection::open(&address, "ada").await;
    // It is served for a while, and then no longer.
    while ada.call(&work()).await.is_some() {
        tokio::task::yield_now().await;
    }
    broker.shutdown().await;
}

/// What is written for a mechanism of a listener wins over the listener's, and that over all.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_last_as_long_as_their_listener_says() {
    const ALL: (&str, &str) = ("connections.max.reauth.ms", "60000");
    const LISTENER: (&str, &str) =
        ("listener.name.sasl_plaintext.connections.max.reauth.ms", "50000");
    const MECHANISM: (&str, &str) =
        ("listener.name.sasl_plaintext.plain.connections.max.reauth.ms", "40000");
    const OTHER: (&str, &str) =
        ("listener.name.sasl_plaintext.scram-sha-256.connections.max.reauth.ms", "30000");
    const OFF: (&str, &str) = ("listener.name.sasl_plaintext.connections.max.reauth.ms", "0");
    for (keys, expected) in [
        (&[ALL, OTHER][..], "60000"),
        (&[ALL, LISTENER], "50000"),
        (&[ALL, LISTENER, MECHANISM], "40000"),
        (&[ALL, OFF], "0"),
    ] {
        let (_directory, broker) = start(keys).await;
        let address = broker.listeners()[0].address.to_string();
        let mut connection = Connection::unknown(&address).await;
        let (_, known) = authenticate(&mut connection, "ada").await;
        let known = known.expect("an answer");
        assert_eq!(field(&known, "session_lifetime_ms"), expected, "{keys:?}");
        broker.shutdown().await;
    }
}
