//! JAAS entries, as `listener.name.NAME.MECHANISM.sasl.jaas.config` holds them.
//!
//! ```text
//! org.apache.kafka...PlainLoginModule required user_ada="lovelace" user_bob="x" ;
//! ```

use std::fmt;

/// The options of one entry. They hold passwords, and so are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Jaas {
    options: Vec<(String, String)>,
}

/// Says what is wrong with an entry, and nothing of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected MODULE required name=\"value\" ... ;")]
pub struct JaasError(&'static str);

impl Jaas {
    /// Reads an entry.
    pub fn parse(text: &str) -> Result<Self, JaasError> {
        let mut words = words(text)?.into_iter();
        words.next().ok_or(JaasError("the login module is missing"))?;
        words.next().ok_or(JaasError("the control flag is missing"))?;
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(JaasError("an option has no value")),
        };
        Ok(Self { options: words.map(pair).collect::<Result<_, _>>()? })
    }

    /// Lists the options whose names begin with `prefix`, without it.
    pub fn options<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.options
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }
}

impl fmt::Debug for Jaas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jaas").finish_non_exhaustive()
    }
}

/// Splits at white space outside quotes, up to the semicolon.
fn words(text: &str) -> Result<Vec<String>, JaasError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), '\\') => {
                let escaped = characters.next().ok_or(JaasError("a quote is not closed"))?;
                word.get_or_insert_default().push(escaped);
            }
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ';') => {
                words.extend(word);
                if !characters.as_str().trim().is_empty() {
                    return Err(JaasError("there is more than one entry"));
                }
                return Ok(words);
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    Err(JaasError(if quote.is_some() {
        "a quote is not closed"
    } else {
        "the semicolon at the end is missing"
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_may_be_quoted_and_escaped() {
        let text = r#" X required user_ada="a \"b\"; c" user_bob='d' user_eve=f;"#;
        let jaas = Jaas::parse(text).expect("valid");
        let users: Vec<_> = jaas.options("user_").collect();
        assert_eq!(users, [("ada", "a \"b\"; c"), ("bob", "d"), ("eve", "f")]);
    }

    #[test]
    fn neither_errors_nor_debug_output_show_secrets() {
        let jaas = Jaas::parse("X required user_ada=hunter2;").expect("valid");
        assert!(!format!("{jaas:?}").contains("hunter2"));
        for text in [
            "",
            ";",
            "X;",
            "X required hunter2;",
            "X required user_a=hunter2",
            "X required user_a=\"hunter2;",
            "X required user_a=\"hunter2\\",
            "X required user_a=hunter2; Y required;",
        ] {
            let error = Jaas::parse(text).expect_err("not an entry").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
