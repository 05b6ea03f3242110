//! Writes the seeds of the `request` and `response` corpus: one small message of every API.

use std::fs;
use std::path::Path;

use fleuve_protocol::testing::Sampler;
use fleuve_protocol::{AnyRequest, AnyResponse, ApiKey, frame};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for key in ApiKey::ALL {
        let version = key.versions().max;
        let mut s = Sampler::short(key.code() as u64);

        let request = AnyRequest::sample(key, version, &mut s);
        let client_id = "seed".into();
        let segments = frame::encode_request_with(key, 1, Some(&client_id), version, |writer| {
            request.encode(writer, version)
        });
        let whole = segments.expect("a sample is within its version").concat();
        save(&corpus.join("request"), key, &whole[frame::LENGTH_BYTES..])?;

        let response = AnyResponse::sample(key, version, &mut s);
        let segments = frame::encode_response_with(key, 1, version, |writer| {
            response.encode(writer, version)
        });
        let whole = segments.expect("a sample is within its version").concat();
        let prefix = [key.code().to_be_bytes(), version.to_be_bytes()].concat();
        save(&corpus.join("response"), key, &[&prefix, &whole[frame::LENGTH_BYTES..]].concat())?;
    }
    Ok(())
}

fn save(folder: &Path, key: ApiKey, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{key}.seed")), bytes)
}
