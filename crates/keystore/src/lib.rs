//! Keystores as Java's tools write them, turned into PEM, for brokers and clients alike.
//!
//! Bytes and passwords go in, PEM comes out; where files are is the business of others.
//! PKCS12 is read by a library, since its ciphers are many; JKS here, since its one cipher is
//! Java's own. Of several keys the first by alias is taken. Keys in PEM may be under a password,
//! too (PKCS8). Keys on elliptic curves that lack their public half get it from their certificate.
//!
//! ```text
//! JKS:   FEEDFEED | version u32 | count u32 | entry ... | SHA-1 of (password, "Mighty Aphrodite", all before)
//! entry: 1 | alias | time u64 | key: length u32, bytes | count u32 | certificate ...
//!        2 | alias | time u64 | certificate
//! certificate: type (version 2) | length u32 | DER          alias, type: length u16, text
//! key:   EncryptedPrivateKeyInfo around  salt (20) | key XOR stream | SHA-1 of (password, key)
//! ```

mod elliptic;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// What a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// PEM, keys perhaps under a password.
    #[default]
    Pem,
    /// PKCS12, of Java or OpenSSL.
    Pkcs12,
    /// Java's own format.
    Jks,
}

impl StoreKind {
    /// Tells the two binary kinds apart by their first bytes, as Java does whatever a store is
    /// said to be; text is taken for what it is said to be.
    pub fn of(self, bytes: &[u8]) -> Self {
        match (self, bytes.first()) {
            (Self::Jks, Some(&SEQUENCE)) => Self::Pkcs12,
            (Self::Pkcs12, _) if bytes.starts_with(&MAGIC.to_be_bytes()) => Self::Jks,
            _ => self,
        }
    }
}

/// Why a store cannot be read. Never holds what was in it, nor its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is not a store of this kind.
    #[error("the store is not of the kind that its type says, or broken")]
    Malformed,
    /// The password is wrong, or missing.
    #[error("the store's password is wrong or missing")]
    Password,
    /// The password of the key is wrong, or missing.
    #[error("the password of the private key is wrong or missing")]
    KeyPassword,
    /// There is no key.
    #[error("the store holds no private key")]
    NoKey,
}

/// The passwords of a store.
#[derive(Clone, Copy, Default)]
pub struct Passwords<'a> {
    /// Of the store as a whole.
    pub store: Option<&'a str>,
    /// Of the key in it, where that differs.
    pub key: Option<&'a str>,
}

/// Makes PEM of the private key and certificate chain in a store.
pub fn key_and_chain(
    kind: StoreKind,
    bytes: &[u8],
    passwords: Passwords<'_>,
) -> Result<Vec<u8>, StoreError> {
    let pem = match kind {
        StoreKind::Pem => open_pem(bytes, passwords.key)?,
        StoreKind::Pkcs12 => {
            let store = open_pkcs12(bytes, passwords.store)?;
            let (_, chain) = store.private_key_chain().ok_or(StoreError::NoKey)?;
            let mut pem = armor("PRIVATE KEY", chain.key().as_der());
            for certificate in chain.certs() {
                pem += &armor("CERTIFICATE", certificate.as_der());
            }
            pem.into_bytes()
        }
        StoreKind::Jks => {
            let password = passwords.store.ok_or(StoreError::Password)?;
            let store = Jks::open(bytes, password)?;
            let (key, chain) = store.key.ok_or(StoreError::NoKey)?;
            let key = unlock(&key, passwords.key.unwrap_or(password))?;
            let mut pem = armor("PRIVATE KEY", &key);
            for certificate in chain {
                pem += &armor("CERTIFICATE", certificate);
            }
            pem.into_bytes()
        }
    };
    Ok(elliptic::complete(pem))
}

/// Makes PEM of the certificates that a store says are to be trusted.
pub fn trusted(
    kind: StoreKind,
    bytes: &[u8],
    password: Option<&str>,
) -> Result<Vec<u8>, StoreError> {
    let pem: String = match kind {
        StoreKind::Pem => return Ok(bytes.to_vec()),
        StoreKind::Pkcs12 => {
            let store = open_pkcs12(bytes, password)?;
            let certificates = store.entries().filter_map(|(_, entry)| match entry {
                KeyStoreEntry::Certificate(certificate) => Some(certificate),
                _ => None,
            });
            certificates.map(|certificate| armor("CERTIFICATE", certificate.as_der())).collect()
        }
        StoreKind::Jks => {
            let store = Jks::open(bytes, password.ok_or(StoreError::Password)?)?;
            store.trusted.iter().map(|certificate| armor("CERTIFICATE", certificate)).collect()
        }
    };
    Ok(pem.into_bytes())
}

