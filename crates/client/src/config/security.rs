//! How clients protect their connections and prove who they are, in Kafka's `ssl.*` and `sasl.*`
//! names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use fleuve_keystore::{Passwords, StoreError, StoreKind};

use super::Properties;
use crate::BoxFuture;
use crate::error::{Error, Result};

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// `security.protocol`, with what it needs.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Encrypts connections, as with `SSL` and `SASL_SSL`.
    pub tls: Option<TlsConfig>,
    /// Authenticates connections, as with `SASL_PLAINTEXT` and `SASL_SSL`.
    pub sasl: Option<SaslConfig>,
}

/// Settings of encrypted connections; certificates and keys are PEM.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The certificates that brokers' certificates must descend from; the system's without any.
    pub trusted: Option<Vec<u8>>,
    /// Our own certificate chain and key, for brokers with `ssl.client.auth`.
    pub identity: Option<TlsIdentity>,
    /// `ssl.endpoint.identification.algorithm`: whether a broker's certificate must name its host.
    pub verify_hostname: bool,
    /// Whether `ssl.enabled.protocols` has TLSv1.2.
    pub allow_tls12: bool,
    /// Whether `ssl.enabled.protocols` has TLSv1.3.
    pub allow_tls13: bool,
}

/// A certificate chain, our own first, and its key.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    /// The chain.
    pub chain: Vec<u8>,
    /// The key.
    pub key: Secret,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            trusted: None,
            identity: None,
            verify_hostname: true,
            allow_tls12: true,
            allow_tls13: true,
        }
    }
}

/// `sasl.mechanism`, with the credentials.
#[derive(Clone, Debug)]
pub enum SaslConfig {
    /// `PLAIN`: name and password as they are.
    Plain {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `SCRAM-SHA-256`: the password stays here.
    ScramSha256(ScramCredentials),
    /// `SCRAM-SHA-512`: the password stays here.
    ScramSha512(ScramCredentials),
    /// `OAUTHBEARER`: a token that somebody else issues.
    OAuthBearer(OAuthConfig),
}

/// A user of SCRAM.
#[derive(Clone, Debug)]
pub struct ScramCredentials {
    /// The user, or the id of a delegation token.
    pub user: String,
    /// The password, or the token's HMAC.
    pub password: Secret,
    /// Whether these are of a delegation token.
    pub is_delegation_token: bool,
}

/// Settings of `OAUTHBEARER`.
#[derive(Clone, Debug)]
pub struct OAuthConfig {
    /// Where tokens come from.
    pub source: TokenSource,
    /// SASL extensions that go with every token.
    pub extensions: Vec<(String, String)>,
}

/// Where tokens come from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// Always this one.
    Static(Secret),
    /// A file, read anew for every authentication.
    File(PathBuf),
    /// A token without a signature, for tests: brokers accept it only if told to.
    Unsecured {
        /// The principal.
        subject: String,
    },
    /// The client-credentials grant of an authorization server.
    ClientCredentials {
        /// `sasl.oauthbearer.token.endpoint.url`.
        endpoint: String,
        /// The client's id there.
        client_id: String,
        /// The client's secret there.
        client_secret: Secret,
        /// The scope to ask for.
        scope: Option<String>,
    },
    /// The application's own way.
    Custom(Arc<dyn TokenProvider>),
}

/// Provides tokens for `OAUTHBEARER`.
pub trait TokenProvider: fmt::Debug + Send + Sync + 'static {
    /// Returns a token that is valid now.
    fn token(&self) -> BoxFuture<'_, Result<Secret>>;
}

impl Security {
    pub(super) fn from_properties(properties: &Properties) -> Result<Self> {
        let protocol = properties.get("security.protocol").unwrap_or("PLAINTEXT").trim();
        let (tls, sasl) = match protocol.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => (false, false),
            "SSL" => (true, false),
            "SASL_PLAINTEXT" => (false, true),
            "SASL_SSL" => (true, true),
            _ => {
                return Err(Error::config(format!(
                    "security.protocol={protocol}: expected PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
                )));
            }
        };
        Ok(Self {
            tls: tls.then(|| TlsConfig::from_properties(properties)).transpose()?,
            sasl: sasl.then(|| SaslConfig::from_properties(properties)).transpose()?,
        })
    }
}

