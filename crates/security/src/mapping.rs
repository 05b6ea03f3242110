//! `ssl.principal.mapping.rules`: from the name in a certificate to the name of a user.
//!
//! ```text
//! RULE:PATTERN/REPLACEMENT/[L|U] , ... , DEFAULT
//! ```
//!
//! The first rule whose pattern matches the whole name counts; `DEFAULT` takes the name as it is.
//! Patterns are regular expressions without look-around, which match in linear time.

use regex::{Captures, Regex};

/// What a rule does with the case of a name.
#[derive(Clone, Copy, Debug)]
enum Case {
    Keep,
    Lower,
    Upper,
}

#[derive(Clone, Debug)]
enum Rule {
    Default,
    Replace { pattern: Regex, replacement: String, case: Case },
}

/// Rules in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct PrincipalMapping(Vec<Rule>);

/// Says which rule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rule; write RULE:PATTERN/REPLACEMENT/[L|U] or DEFAULT")]
pub struct PrincipalMappingError(String);

impl PrincipalMapping {
    /// Reads rules between commas.
    pub fn parse(text: &str) -> Result<Self, PrincipalMappingError> {
        let error = |text: &str| PrincipalMappingError(text.to_owned());
        let mut rules = Vec::new();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Ok(Self(vec![Rule::Default]));
        }
        loop {
            let (rule, after) = if let Some(after) = rest.strip_prefix("DEFAULT") {
                (Rule::Default, after)
            } else {
                let body = rest.strip_prefix("RULE:").ok_or_else(|| error(rest))?;
                let (pattern, body) = until_slash(body).ok_or_else(|| error(rest))?;
                let (replacement, body) = until_slash(body).ok_or_else(|| error(rest))?;
                let (case, after) = match body.as_bytes().first() {
                    Some(b'L') => (Case::Lower, &body[1..]),
                    Some(b'U') => (Case::Upper, &body[1..]),
                    _ => (Case::Keep, body),
                };
                let pattern = Regex::new(&format!("^(?:{pattern})$"));
                let pattern = pattern.map_err(|_| error(rest))?;
                (Rule::Replace { pattern, replacement: replacement.to_owned(), case }, after)
            };
            rules.push(rule);
            let after = after.trim_start();
            match after.strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None if after.is_empty() => return Ok(Self(rules)),
                None => return Err(error(rest)),
            }
        }
    }

    /// Returns the name of the user, or `None` if no rule is about this name.
    pub fn user(&self, distinguished_name: &str) -> Option<String> {
        self.0.iter().find_map(|rule| match rule {
            Rule::Default => Some(distinguished_name.to_owned()),
            Rule::Replace { pattern, replacement, case } => {
                let name = expand(replacement, &pattern.captures(distinguished_name)?);
                Some(match case {
                    Case::Keep => name,
                    Case::Lower => name.to_lowercase(),
                    Case::Upper => name.to_uppercase(),
                })
            }
        })
    }
}

/// Cuts at the first slash that is not escaped.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'/' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Puts groups in for `$1`, as Java does: as many digits as still name a group.
fn expand(replacement: &str, groups: &Captures<'_>) -> String {
    let mut name = String::new();
    let mut characters = replacement.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => name.extend(characters.next()),
            '$' => {
                let mut group: Option<usize> = None;
                while let Some(digit) = characters.peek().and_then(|next| next.to_digit(10)) {
                    let longer = group.unwrap_or_default() * 10 + digit as usize;
                    if longer >= groups.len() {
                        break;
                    }
                    group = Some(longer);
                    characters.next();
                }
                match group {
                    Some(group) => name.push_str(groups.get(group).map_or("", |it| it.as_str())),
                    None => name.push('$'),
                }
            }
            _ => name.push(character),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_examples_map_as_documented() {
        let rules = "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/,\
            RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L,\
            RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/L,DEFAULT";
        let mapping = PrincipalMapping::parse(rules).expect("valid");
        for (name, user) in [
            (
                "CN=serviceuser,OU=ServiceUsers,O=Unknown,L=Unknown,ST=Unknown,C=Unknown",
                "serviceuser",
            ),
            ("CN=adminUser,OU=Admin,O=Unknown,L=Unknown,ST=Unknown,C=Unknown", "adminuser@admin"),
            ("OU=x,cn=Ada.B", "ada.b"),
            ("OU=JavaEngineers", "OU=JavaEngineers"),
        ] {
            assert_eq!(mapping.user(name).as_deref(), Some(user));
        }
    }

    #[test]
    fn replacements_are_read_as_in_java() {
        for (rule, user) in [
            ("RULE:^CN=(.)(.*)$/$2$1/U", Some("DAA")),
            ("RULE:^CN=(.*)$/$12/", Some("ada2")),
            ("RULE:^CN=(.*)$/$x\\$1\\/$/", Some("$x$1/$")),
            ("RULE:CN/x/", None),
            ("RULE:CN=.*/a,b/ , DEFAULT", Some("a,b")),
            ("", Some("CN=ada")),
        ] {
            let mapping = PrincipalMapping::parse(rule).expect("valid");
            assert_eq!(mapping.user("CN=ada").as_deref(), user, "{rule}");
        }
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for rule in ["x", "RULE:a", "RULE:a/b", "RULE:(/b/", "RULE:a/b/LL", "DEFAULT,", "DEFAULTS"]
        {
            assert!(PrincipalMapping::parse(rule).is_err(), "{rule}");
        }
    }
}
