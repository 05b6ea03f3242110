//! Tests of decisions: rules one by one, then all of them against a judge who reads every entry.

use fleuve_metadata::image::AclPatternType;
use fleuve_protocol::Str;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const TOPIC: AclResourceType = AclResourceType::Topic;

fn acl(
    permission: AclPermission,
    principal: &str,
    operation: AclOperation,
    pattern_type: AclPatternType,
    name: &str,
) -> Acl {
    Acl {
        resource_type: TOPIC,
        resource_name: Str::copy_from(name),
        pattern_type,
        principal: Str::copy_from(principal),
        host: Str::from("*"),
        operation,
        permission,
    }
}

fn may(acls: &[Acl], principal: &str, operation: AclOperation, topic: &str) -> bool {
    let authorizer = Authorizer::new("User:root;User:CN=a,O=b", false).expect("valid");
    let action = Action { resource_type: TOPIC, resource_name: topic, operation };
    let principal = Principal::parse(principal).expect("valid");
    let host = IpAddr::from([10, 0, 0, 1]);
    authorizer.judge(&Index::new(acls), &principal, host, action).is_allowed()
}

use AclOperation::{All, Alter, AlterConfigs, Describe, DescribeConfigs, Read, Write};
use AclPatternType::{Literal, Prefixed};
use AclPermission::{Allow, Deny};

#[test]
fn nobody_may_do_what_no_entry_allows() {
    assert!(!may(&[], "User:ada", Read, "t"));
    assert!(may(&[], "User:root", Read, "t"));
    assert!(may(&[], "User:CN=a,O=b", Read, "t"));
    assert!(!may(&[], "Role:root", Read, "t"));
    assert_eq!(Authorizer::new("User:a;b", false).err().as_deref(), Some("b"));
}

#[test]
fn without_entries_about_a_resource_everybody_may_if_the_operator_says_so() {
    let authorizer = Authorizer::new("", true).expect("valid");
    let index = Index::new(&[acl(Allow, "User:bob", Read, Prefixed, "a")]);
    let judge = |topic| {
        let action = Action { resource_type: TOPIC, resource_name: topic, operation: Read };
        authorizer.judge(&index, &Principal::user("ada"), IpAddr::from([1, 1, 1, 1]), action)
    };
    assert_eq!(judge("b"), Verdict::NoEntries);
    assert_eq!(judge("ab"), Verdict::NotAllowed);
}

#[test]
fn a_denial_wins_however_it_is_written() {
    for pattern in [(Literal, "topic"), (Literal, "*"), (Prefixed, "to")] {
        let acls = [
            acl(Allow, "User:ada", All, Literal, "topic"),
            acl(Deny, "User:*", Read, pattern.0, pattern.1),
        ];
        assert!(!may(&acls, "User:ada", Read, "topic"));
        assert!(may(&acls, "User:ada", Write, "topic"));
    }
    // Super users stand above.
    assert!(may(&[acl(Deny, "User:*", All, Literal, "*")], "User:root", Read, "t"));
}

#[test]
fn some_operations_imply_others_where_they_are_allowed_only() {
    for (said, wanted, implied) in [
        (Read, Describe, true),
        (Alter, Describe, true),
        (AlterConfigs, DescribeConfigs, true),
        (AlterConfigs, Describe, false),
        (Describe, Read, false),
    ] {
        let allowed = [acl(Allow, "User:ada", said, Literal, "t")];
        assert_eq!(may(&allowed, "User:ada", wanted, "t"), implied);
        let denied =
            [acl(Allow, "User:ada", All, Literal, "t"), acl(Deny, "User:ada", said, Literal, "t")];
        assert!(may(&denied, "User:ada", wanted, "t"));
    }
}

#[test]
fn a_prefix_is_no_name_and_a_star_in_a_prefix_is_a_star() {
    let acls = [acl(Allow, "User:ada", Read, Prefixed, "*")];
    assert!(!may(&acls, "User:ada", Read, "t"));
    assert!(may(&acls, "User:ada", Read, "*t"));
    let acls = [acl(Allow, "User:ada", Read, Literal, "to")];
    assert!(!may(&acls, "User:ada", Read, "topic"));
    // Prefixes that end within a character of the name do not disturb.
    let acls = [acl(Allow, "User:ada", Read, Prefixed, "a")];
    assert!(!may(&acls, "User:ada", Read, "é"));
}

