//! Every message in every version: what is written is read back, and nothing less is accepted.

use fleuve_protocol::testing::{Sampler, Specimen, messages};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn for_each_version(cases: u32, check: impl Fn(&Specimen, i16, u64)) {
    for specimen in messages() {
        for version in specimen.versions.iter() {
            let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
            let run = TestRunner::new(config).run(&any::<u64>(), |seed| {
                check(specimen, version, seed);
                Ok(())
            });
            if let Err(failure) = run {
                panic!("{} version {version}: {failure}", specimen.name);
            }
        }
    }
}

#[test]
fn every_message_survives_a_round_trip() {
    for_each_version(12, |specimen, version, seed| {
        let bytes = (specimen.round_trip)(&mut Sampler::new(seed), version);
        // Reading again and writing again gives the same bytes, so nothing was lost on the way.
        let (again, unread) = (specimen.recode)(bytes.clone(), version).expect("it was just read");
        assert_eq!((again, unread), (bytes, 0));
    });
}

#[test]
fn every_truncation_is_an_error() {
    for_each_version(4, |specimen, version, seed| {
        let bytes = (specimen.round_trip)(&mut Sampler::short(seed), version);
        for length in 0..bytes.len() {
            let error = (specimen.decode)(bytes.slice(..length), version)
                .expect_err("a message without its end is no message");
            assert_eq!(error.message(), specimen.name);
            assert!(error.position <= length, "{error} beyond {length}");
        }
    });
}

#[test]
fn a_flipped_byte_never_panics() {
    for_each_version(4, |specimen, version, seed| {
        let mut s = Sampler::short(seed);
        let bytes = (specimen.round_trip)(&mut s, version);
        for index in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[index] = s.bits() as u8;
            if let Ok((again, unread)) = (specimen.recode)(damaged.into(), version) {
                assert!(again.len() + unread <= bytes.len(), "more was written than read");
            }
        }
    });
}

#[test]
fn versions_outside_the_range_are_refused() {
    for specimen in messages() {
        for version in [specimen.versions.min - 1, specimen.versions.max + 1, i16::MIN, i16::MAX] {
            let error =
                (specimen.decode)(vec![0; 512].into(), version).expect_err("no such version");
            assert_eq!(error.to_string().split(' ').next(), Some(specimen.name));
        }
    }
}
