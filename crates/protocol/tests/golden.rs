//! Every message in every version against bytes that Apache Kafka 4.3.1 itself read and wrote.
//!
//! This holds the messages that no other codec in Rust knows: metadata records, coordinator records,
//! streams groups. The bytes were read and written again by the classes in Kafka's own jars; a
//! version of Kafka to come gets new lines in `golden/messages.txt`, and the old ones must still
//! hold.

use std::collections::BTreeSet;

use bytes::Bytes;
use fleuve_protocol::testing::messages;

#[test]
fn messages_stand_on_the_wire_as_kafka_writes_them() {
    let mut seen = BTreeSet::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let [kind, name, version, hex] =
            line.split(' ').collect::<Vec<_>>().try_into().expect("KIND NAME VERSION HEX");
        let version: i16 = version.parse().expect("a version is a number");
        let bytes = unhex(hex);
        let specimen = messages().iter().find(|message| message.name == name).expect(name);
        let again = (specimen.recode)(bytes.clone(), version);
        assert_eq!(again, Ok((bytes.clone(), 0)), "{name} {version} {kind}");
        if kind == "default" {
            assert_eq!((specimen.default)(version), Ok(bytes), "{name} {version}");
        }
        seen.insert((name, version));
    }
    for message in messages() {
        for version in message.versions.iter() {
            assert!(seen.contains(&(message.name, version)), "{} {version}", message.name);
        }
    }
}

fn unhex(text: &str) -> Bytes {
    let byte = |pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits");
    (0..text.len() / 2).map(|index| byte(&text[2 * index..2 * index + 2])).collect()
}

const GOLDEN: &str = include_str!("golden/messages.txt");