#[test]
fn who_may_write_anywhere_may_write_somewhere() {
    let judge = |acls: &[Acl]| {
        let authorizer = Authorizer::new("User:root", false).expect("valid");
        let host = IpAddr::from([10, 0, 0, 1]);
        authorizer.judge_any(&Index::new(acls), &Principal::user("ada"), host, TOPIC, Write)
    };
    let allow = |pattern, name| acl(Allow, "User:ada", Write, pattern, name);
    let deny = |pattern, name| acl(Deny, "User:*", All, pattern, name);
    assert!(!judge(&[]));
    assert!(!judge(&[acl(Allow, "User:bob", Write, Literal, "t")]));
    assert!(!judge(&[acl(Allow, "User:ada", Read, Literal, "t")]));
    for allowed in [allow(Literal, "topic"), allow(Prefixed, "topic"), allow(Literal, "*")] {
        assert!(judge(std::slice::from_ref(&allowed)));
        assert!(judge(&[allowed.clone(), deny(Literal, "other")]));
        assert!(!judge(&[allowed.clone(), deny(Literal, "*")]) || allowed.resource_name == *"*");
    }
    assert!(!judge(&[allow(Literal, "topic"), deny(Literal, "topic")]));
    assert!(!judge(&[allow(Literal, "topic"), deny(Prefixed, "to")]));
    assert!(judge(&[allow(Prefixed, "topic"), deny(Literal, "topic")]), "topics is left");
    assert!(!judge(&[allow(Prefixed, "topic"), deny(Prefixed, "to")]));
    assert!(judge(&[allow(Prefixed, "topic"), deny(Prefixed, "topics")]));
}

/// Reads every entry, without an index, and thinks in sets instead of loops.
fn naive(acls: &[Acl], everyone: bool, who: &str, host: IpAddr, action: Action<'_>) -> bool {
    let about: Vec<&Acl> = acls
        .iter()
        .filter(|acl| acl.resource_type == action.resource_type)
        .filter(|acl| {
            let name = acl.resource_name.as_str();
            match acl.pattern_type {
                Literal => name == "*" || name == action.resource_name,
                Prefixed => action.resource_name.starts_with(name),
            }
        })
        .collect();
    if about.is_empty() {
        return everyone;
    }
    let speaks = |permission: AclPermission, operations: &[AclOperation]| {
        about.iter().any(|acl| {
            acl.permission == permission
                && operations.contains(&acl.operation)
                && ["User:*", who].contains(&acl.principal.as_str())
                && ["*".to_owned(), host.to_string()].contains(&acl.host.as_str().to_owned())
        })
    };
    let allowing: &[AclOperation] = match action.operation {
        Describe => &[All, Describe, Read, Write, AclOperation::Delete, Alter],
        DescribeConfigs => &[All, DescribeConfigs, AlterConfigs],
        other => &[All, other],
    };
    speaks(Allow, allowing) && !speaks(Deny, &[All, action.operation])
}

prop_compose! {
    fn any_acl()(
        resource_type in select(vec![TOPIC, AclResourceType::Group]),
        name in select(vec!["*", "a", "ab", "abc", "b", ""]),
        pattern_type in select(AclPatternType::ALL),
        principal in select(vec!["User:*", "User:ada", "User:bob"]),
        host in select(vec!["*", "10.0.0.1", "10.0.0.2"]),
        operation in select(AclOperation::ALL),
        permission in select(AclPermission::ALL),
    ) -> Acl {
        Acl {
            resource_type, resource_name: Str::from(name), pattern_type,
            principal: Str::from(principal), host: Str::from(host), operation, permission,
        }
    }
}

proptest! {
    #[test]
    fn the_index_decides_as_one_who_reads_every_entry(
        acls in proptest::collection::vec(any_acl(), 0..12),
        everyone: bool,
        user in select(vec!["ada", "bob", "eve"]),
        last in 1u8..4,
        resource_type in select(vec![TOPIC, AclResourceType::Group, AclResourceType::Cluster]),
        resource_name in select(vec!["a", "ab", "abcd", "b", "c"]),
        operation in select(AclOperation::ALL),
    ) {
        let host = IpAddr::from([10, 0, 0, last]);
        let action = Action { resource_type, resource_name, operation };
        let authorizer = Authorizer::new("", everyone).expect("valid");
        let index = Index::new(&acls);
        let verdict = authorizer.judge(&index, &Principal::user(user), host, action);
        let expected = naive(&acls, everyone, &format!("User:{user}"), host, action);
        prop_assert_eq!(verdict.is_allowed(), expected, "{:?}", verdict);
    }
}
