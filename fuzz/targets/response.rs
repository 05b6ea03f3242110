//! Reads a response, as a client does; the input begins with the API key and the version.
#![no_main]

#[path = "../../crates/protocol/tests/counting/mod.rs"]
mod counting;

use bytes::Bytes;
use counting::{Counting, Usage, usage_of};
use fleuve_protocol::{AnyResponse, ApiKey, Reader, Writer, frame};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Beside the arrays: the boxed message itself and the reference count of the frame.
const BOOKKEEPING_BYTES: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let mut prefix = Reader::new(Bytes::copy_from_slice(input));
    let (Ok(code), Ok(version)) = (prefix.read_i16("key"), prefix.read_i16("version")) else {
        return;
    };
    let Ok(key) = ApiKey::try_from(code) else { return };
    let frame = prefix.into_rest();
    let (read, usage) = usage_of(|| {
        let (_, mut body) = frame::decode_response_header(frame, key, version).ok()?;
        AnyResponse::decode(key, version, &mut body).ok()
    });
    let bound = Reader::MEMORY_PER_BYTE * input.len() + Reader::MEMORY_ALWAYS + BOOKKEEPING_BYTES;
    let Usage { peak, allocations } = usage;
    let length = input.len();
    assert!(peak <= bound, "{peak} bytes in {allocations} allocations for {length} of input");

    // What was read can be written, and says the same when read and written once more.
    if let Some(message) = read {
        let mut first = Writer::new();
        message.encode(&mut first, version).expect("it was read in this version");
        let first = first.into_bytes();
        let again = AnyResponse::decode(key, version, &mut Reader::new(first.clone()));
        let mut second = Writer::new();
        again.expect("we wrote it").encode(&mut second, version).expect("as before");
        assert_eq!(second.into_bytes(), first);
    }
});