fn open_pkcs12(bytes: &[u8], password: Option<&str>) -> Result<KeyStore, StoreError> {
    // A sequence, whatever is in it; all else that goes wrong is most likely the password.
    if bytes.first() != Some(&SEQUENCE) {
        return Err(StoreError::Malformed);
    }
    KeyStore::from_pkcs12(bytes, password.unwrap_or(""), Pkcs12ImportPolicy::Relaxed)
        .map_err(|_| StoreError::Password)
}

const LOCKED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const LOCKED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// Puts a key without a password in the place of one with.
fn open_pem(bytes: &[u8], password: Option<&str>) -> Result<Vec<u8>, StoreError> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(bytes.to_vec()) };
    let Some((before, rest)) = text.split_once(LOCKED_BEGIN) else { return Ok(bytes.to_vec()) };
    let (body, after) = rest.split_once(LOCKED_END).ok_or(StoreError::Malformed)?;
    let body: String = body.split_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| StoreError::Malformed)?;
    let locked =
        EncryptedPrivateKeyInfoRef::try_from(&der[..]).map_err(|_| StoreError::Malformed)?;
    let password = password.ok_or(StoreError::KeyPassword)?;
    let key = locked.decrypt(password).map_err(|_| StoreError::KeyPassword)?;
    Ok([before, &armor("PRIVATE KEY", key.as_bytes()), after].concat().into_bytes())
}

