//! Stores of keys and certificates, by the kind that a broker's settings name.

use fleuve_metadata::config::StoreKind;

pub use fleuve_keystore::{Passwords, StoreError};

/// Makes PEM of the private key and certificate chain in a store.
pub fn key_and_chain(
    kind: StoreKind,
    bytes: &[u8],
    passwords: Passwords<'_>,
) -> Result<Vec<u8>, StoreError> {
    fleuve_keystore::key_and_chain(kind_of(kind), bytes, passwords)
}

/// Makes PEM of the certificates that a store says are to be trusted.
pub fn trusted(
    kind: StoreKind,
    bytes: &[u8],
    password: Option<&str>,
) -> Result<Vec<u8>, StoreError> {
    fleuve_keystore::trusted(kind_of(kind), bytes, password)
}

fn kind_of(kind: StoreKind) -> fleuve_keystore::StoreKind {
    match kind {
        StoreKind::Pem => fleuve_keystore::StoreKind::Pem,
        StoreKind::Pkcs12 => fleuve_keystore::StoreKind::Pkcs12,
        StoreKind::Jks => fleuve_keystore::StoreKind::Jks,
    }
}