impl TlsConfig {
    fn from_properties(properties: &Properties) -> Result<Self> {
        let mut config = Self::default();
        if let Some(algorithm) = properties.get("ssl.endpoint.identification.algorithm") {
            config.verify_hostname = match algorithm.trim() {
                "" | "none" => false,
                name if name.eq_ignore_ascii_case("https") => true,
                other => {
                    return Err(Error::config(format!(
                        "ssl.endpoint.identification.algorithm={other}: expected https or nothing"
                    )));
                }
            };
        }
        if let Some(protocols) = properties.get("ssl.enabled.protocols") {
            let named = |name: &str| protocols.split(',').any(|text| text.trim() == name);
            (config.allow_tls12, config.allow_tls13) = (named("TLSv1.2"), named("TLSv1.3"));
            if !config.allow_tls12 && !config.allow_tls13 {
                return Err(Error::config(format!(
                    "ssl.enabled.protocols={protocols}: expected TLSv1.2 or TLSv1.3 among them"
                )));
            }
        }
        config.trusted = match properties.get("ssl.truststore.certificates") {
            Some(pem) => Some(pem.as_bytes().to_vec()),
            None => Store::open(properties, "ssl.truststore")?.map(|s| s.trusted()).transpose()?,
        };
        let key = properties.get("ssl.keystore.key");
        let chain = properties.get("ssl.keystore.certificate.chain");
        config.identity = match (chain, key) {
            (Some(chain), Some(key)) => {
                let passwords = Passwords { store: None, key: properties.get("ssl.key.password") };
                // Together, because a key on an elliptic curve may need what its certificate says.
                let both = format!("{key}\n{chain}");
                let key =
                    fleuve_keystore::key_and_chain(StoreKind::Pem, both.as_bytes(), passwords)
                        .map_err(|error| Error::config(format!("ssl.keystore.key: {error}")))?;
                let key = Secret::new(String::from_utf8_lossy(&key));
                Some(TlsIdentity { chain: chain.as_bytes().to_vec(), key })
            }
            (None, None) => {
                Store::open(properties, "ssl.keystore")?.map(|s| s.identity()).transpose()?
            }
            _ => {
                return Err(Error::config(
                    "ssl.keystore.certificate.chain and ssl.keystore.key belong together",
                ));
            }
        };
        Ok(config)
    }
}

/// The file that `prefix.location` names.
struct Store<'a> {
    properties: &'a Properties,
    prefix: &'a str,
    location: &'a str,
    kind: StoreKind,
    bytes: Vec<u8>,
}

impl<'a> Store<'a> {
    fn open(properties: &'a Properties, prefix: &'a str) -> Result<Option<Self>> {
        let location_key = format!("{prefix}.location");
        let Some(location) = properties.get(&location_key) else { return Ok(None) };
        let kind = properties.get(&format!("{prefix}.type")).unwrap_or("JKS").trim();
        let kinds =
            [("PEM", StoreKind::Pem), ("PKCS12", StoreKind::Pkcs12), ("JKS", StoreKind::Jks)];
        let said = kinds.iter().find(|(name, _)| kind.eq_ignore_ascii_case(name));
        let (_, said) = said.ok_or_else(|| {
            Error::config(format!("{prefix}.type={kind}: expected PEM, PKCS12 or JKS"))
        })?;
        let bytes = std::fs::read(location)
            .map_err(|error| Error::config(format!("{location_key}={location}: {error}")))?;
        Ok(Some(Self { properties, prefix, location, kind: said.of(&bytes), bytes }))
    }

