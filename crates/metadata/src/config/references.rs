//! Values that stand elsewhere: `${PROVIDER:PATH:KEY}`, as Kafka's config providers read them.
//!
//! ```text
//! config.providers=file,env,dir
//! config.providers.NAME.class                     FileConfigProvider, EnvVarConfigProvider or DirectoryConfigProvider
//! config.providers.NAME.param.allowed.paths       where files may lie; without it anywhere
//! config.providers.NAME.param.allowlist.pattern   names of variables that may be read; without it all
//!
//! ${file:/etc/fleuve/secrets.properties:password}   ${env:PASSWORD}   ${dir:/run/secrets:password}
//! ```
//!
//! Only what the operator wrote is looked up, at the start. Dynamic configs come over the network,
//! and whoever sets one must not have this process read files for it (CVE-2024-31141), so that a
//! reference there stays the text that it is. Messages name the reference and never what it stands
//! for.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use regex::Regex;

use super::properties;

/// Looks at what lies outside of the configuration.
pub trait Outside: fmt::Debug {
    /// Reads a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Finds out where a path leads, links followed.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// Reads a variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// What all keys of providers begin with.
pub(super) const PREFIX: &str = "config.providers.";

/// A file or secret larger than this is a mistake.
const BYTES_MAX: usize = 1 << 20;

/// The providers of a configuration.
#[derive(Debug)]
pub(super) struct Providers<'a> {
    outside: &'a dyn Outside,
    by_name: BTreeMap<String, Provider>,
}

#[derive(Debug)]
enum Provider {
    /// Properties in files.
    File(Allowed),
    /// Files whose content is the value.
    Directory(Allowed),
    /// Variables of the environment.
    Environment(Option<Regex>),
}

/// Where files may lie; empty for anywhere.
type Allowed = Vec<PathBuf>;