fn armor(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

const MAGIC: u32 = 0xFEED_FEED;
const SHA1_BYTES: usize = 20;
const TAG_KEY: u32 = 1;
const TAG_TRUSTED: u32 = 2;

/// A store in Java's own format.
struct Jks<'a> {
    key: Option<(Vec<u8>, Vec<&'a [u8]>)>,
    trusted: Vec<&'a [u8]>,
}

impl<'a> Jks<'a> {
    fn open(bytes: &'a [u8], password: &str) -> Result<Self, StoreError> {
        let end = bytes.len().checked_sub(SHA1_BYTES).ok_or(StoreError::Malformed)?;
        let (content, check) = bytes.split_at(end);
        let mut rest = Reader(content);
        if rest.u32()? != MAGIC {
            return Err(StoreError::Malformed);
        }
        if sha1(&[&utf16(password), b"Mighty Aphrodite", content]) != check {
            return Err(StoreError::Password);
        }
        let version = rest.u32()?;
        let count = rest.u32()?;
        let mut store = Self { key: None, trusted: Vec::new() };
        let mut first_alias: Option<&[u8]> = None;
        for _ in 0..count {
            let tag = rest.u32()?;
            let alias = rest.text()?;
            rest.take(8)?;
            match tag {
                TAG_KEY => {
                    let length = rest.u32()? as usize;
                    let key = rest.take(length)?.to_vec();
                    let mut chain = Vec::new();
                    for _ in 0..rest.u32()? {
                        chain.push(rest.certificate(version)?);
                    }
                    if first_alias.is_none_or(|first| alias < first) {
                        first_alias = Some(alias);
                        store.key = Some((key, chain));
                    }
                }
                TAG_TRUSTED => store.trusted.push(rest.certificate(version)?),
                _ => return Err(StoreError::Malformed),
            }
        }
        Ok(store)
    }
}

/// Takes the key out of what Java's own cipher protects.
fn unlock(locked: &[u8], password: &str) -> Result<Vec<u8>, StoreError> {
    let mut info = Reader(Reader(locked).der(SEQUENCE)?);
    info.der(SEQUENCE)?;
    let protected = info.der(OCTET_STRING)?;
    if protected.len() < 2 * SHA1_BYTES {
        return Err(StoreError::Malformed);
    }
    let (salt, rest) = protected.split_at(SHA1_BYTES);
    let (hidden, check) = rest.split_at(rest.len() - SHA1_BYTES);
    let password = utf16(password);
    let mut key = hidden.to_vec();
    let mut stream = salt.to_vec();
    for block in key.chunks_mut(SHA1_BYTES) {
        stream = sha1(&[&password, &stream]);
        block.iter_mut().zip(&stream).for_each(|(byte, mask)| *byte ^= mask);
    }
    if sha1(&[&password, &key]) != check {
        return Err(StoreError::KeyPassword);
    }
    Ok(key)
}

fn utf16(password: &str) -> Vec<u8> {
    password.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn sha1(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(StoreError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(StoreError::Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn text(&mut self) -> Result<&'a [u8], StoreError> {
        let length = self.take(2)?;
        self.take(usize::from(length[0]) << 8 | usize::from(length[1]))
    }

    fn certificate(&mut self, version: u32) -> Result<&'a [u8], StoreError> {
        if version >= 2 {
            self.text()?;
        }
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// Takes the content of a DER element with this tag.
    fn der(&mut self, tag: u8) -> Result<&'a [u8], StoreError> {
        let head = self.take(2)?;
        if head[0] != tag {
            return Err(StoreError::Malformed);
        }
        let length = match head[1] {
            short @ 0..=0x7F => usize::from(short),
            long @ 0x81..=0x84 => {
                let bytes = self.take(usize::from(long & 0x7F))?;
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return Err(StoreError::Malformed),
        };
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_kinds_are_told_apart_by_their_first_bytes() {
        let jks = MAGIC.to_be_bytes();
        for said in [StoreKind::Jks, StoreKind::Pkcs12] {
            assert_eq!(said.of(&jks), StoreKind::Jks);
            assert_eq!(said.of(&[SEQUENCE]), StoreKind::Pkcs12);
            assert_eq!(said.of(b""), said);
        }
        assert_eq!(StoreKind::Pem.of(&jks), StoreKind::Pem);
    }

    #[test]
    fn what_is_no_store_is_refused_without_being_shown() {
        let locked = format!("{LOCKED_BEGIN}\nAAAA\n{LOCKED_END}\n");
        let passwords = Passwords { store: Some("hunter2"), key: None };
        for (kind, bytes) in [
            (StoreKind::Pem, locked.as_bytes()),
            (StoreKind::Pkcs12, b"hunter2"),
            (StoreKind::Jks, b"hunter2"),
            (StoreKind::Jks, &[0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF]),
        ] {
            assert_eq!(key_and_chain(kind, bytes, passwords), Err(StoreError::Malformed));
        }
        assert_eq!(
            key_and_chain(StoreKind::Pkcs12, &[SEQUENCE, 0], passwords),
            Err(StoreError::Password)
        );
    }

    #[test]
    fn a_jks_is_opened_by_its_password_alone() {
        let (store_password, key) = ("changeit", b"a private key, longer than one digest");
        let salt = [7; SHA1_BYTES];
        let password = utf16(store_password);
        let mut hidden = key.to_vec();
        let mut stream = salt.to_vec();
        for block in hidden.chunks_mut(SHA1_BYTES) {
            stream = sha1(&[&password, &stream]);
            block.iter_mut().zip(&stream).for_each(|(byte, mask)| *byte ^= mask);
        }
        let protected = [&salt[..], &hidden, &sha1(&[&password, key])].concat();
        let octets = [&[OCTET_STRING, protected.len() as u8][..], &protected].concat();
        let info = [&[SEQUENCE, 2, 5, 0][..], &octets].concat();
        let locked = [&[SEQUENCE, info.len() as u8][..], &info].concat();
        let mut store = Vec::new();
        store.extend(MAGIC.to_be_bytes());
        store.extend([0, 0, 0, 2, 0, 0, 0, 2]);
        store.extend([0, 0, 0, 2, 0, 1, b'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'X', 0, 0, 0, 3]);
        store.extend(b"abc");
        store.extend([0, 0, 0, 1, 0, 1, b'k', 0, 0, 0, 0, 0, 0, 0, 0]);
        store.extend((locked.len() as u32).to_be_bytes());
        store.extend(locked);
        store.extend([0, 0, 0, 1, 0, 1, b'X', 0, 0, 0, 3]);
        store.extend(b"def");
        store.extend(sha1(&[&password, b"Mighty Aphrodite", &store]));
        let open = |passwords| key_and_chain(StoreKind::Jks, &store, passwords);
        let pem = open(Passwords { store: Some(store_password), key: None }).expect("opened");
        let expected = armor("PRIVATE KEY", key) + &armor("CERTIFICATE", b"def");
        assert_eq!(String::from_utf8(pem).expect("text"), expected);
        let wrong = |store, key| open(Passwords { store: Some(store), key });
        assert_eq!(wrong("other", None), Err(StoreError::Password));
        assert_eq!(wrong(store_password, Some("other")), Err(StoreError::KeyPassword));
        let pem = trusted(StoreKind::Jks, &store, Some(store_password)).expect("opened");
        assert_eq!(String::from_utf8(pem).expect("text"), armor("CERTIFICATE", b"abc"));
        for end in 0..store.len() {
            assert!(trusted(StoreKind::Jks, &store[..end], Some(store_password)).is_err());
        }
    }
}