    fn password(&self) -> Option<&'a str> {
        self.properties.get(&format!("{}.password", self.prefix))
    }

    fn trusted(&self) -> Result<Vec<u8>> {
        let read = fleuve_keystore::trusted(self.kind, &self.bytes, self.password());
        read.map_err(|error| self.refused(error))
    }

    fn identity(&self) -> Result<TlsIdentity> {
        let passwords =
            Passwords { store: self.password(), key: self.properties.get("ssl.key.password") };
        let read = fleuve_keystore::key_and_chain(self.kind, &self.bytes, passwords);
        let both = read.map_err(|error| self.refused(error))?;
        Ok(TlsIdentity { key: Secret::new(String::from_utf8_lossy(&both)), chain: both })
    }

    fn refused(&self, error: StoreError) -> Error {
        Error::config(format!("{}.location={}: {error}", self.prefix, self.location))
    }
}

impl SaslConfig {
    fn from_properties(properties: &Properties) -> Result<Self> {
        let jaas = properties.get("sasl.jaas.config").map(Jaas::parse).transpose()?;
        let option = |name: &str| jaas.as_ref().and_then(|jaas| jaas.option(name));
        let needed = |name: &str| {
            option(name)
                .map(str::to_owned)
                .ok_or_else(|| Error::config(format!("sasl.jaas.config needs the option {name}")))
        };
        // GSSAPI is Kafka's default, which nobody means who leaves the mechanism out.
        let mechanism = properties.get("sasl.mechanism").map_or("", str::trim);
        let scram = || -> Result<ScramCredentials> {
            Ok(ScramCredentials {
                user: needed("username")?,
                password: Secret(needed("password")?),
                is_delegation_token: option("tokenauth") == Some("true"),
            })
        };
        match mechanism {
            "PLAIN" => {
                Ok(Self::Plain { user: needed("username")?, password: Secret(needed("password")?) })
            }
            "SCRAM-SHA-256" => Ok(Self::ScramSha256(scram()?)),
            "SCRAM-SHA-512" => Ok(Self::ScramSha512(scram()?)),
            "OAUTHBEARER" => {
                OAuthConfig::from_properties(properties, jaas.as_ref()).map(Self::OAuthBearer)
            }
            "GSSAPI" => Err(Error::config(
                "sasl.mechanism=GSSAPI: this client has no Kerberos; it has PLAIN, SCRAM-SHA-256, \
                 SCRAM-SHA-512 and OAUTHBEARER",
            )),
            _ => Err(Error::config(format!(
                "sasl.mechanism={mechanism}: expected PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or \
                 OAUTHBEARER"
            ))),
        }
    }

    /// Returns the mechanism's name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "PLAIN",
            Self::ScramSha256(_) => "SCRAM-SHA-256",
            Self::ScramSha512(_) => "SCRAM-SHA-512",
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }
}

impl OAuthConfig {
    fn from_properties(properties: &Properties, jaas: Option<&Jaas>) -> Result<Self> {
        let option = |name: &str| jaas.and_then(|jaas| jaas.option(name));
        let extensions = jaas.map_or_else(Vec::new, |jaas| {
            let options = jaas.options.iter();
            let extensions = options.filter_map(|(name, value)| {
                Some((name.strip_prefix("extension_")?.to_owned(), value.clone()))
            });
            extensions.collect()
        });
        let endpoint = properties.get("sasl.oauthbearer.token.endpoint.url");
        let source = match (endpoint, option("unsecuredLoginStringClaim_sub")) {
            (Some(endpoint), _) if endpoint.starts_with("file:") => {
                let path = endpoint.trim_start_matches("file:").trim_start_matches("//");
                TokenSource::File(path.into())
            }
            (Some(endpoint), _) => {
                let either = |key: &str, old: &str| {
                    properties.get(key).or_else(|| option(old)).map(str::to_owned)
                };
                let missing =
                    |key: &str| Error::config(format!("{key} is needed with a token endpoint"));
                let id_key = "sasl.oauthbearer.client.credentials.client.id";
                let secret_key = "sasl.oauthbearer.client.credentials.client.secret";
                TokenSource::ClientCredentials {
                    endpoint: endpoint.to_owned(),
                    client_id: either(id_key, "clientId").ok_or_else(|| missing(id_key))?,
                    client_secret: either(secret_key, "clientSecret")
                        .map(Secret)
                        .ok_or_else(|| missing(secret_key))?,
                    scope: either("sasl.oauthbearer.scope", "scope"),
                }
            }
            (None, Some(subject)) => TokenSource::Unsecured { subject: subject.to_owned() },
            (None, None) => {
                return Err(Error::config(
                    "sasl.mechanism=OAUTHBEARER needs sasl.oauthbearer.token.endpoint.url \
                     (https: or file:)",
                ));
            }
        };
        Ok(Self { source, extensions })
    }
}