impl<'a> Providers<'a> {
    /// Reads which providers there are out of what the operator wrote.
    pub(super) fn read(
        written: &BTreeMap<String, String>,
        outside: &'a dyn Outside,
    ) -> Result<Self, String> {
        let mut by_name = BTreeMap::new();
        let names = written.get("config.providers").map(String::as_str).unwrap_or_default();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let text =
                |key: &str| written.get(&format!("{PREFIX}{name}.{key}")).map(String::as_str);
            let class = text("class")
                .ok_or_else(|| format!("provider {name} has no `{PREFIX}{name}.class`"))?;
            let allowed = || {
                let paths = text("param.allowed.paths").unwrap_or_default().split(',');
                let paths = paths.map(str::trim).filter(|path| !path.is_empty());
                paths.map(PathBuf::from).collect()
            };
            let provider = match class.rsplit('.').next().unwrap_or_default() {
                "FileConfigProvider" => Provider::File(allowed()),
                "DirectoryConfigProvider" => Provider::Directory(allowed()),
                "EnvVarConfigProvider" => {
                    let pattern = text("param.allowlist.pattern").map(|pattern| {
                        Regex::new(&format!("^(?:{pattern})$"))
                            .map_err(|_| format!("the allowlist.pattern of {name} is no pattern"))
                    });
                    Provider::Environment(pattern.transpose()?)
                }
                _ => {
                    return Err(format!(
                        "provider {name} is of class {class}; FileConfigProvider, \
                         DirectoryConfigProvider and EnvVarConfigProvider are served"
                    ));
                }
            };
            by_name.insert(name.to_owned(), provider);
        }
        Ok(Self { outside, by_name })
    }

    /// Puts values in the place of references; `None` if there were none.
    pub(super) fn expand(&self, text: &str) -> Result<Option<String>, String> {
        if self.by_name.is_empty() || !text.contains("${") {
            return Ok(None);
        }
        let (mut expanded, mut rest, mut found) = (String::new(), text, false);
        while let Some((before, behind)) = rest.split_once("${") {
            expanded.push_str(before);
            let reference = behind.split_once('}').and_then(|(inner, after)| {
                let (name, place) = inner.split_once(':')?;
                Some((self.by_name.get(name)?, inner, place, after))
            });
            match reference {
                Some((provider, inner, place, after)) => {
                    let value = self.look_up(provider, place);
                    expanded += &value.map_err(|reason| format!("`${{{inner}}}`: {reason}"))?;
                    (rest, found) = (after, true);
                }
                // Not one of ours, and so it is meant as it stands, as in Kafka.
                None => {
                    expanded.push_str("${");
                    rest = behind;
                }
            }
        }
        expanded.push_str(rest);
        Ok(found.then_some(expanded))
    }

    fn look_up(&self, provider: &Provider, place: &str) -> Result<String, String> {
        let split = |what| {
            place.rsplit_once(':').ok_or_else(|| format!("write it as PROVIDER:PATH:{what}"))
        };
        match provider {
            Provider::Environment(allowed) => {
                let name = place.strip_prefix(':').unwrap_or(place);
                if allowed.as_ref().is_some_and(|allowed| !allowed.is_match(name)) {
                    return Err("allowlist.pattern does not allow this variable".to_owned());
                }
                self.outside.variable(name).ok_or_else(|| "there is no such variable".to_owned())
            }
            Provider::File(allowed) => {
                let (path, key) = split("KEY")?;
                let content = self.content(Path::new(path), allowed)?;
                let (entries, _) = properties::parse(&properties::decode_text(&content));
                let found = entries.into_iter().rev().find(|entry| entry.key == key);
                found.map(|entry| entry.value).ok_or_else(|| "the file has no such key".to_owned())
            }
            Provider::Directory(allowed) => {
                let (directory, file) = split("FILE")?;
                let mut parts = Path::new(file).components();
                let is_name = matches!(parts.next(), Some(Component::Normal(_)));
                if !is_name || parts.next().is_some() {
                    return Err("it names no file of the directory".to_owned());
                }
                let content = self.content(&Path::new(directory).join(file), allowed)?;
                String::from_utf8(content).map_err(|_| "the file is not text".to_owned())
            }
        }
    }

    fn content(&self, path: &Path, allowed: &Allowed) -> Result<Vec<u8>, String> {
        let unread = |error: io::Error| error.to_string();
        // A link, or `..`, must not lead out of what is allowed.
        let real = self.outside.resolve(path).map_err(unread)?;
        let may_read =
            |root: &PathBuf| self.outside.resolve(root).is_ok_and(|root| real.starts_with(root));
        if !allowed.is_empty() && !allowed.iter().any(may_read) {
            return Err("allowed.paths does not allow this file".to_owned());
        }
        let content = self.outside.read(&real).map_err(unread)?;
        if content.len() > BYTES_MAX {
            return Err("the file is larger than any secret".to_owned());
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Layers, Sources, describe_broker, load};

    /// Files and variables in memory; a path that begins with /link leads to /secrets.
    #[derive(Debug)]
    struct Fake;

    impl Outside for Fake {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/secrets/file") => Ok(b"key = hunter2\nrack = hunter3\n".to_vec()),
                Some("/secrets/password") => Ok(b"hunter4".to_vec()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
            let text = path.to_str().unwrap_or_default().replace("/open/../secrets", "/secrets");
            Ok(text.replace("/link", "/secrets").into())
        }

        fn variable(&self, name: &str) -> Option<String> {
            (name.ends_with("_PASSWORD")).then(|| "hunter5".to_owned())
        }
    }

    const CLASS: &str = "org.apache.kafka.common.config.provider";

    fn providers(rest: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut written = BTreeMap::new();
        written.insert("config.providers".to_owned(), "file, env,dir".to_owned());
        for (name, class) in [("file", "File"), ("env", "EnvVar"), ("dir", "Directory")] {
            let class = format!("{CLASS}.{class}ConfigProvider");
            written.insert(format!("{PREFIX}{name}.class"), class);
        }
        for (key, value) in rest {
            written.insert(format!("{PREFIX}{key}"), (*value).to_owned());
        }
        written
    }

    fn expand(rest: &[(&str, &str)], text: &str) -> Result<String, String> {
        let written = providers(rest);
        let providers = Providers::read(&written, &Fake).expect("known classes");
        Ok(providers.expand(text)?.unwrap_or_else(|| text.to_owned()))
    }

    #[test]
    fn references_are_looked_up_wherever_they_stand() {
        for (text, value) in [
            ("${file:/secrets/file:key}", "hunter2"),
            (
                "user_a=\"${dir:/secrets:password}\" x=${env:A_PASSWORD};",
                "user_a=\"hunter4\" x=hunter5;",
            ),
            ("${env::A_PASSWORD}", "hunter5"),
            ("${other:x} $ {} ${file", "${other:x} $ {} ${file"),
        ] {
            assert_eq!(expand(&[], text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_not_read() {
        let paths =
            [("file.param.allowed.paths", "/open,/more"), ("dir.param.allowed.paths", "/open")];
        let pattern = [("env.param.allowlist.pattern", "APP_.*")];
        for (rest, text) in [
            (&paths[..], "${file:/secrets/file:key}"),
            (&paths[..], "${file:/open/../secrets/file:key}"),
            (&paths[..], "${file:/link/file:key}"),
            (&paths[..], "${dir:/secrets:password}"),
            (&[][..], "${dir:/open:../secrets/password}"),
            (&pattern[..], "${env:OTHER_PASSWORD}"),
            (&pattern[..], "${env:XAPP_PASSWORD}"),
            (&[][..], "${env:HOME}"),
            (&[][..], "${file:/secrets/file:none}"),
            (&[][..], "${file:nothing}"),
        ] {
            let error = expand(rest, text).expect_err(text);
            assert!(
                error.starts_with(&format!("`{text}`")) && !error.contains("hunter"),
                "{error}"
            );
        }
        assert_eq!(expand(&pattern, "${env:APP_PASSWORD}").as_deref(), Ok("hunter5"));
    }

    #[test]
    fn secrets_are_in_force_and_never_shown() {
        let mut file: String =
            providers(&[]).iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        file += "broker.rack=${file:/secrets/file:rack}\n";
        let source = |content: &str| {
            let file = ConfigFile { name: "server.properties", content: content.as_bytes() };
            load(Sources { file: Some(file), outside: Some(&Fake), ..Sources::default() })
        };
        let (settings, warnings) = source(&file).expect("valid");
        assert_eq!(settings.node.rack.as_deref(), Some("hunter3"));
        assert!(warnings.is_empty(), "{warnings:?}");
        let described = describe_broker(&Layers::of_statics(&settings.statics));
        let rack = described.iter().find(|it| it.name == "broker.rack").expect("a key");
        assert!(rack.is_sensitive && rack.value.is_none());
        assert!(rack.synonyms.iter().all(|it| it.value.is_none()));
        assert!(!format!("{:?}", settings.statics).contains("hunter"));

        file += "num.partitions=${file:/secrets/file:key}\nlog.dirs=${env:HOME}\n";
        let error = source(&file).expect_err("not a number").to_string();
        assert!(error.contains("${file:/secrets/file:key}"), "{error}");
        assert!(error.contains("there is no such variable"), "{error}");
        assert!(!error.contains("hunter"), "{error}");
    }
}
