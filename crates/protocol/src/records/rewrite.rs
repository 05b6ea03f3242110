//! Changing a batch without rebuilding its records.

use bytes::Bytes;
use fleuve_types::TimestampMs;

use super::compress::Compressor;
use super::header::checksum_parts;
use super::{
    Batch, BatchError, BatchHeader, Codec, Compression, Decompressor, TimestampType, layout,
};

impl Batch {
    /// The header this batch has once its timestamps mean something else.
    ///
    /// Brokers use it for topics with `message.timestamp.type=LogAppendTime`, and to correct a
    /// wrong max timestamp of a producer. Only the header changes, so the caller writes
    /// [`BatchHeader::to_bytes`] and the payload as it is; the new checksum is in the header. If
    /// nothing changes, neither does the checksum, and it is not computed.
    pub fn header_with_timestamps(
        &self,
        timestamp_type: TimestampType,
        max_timestamp: TimestampMs,
    ) -> BatchHeader {
        let mut header = self.header;
        header.attributes = header.attributes.with_timestamp_type(timestamp_type);
        header.max_timestamp = max_timestamp;
        if header != self.header {
            header.crc = checksum_parts(&header.to_bytes(), &self.bytes[layout::HEADER_SIZE..]);
        }
        header
    }

    /// The uncompressed records, for a [`RecordIter`](super::RecordIter).
    pub fn records(&self, decompressor: &mut Decompressor) -> Result<Bytes, BatchError> {
        decompressor.decompress(self.header.compression()?, &self.payload())
    }

    /// The same batch with its records compressed by another codec.
    ///
    /// The records are not looked at, so a batch with malformed records stays one.
    pub fn recompress(
        &self,
        codec: Codec,
        decompressor: &mut Decompressor,
    ) -> Result<Self, BatchError> {
        let records = self.records(decompressor)?;
        let mut bytes = vec![0; layout::HEADER_SIZE];
        if !records.is_empty() {
            Compressor::default().compress(codec, &records, &mut bytes);
        }
        let mut header = self.header;
        header.attributes = header.attributes.with_compression(codec.compression());
        header.length = i32::try_from(bytes.len() - layout::LENGTH_OVERHEAD)
            .map_err(|_| BatchError::DecompressedTooLarge { limit: i32::MAX as usize })?;
        header.crc = checksum_parts(&header.to_bytes(), &bytes[layout::HEADER_SIZE..]);
        bytes[..layout::HEADER_SIZE].copy_from_slice(&header.to_bytes());
        Ok(Self { header, bytes: Bytes::from(bytes) })
    }
}

/// The batch that compaction leaves when every record of `header`'s batch is gone.
///
/// It keeps what a restarted broker must know: the offsets, and the producer's last sequence.
pub fn emptied_batch(header: &BatchHeader) -> Bytes {
    let mut header = BatchHeader {
        length: (layout::HEADER_SIZE - layout::LENGTH_OVERHEAD) as i32,
        attributes: header
            .attributes
            .with_compression(Compression::None)
            .with_delete_horizon(false),
        base_timestamp: TimestampMs(-1),
        count: 0,
        ..*header
    };
    header.crc = checksum_parts(&header.to_bytes(), &[]);
    Bytes::copy_from_slice(&header.to_bytes())
}