/// The options of the one entry in `sasl.jaas.config`:
/// `org.apache.kafka...LoginModule required name="value" ...;`.
struct Jaas {
    options: Vec<(String, String)>,
}

impl Jaas {
    fn parse(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            // Never the text itself: it holds passwords.
            Error::config(format!(
                "sasl.jaas.config: {what}; expected MODULE required name=\"value\" ...;"
            ))
        };
        let mut characters = text.trim().chars().peekable();
        let mut words = Vec::new();
        let mut ended = false;
        while let Some(&character) = characters.peek() {
            match character {
                ';' => {
                    ended = true;
                    break;
                }
                character if character.is_whitespace() => drop(characters.next()),
                _ => {
                    let mut word = String::new();
                    let mut quote = None;
                    while let Some(&character) = characters.peek() {
                        match (quote, character) {
                            (Some(open), character) if character == open => quote = None,
                            (Some(_), '\\') => {
                                characters.next();
                                word.extend(characters.peek());
                            }
                            (Some(_), character) => word.push(character),
                            (None, '"' | '\'') => quote = Some(character),
                            (None, ';') => break,
                            (None, character) if character.is_whitespace() => break,
                            (None, character) => word.push(character),
                        }
                        characters.next();
                    }
                    if quote.is_some() {
                        return Err(bad("a quote is not closed"));
                    }
                    words.push(word);
                }
            }
        }
        if !ended {
            return Err(bad("the semicolon at the end is missing"));
        }
        let mut words = words.into_iter();
        words.next().ok_or_else(|| bad("the login module is missing"))?;
        words.next().ok_or_else(|| bad("the flag is missing"))?;
        let options = words.map(|word| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(bad("an option without a value")),
        });
        Ok(Self { options: options.collect::<Result<_>>()? })
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(text: &str) -> Result<Security> {
        Security::from_properties(&Properties::parse(text).expect("known keys"))
    }

    #[test]
    fn nothing_as_the_algorithm_leaves_names_unchecked_as_in_java() {
        for (text, checked) in [
            ("", true),
            ("ssl.endpoint.identification.algorithm=", false),
            ("ssl.endpoint.identification.algorithm =  ", false),
            ("ssl.endpoint.identification.algorithm", false),
            ("ssl.endpoint.identification.algorithm=HTTPS", true),
        ] {
            let tls = security(&format!("security.protocol=SSL\n{text}")).expect(text).tls;
            assert_eq!(tls.expect("encrypted").verify_hostname, checked, "{text}");
        }
        let error = security("security.protocol=SSL\nssl.endpoint.identification.algorithm=LDAPS");
        assert!(error.expect_err("unknown").to_string().contains("expected https or nothing"));
    }

    /// Made by keytool of JDK 17 and openssl; the passwords are in the commands' place here.
    #[test]
    fn stores_of_javas_tools_are_read_by_kafkas_names() {
        let stores = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/stores");
        let open = |name: &str, kind: &str, rest: &str| {
            security(&format!(
                "security.protocol=SSL\nssl.keystore.location={stores}/{name}\n\
                 ssl.keystore.password=changeit\nssl.keystore.type={kind}\n{rest}"
            ))
        };
        let mut chains = Vec::new();
        for (name, kind, rest) in [
            ("client.p12", "PKCS12", ""),
            ("client.p12", "JKS", ""),
            ("client.jks", "JKS", "ssl.key.password=another"),
            ("client.jks", "PKCS12", "ssl.key.password=another"),
            ("client.pem", "PEM", "ssl.key.password=changeit"),
        ] {
            let tls = open(name, kind, rest).expect(name).tls.expect("encrypted");
            crate::transport::TlsTransport::new(&tls).expect("a key that fits its certificate");
            let pem = String::from_utf8(tls.identity.expect("a key").chain).expect("PEM");
            let begin = pem.find("-----BEGIN CERTIFICATE").expect("a certificate");
            let certificate: String = pem[begin..].split_whitespace().collect();
            let end = certificate.find("-----ENDCERTIFICATE").expect("its end");
            chains.push(certificate[..end].to_owned());
        }
        assert!(chains.iter().all(|chain| *chain == chains[0]), "one certificate in all");
        for (name, kind, rest, expected) in [
            ("client.p12", "PKCS12", "ssl.keystore.password=wrong", "password is wrong"),
            ("client.jks", "JKS", "ssl.keystore.password=wrong", "password is wrong"),
            ("client.jks", "JKS", "ssl.key.password=wrong", "password of the private key"),
            ("client.pem", "PEM", "ssl.key.password=wrong", "password of the private key"),
            ("trust.p12", "PKCS12", "", "no private key"),
            ("client.p12", "BCFKS", "", "expected PEM, PKCS12 or JKS"),
        ] {
            let error = open(name, kind, rest).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("wrong\n"), "{error}");
        }
        let curve = security(&format!(
            "security.protocol=SSL\nssl.keystore.location={stores}/p521.pem\nssl.keystore.type=PEM"
        ));
        let curve = curve.expect("read").tls.expect("encrypted");
        let error = crate::transport::TlsTransport::new(&curve).err().expect("cannot sign");
        assert!(error.to_string().contains("P-521"), "{error}");
        for kind in ["PKCS12", "JKS"] {
            let tls = security(&format!(
                "security.protocol=SSL\nssl.truststore.location={stores}/trust.p12\n\
                 ssl.truststore.password=changeit\nssl.truststore.type={kind}"
            ));
            let trusted = tls.expect("read").tls.expect("encrypted").trusted.expect("trusted");
            assert!(trusted.starts_with(b"-----BEGIN CERTIFICATE"));
        }
    }

    #[test]
    fn kafkas_properties_name_mechanisms_and_credentials() {
        let text = "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=\
            org.apache.kafka.common.security.scram.ScramLoginModule required username=\"ada\" \
            password=\"a \\\\\"b\\\\\"; c\" tokenauth=\"true\";";
        let security = security(text).expect("valid");
        assert!(security.tls.is_some_and(|tls| tls.verify_hostname));
        let Some(SaslConfig::ScramSha512(credentials)) = security.sasl else { panic!("SCRAM") };
        assert_eq!(credentials.user, "ada");
        assert_eq!(credentials.password.expose(), "a \"b\"; c");
        assert!(credentials.is_delegation_token);
    }

    #[test]
    fn nothing_shows_a_secret() {
        let text = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=\
            X required username=u password=hunter2;";
        let properties = Properties::parse(text).expect("known keys");
        let security = Security::from_properties(&properties).expect("valid");
        for shown in [format!("{security:?}"), format!("{properties:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for broken in ["X required password=hunter2", "X required password=\"hunter2;", "hunter2;"]
        {
            let text = format!(
                "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={broken}"
            );
            let properties = Properties::parse(&text).expect("known keys");
            let error = Security::from_properties(&properties).expect_err("broken").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, expected) in [
            ("security.protocol=TLS", "expected PLAINTEXT, SSL"),
            ("security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI", "no Kerberos"),
            ("security.protocol=SASL_SSL\nsasl.mechanism=NTLM", "expected PLAIN, SCRAM"),
            (
                "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=X required;",
                "needs the option username",
            ),
            ("security.protocol=SSL\nssl.truststore.location=x", "ssl.truststore.location=x: "),
            ("security.protocol=SSL\nssl.keystore.key=x", "belong together"),
            ("security.protocol=SSL\nssl.enabled.protocols=SSLv3", "expected TLSv1.2"),
        ] {
            let error = security(text).expect_err("incomplete").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
