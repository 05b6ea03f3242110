//! What window stores are asked for: the windows of a key, or of all keys, within a span of time.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use super::held::Held;
use super::{Slot, WindowStore};
use crate::record::{Headers, Windowed};
use crate::state::timed::TimedRow;
use crate::state::{Stamped, StoreError};

/// Values with the windows they belong to.
type Windows<K, V> = Vec<(Windowed<K>, Stamped<V>)>;

impl<K: Clone + Send + 'static, V: Clone + Send + 'static> WindowStore<K, V> {
    /// The values of a key in windows that begin within `from_ms..=to_ms`, by start.
    pub(crate) fn fetch(
        &mut self,
        key: &K,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(i64, Stamped<V>)>, StoreError> {
        if from_ms > to_ms {
            return Ok(Vec::new());
        }
        self.reads += 1;
        self.write_key(key)?;
        let mut found = Vec::new();
        let lacking_to = to_ms.min(self.complete_from.saturating_sub(1));
        if let Some(rows) = &mut self.rows {
            let rows = rows.of_key(&self.key, from_ms, lacking_to, self.observed_ms)?;
            for row in rows.into_iter().filter(|row| !has(&self.held, row)) {
                found.push((row.time, self.stamped(row.timestamp, row.value)?));
            }
        }
        let on_disk = found.len();
        let held = self.held.of_key(&self.key, from_ms, to_ms);
        found.extend(held.map(|(start, slot)| (start, slot.value.clone())));
        if on_disk > 0 && on_disk < found.len() {
            found.sort_by_key(|(start, _)| *start);
        }
        Ok(found)
    }

    /// Every key in windows that begin within `from_ms..=to_ms`, by start and key bytes.
    pub(crate) fn fetch_all(
        &mut self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Windows<K, V>, StoreError> {
        self.fetch_those(|_| true, from_ms, to_ms)
    }

    /// Keys whose bytes are within those of these, in windows that begin within `from_ms..=to_ms`, by start and key
    /// bytes.
    pub(crate) fn fetch_between(
        &mut self,
        keys: (Bound<&K>, Bound<&K>),
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Windows<K, V>, StoreError> {
        let bytes = |key: Bound<&K>| -> Result<Bound<Bytes>, StoreError> {
            Ok(match key {
                Bound::Included(key) => Bound::Included(self.key_bytes(key)?),
                Bound::Excluded(key) => Bound::Excluded(self.key_bytes(key)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        let keys = (bytes(keys.0)?, bytes(keys.1)?);
        let keys = (keys.0.as_ref().map(|key| &key[..]), keys.1.as_ref().map(|key| &key[..]));
        self.fetch_those(|key| RangeBounds::<[u8]>::contains(&keys, key), from_ms, to_ms)
    }

    fn fetch_those(
        &mut self,
        wanted: impl Fn(&[u8]) -> bool,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Windows<K, V>, StoreError> {
        if from_ms > to_ms {
            return Ok(Vec::new());
        }
        let lacking_to = to_ms.min(self.complete_from.saturating_sub(1));
        let rows = match &mut self.rows {
            Some(rows) => rows.all(from_ms, lacking_to, self.observed_ms)?,
            None => Vec::new(),
        };
        let mut found = Vec::new();
        for row in rows.into_iter().filter(|row| wanted(&row.key) && !has(&self.held, row)) {
            let (topic, headers) = (&self.settings.topic, Headers::default());
            let key = self.settings.key.read(topic, &headers, Some(row.key.clone()))?;
            let key = Windowed { key, window: self.window(row.time) };
            found.push((row.key, (key, self.stamped(row.timestamp, row.value)?)));
        }
        let on_disk = found.len();
        for (start, bytes, slot) in self.held.sorted(from_ms, to_ms, wanted) {
            let key = Windowed { key: self.typed_key(bytes)?, window: self.window(start) };
            // Only compared with those on disk.
            let bytes = if on_disk > 0 { Bytes::copy_from_slice(bytes) } else { Bytes::new() };
            found.push((bytes, (key, slot.value.clone())));
        }
        if on_disk > 0 && on_disk < found.len() {
            found.sort_by(|(one, (this, _)), (other, (that, _))| {
                (this.window.start, one).cmp(&(that.window.start, other))
            });
        }
        Ok(found.into_iter().map(|(_, found)| found).collect())
    }
}

/// Whether memory has a row, perhaps in a newer form.
fn has<V>(held: &Held<Slot<V>>, row: &TimedRow) -> bool {
    held.get(&row.key, row.time, u32::try_from(row.mark).unwrap_or_default()).is_some()
}
