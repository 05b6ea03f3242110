//! Files of properties that are neither a client's nor a broker's alone, so that no table of keys
//! says which there are.

use std::collections::BTreeMap;
use std::path::Path;

use fleuve_metadata::config::{decode_text, parse_properties};

use crate::failure::Failure;

/// Reads a file of properties, whatever they are called.
pub(super) fn properties(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let failed = |why: String| Failure::new(format!("{}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let (properties, mistakes) = parse_properties(&decode_text(&bytes));
    if let Some(mistake) = mistakes.first() {
        return Err(failed(format!("line {}: {}", mistake.line, mistake.problem)));
    }
    Ok(properties.into_iter().map(|property| (property.key, property.value)).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn keys_may_be_called_as_they_like_and_mistakes_have_a_line() {
        let path = std::env::temp_dir().join(format!("fleuve-{}.properties", std::process::id()));
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(b"# mine\nprint.key = true\nkey.separator=\\t\nlog.dirs: /a,\\\n  /b\n")
            .expect("room");
        let read = properties(&path).expect("readable");
        assert_eq!(read["print.key"], "true");
        assert_eq!(read["key.separator"], "\t");
        assert_eq!(read["log.dirs"], "/a,/b");
        std::fs::remove_file(&path).expect("it is there");
        let gone = properties(&path).expect_err("it is gone").to_string();
        assert!(gone.contains(&path.display().to_string()), "{gone}");
    }
}
