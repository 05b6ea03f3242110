//! Principals: names under which somebody is known to the authorizer.

use std::fmt;

use fleuve_protocol::Str;

/// The only type of principal that brokers themselves make.
const USER: &str = "User";

/// Somebody, as `Type:name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    kind: Str,
    name: Str,
}

impl Principal {
    /// A user of this name.
    pub fn user(name: &str) -> Self {
        Self { kind: Str::from(USER), name: Str::copy_from(name) }
    }

    /// Whoever was not asked for a name.
    pub fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    /// Reads `Type:name`; `None` without a type or a name.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let complete = !kind.is_empty() && !name.is_empty();
        complete.then(|| Self { kind: Str::copy_from(kind), name: Str::copy_from(name) })
    }

    /// Returns the name without the type.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_reads_as_it_is_written() {
        for text in ["User:ada", "User:CN=ada,OU=a:b", "Role:x"] {
            assert_eq!(Principal::parse(text).expect("complete").to_string(), text);
        }
        for text in ["ada", "User:", ":ada", ""] {
            assert_eq!(Principal::parse(text), None);
        }
    }
}
