//! All stores of an application in one file, with their positions: written from a directory, in use or not, and read
//! into an empty one, from which the application goes on. The idea is Flink's savepoint.
//!
//! ```text
//! | "FLSTATE1": 8 bytes | application id: u32 length ... |
//! | 1: u8 | store: u32 length ... | key: u32 length ... | value: u32 length ... |, any number, as in the database
//! | 0: u8 | number of entries: u64 | CRC-32C of everything before: u32 |
//! ```
//!
//! The database is read as it was at one moment, so that the data of each store belong to its position. A file is
//! checked as a whole before anything of it is written, and positions are written last: an import that is broken off
//! leaves data that nobody believes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::backend::is_position;
use super::directory::keyspace_name;
use crate::state::StoreError;

/// What a snapshot of an application's state has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSnapshot {
    /// Stores with something in them.
    pub stores: u64,
    /// Keys and positions.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes everything that the stores have to a file, which must not exist.
pub(super) fn export(
    database: &Database,
    application: &str,
    stores: impl Iterator<Item = String>,
    file: &Path,
) -> Result<StateSnapshot, StoreError> {
    let moment = database.snapshot();
    let mut out = Summed::new(BufWriter::new(File::create_new(file)?));
    let mut written = StateSnapshot::default();
    out.write(MAGIC)?;
    out.write_sized(application.as_bytes())?;
    for store in stores {
        if !database.keyspace_exists(&keyspace_name(&store)) {
            continue;
        }
        let keyspace = database.keyspace(&keyspace_name(&store), KeyspaceCreateOptions::default)?;
        let before = written.entries;
        for guard in moment.iter(&keyspace) {
            let (key, value) = guard.into_inner()?;
            out.write(&[ENTRY])?;
            out.write_sized(store.as_bytes())?;
            out.write_sized(&key)?;
            out.write_sized(&value)?;
            written.entries += 1;
        }
        written.stores += u64::from(written.entries > before);
    }
    out.write(&[END])?;
    out.write(&written.entries.to_be_bytes())?;
    let sum = out.digest.finalize() as u32;
    out.write(&sum.to_be_bytes())?;
    written.bytes = out.bytes;
    let file = out.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(written)
}

/// Reads a file of [`export`] into a new database at this path.
pub(super) fn import(
    file: &Path,
    application: &str,
    directory: &Path,
) -> Result<StateSnapshot, StoreError> {
    let damaged = |what| StoreError::Damaged { store: file.display().to_string(), what };
    let read = read(file, application, |_, _, _| Ok(()))?;
    if directory.exists() && std::fs::read_dir(directory)?.next().is_some() {
        return Err(StoreError::Damaged {
            store: directory.display().to_string(),
            what: "state that is there already; import into an empty directory",
        });
    }
    std::fs::create_dir_all(directory)?;
    let database = Database::builder(directory).worker_threads(1).open()?;
    let mut keyspaces: BTreeMap<String, Keyspace> = BTreeMap::new();
    let mut positions = Vec::new();
    let mut batch = database.batch();
    let imported = self::read(file, application, |store, key, value| {
        let keyspace = match keyspaces.get(store) {
            Some(keyspace) => keyspace.clone(),
            None => {
                let name = keyspace_name(store);
                let keyspace = database.keyspace(&name, KeyspaceCreateOptions::default)?;
                keyspaces.insert(store.to_owned(), keyspace.clone());
                keyspace
            }
        };
        if is_position(&key) {
            positions.push((keyspace, key, value));
            return Ok(());
        }
        batch.insert(&keyspace, key, value);
        if batch.len() >= IMPORTED_AT_ONCE {
            std::mem::replace(&mut batch, database.batch()).commit()?;
        }
        Ok(())
    })?;
    if imported != read {
        return Err(damaged("other contents than a moment ago"));
    }
    batch.commit()?;
    let mut batch = database.batch();
    for (keyspace, key, value) in positions {
        batch.insert(&keyspace, key, value);
    }
    batch.commit()?;
    database.persist(PersistMode::SyncAll)?;
    Ok(imported)
}

/// Reads a file entry by entry, and checks it.
fn read(
    path: &Path,
    application: &str,
    mut entry: impl FnMut(&str, Vec<u8>, Vec<u8>) -> Result<(), StoreError>,
) -> Result<StateSnapshot, StoreError> {
    let damaged = |what| StoreError::Damaged { store: path.display().to_string(), what };
    let mut input = Summed::new(BufReader::new(File::open(path)?));
    if input.read_exact(MAGIC.len())? != MAGIC {
        return Err(damaged("something else than a snapshot of state"));
    }
    if input.read_sized()? != application.as_bytes() {
        return Err(damaged("the state of another application"));
    }
    let mut found = StateSnapshot::default();
    let mut last_store = String::new();
    loop {
        match input.read_exact(1)?[..] {
            [ENTRY] => {
                let store = String::from_utf8(input.read_sized()?)
                    .map_err(|_| damaged("a store's name that is not text"))?;
                let (key, value) = (input.read_sized()?, input.read_sized()?);
                found.entries += 1;
                found.stores += u64::from(store != last_store);
                if store.is_empty() || store.len() > STORE_NAME_MAX {
                    return Err(damaged("a store's name that no store has"));
                }
                entry(&store, key, value)?;
                last_store = store;
            }
            [END] => break,
            _ => return Err(damaged("an entry of an unknown kind")),
        }
    }
    if input.read_exact(size_of::<u64>())? != found.entries.to_be_bytes() {
        return Err(damaged("another number of entries than it says"));
    }
    let sum = input.digest.finalize() as u32;
    if input.read_exact(size_of::<u32>())? != sum.to_be_bytes() {
        return Err(damaged("bytes that were changed"));
    }
    found.bytes = input.bytes;
    Ok(found)
}

/// A file of which a checksum is kept.
struct Summed<F> {
    inner: F,
    digest: crc_fast::Digest,
    bytes: u64,
}

impl<F> Summed<F> {
    fn new(inner: F) -> Self {
        let digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        Self { inner, digest, bytes: 0 }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<F: Write> Summed<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.count(bytes);
        Ok(())
    }

    fn write_sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(&(bytes.len() as u32).to_be_bytes())?;
        self.write(bytes)
    }
}

impl<F: Read> Summed<F> {
    /// So many bytes. A length that the file does not have costs no memory.
    fn read_exact(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.inner.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.count(&bytes);
        Ok(bytes)
    }

    fn read_sized(&mut self) -> io::Result<Vec<u8>> {
        let length = self.read_exact(size_of::<u32>())?;
        let length = length.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        self.read_exact(length as usize)
    }
}

const MAGIC: &[u8] = b"FLSTATE1";
const END: u8 = 0;
const ENTRY: u8 = 1;
/// Entries written with one batch.
const IMPORTED_AT_ONCE: usize = 5_000;
/// The longest name of a topic, and so of a store.
const STORE_NAME_MAX: usize = 249;
