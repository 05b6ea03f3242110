//! Which clients a client metrics subscription means: `client_id=app-.*,client_software_name=.*`.

use regex::{Regex, RegexBuilder};

/// The key that holds the patterns.
pub(super) const MATCH: &str = "match";

/// What a compiled pattern may take; patterns are a few names, and each is tried at every client.
const PATTERN_BYTES_MAX: usize = 1 << 18;

/// Something about a client that a pattern can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTrait {
    /// The id that its telemetry goes by.
    InstanceId,
    /// What it calls itself.
    Id,
    /// The name of its library.
    SoftwareName,
    /// The version of its library.
    SoftwareVersion,
    /// The address it comes from.
    SourceAddress,
    /// The port it comes from.
    SourcePort,
}

impl ClientTrait {
    const ALL: [(&str, Self); 6] = [
        ("client_instance_id", Self::InstanceId),
        ("client_id", Self::Id),
        ("client_software_name", Self::SoftwareName),
        ("client_software_version", Self::SoftwareVersion),
        ("client_source_address", Self::SourceAddress),
        ("client_source_port", Self::SourcePort),
    ];
}

/// Reports a pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Illegal client matching pattern: {0}")]
pub struct IllegalPattern(String);

/// Patterns that all have to fit a client.
#[derive(Clone, Debug, Default)]
pub struct ClientMatch {
    patterns: Vec<(ClientTrait, Regex)>,
}

impl ClientMatch {
    /// Reads the items of `match`.
    pub fn parse(items: &[String]) -> Result<Self, IllegalPattern> {
        let parse = |item: &String| {
            let (name, pattern) = item.split_once('=')?;
            let (name, pattern) = (name.trim(), pattern.trim());
            let known = ClientTrait::ALL.iter().find(|(known, _)| *known == name)?;
            if pattern.is_empty() || pattern.contains('=') {
                return None;
            }
            // As in Java, a pattern means the whole text.
            let whole = format!("^(?:{pattern})$");
            let regex = RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).build().ok()?;
            Some((known.1, regex))
        };
        let patterns = items
            .iter()
            .map(|item| parse(item).ok_or_else(|| IllegalPattern(item.clone())))
            .collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Reports whether a client fits, of which `tell` knows everything that can be asked.
    pub fn fits<'a>(&self, tell: impl Fn(ClientTrait) -> &'a str) -> bool {
        self.patterns.iter().all(|(wanted, pattern)| pattern.is_match(tell(*wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ClientMatch, IllegalPattern> {
        ClientMatch::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn all_patterns_must_fit_the_whole_text() {
        let client = |wanted| match wanted {
            ClientTrait::Id => "app-1",
            ClientTrait::SoftwareName => "librdkafka",
            _ => "",
        };
        assert!(ClientMatch::default().fits(client));
        assert!(parse("client_id=app-\\d , client_software_name = lib.*").unwrap().fits(client));
        for text in ["client_id=app", "client_id=app-1,client_source_port=9"] {
            assert!(!parse(text).unwrap().fits(client), "{text}");
        }
    }

    #[test]
    fn illegal_patterns_are_named() {
        for text in ["nosuch=a", "client_id=[", "client_id", "client_id=", "client_id=a=b"] {
            let message = parse(text).unwrap_err().to_string();
            assert_eq!(message, format!("Illegal client matching pattern: {text}"));
        }
        assert!(parse("client_id=(a{1000}){1000}").is_err(), "too large");
    }
}
