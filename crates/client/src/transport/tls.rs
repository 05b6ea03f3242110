//! Links over TLS, with rustls.
//!
//! Like Java, and unlike browsers, we accept a broker whose own certificate is among the trusted
//! ones, whoever signed it: clusters with self-signed certificates are common.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Link, Transport, stream_link};
use crate::BoxFuture;
use crate::config::TlsConfig;
use crate::error::{Error, Result};

/// Opens TLS connections.
#[derive(Clone)]
pub struct TlsTransport {
    connector: TlsConnector,
}

impl TlsTransport {
    /// Reads certificates and keys of `config`.
    pub fn new(config: &TlsConfig) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut versions = Vec::new();
        if config.allow_tls13 {
            versions.push(&rustls::version::TLS13);
        }
        if config.allow_tls12 {
            versions.push(&rustls::version::TLS12);
        }
        let trusted = match &config.trusted {
            Some(pem) => certificates("ssl.truststore", pem)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let verifier = verifier(trusted, config.verify_hostname, &provider)?;
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| Error::config(format!("ssl.enabled.protocols: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let client = match &config.identity {
            Some(identity) => {
                let chain = certificates("ssl.keystore", &identity.chain)?;
                let key = PrivateKeyDer::from_pem_slice(identity.key.expose().as_bytes());
                let key = key.map_err(|_| {
                    Error::config("ssl.keystore holds no readable private key: expected PEM")
                })?;
                let is_p521 = key.secret_der().windows(P521.len()).any(|bytes| bytes == P521);
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    Error::config(match is_p521 {
                        true => {
                            "ssl.keystore holds a key on the curve P-521, for which there is no \
                            cryptography here: RSA, P-256, P-384 or Ed25519 will do"
                                .to_owned()
                        }
                        false => format!("ssl.keystore: {error}"),
                    })
                })?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(client)) })
    }

    /// Opens an encrypted byte stream.
    pub(crate) async fn open(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no host name"))
        })?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(name, stream).await
    }
}

impl Transport for TlsTransport {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        frame_bytes_max: usize,
    ) -> BoxFuture<'a, io::Result<Link>> {
        Box::pin(async move {
            let stream = self.open(host, port).await?;
            let (reader, writer) = tokio::io::split(stream);
            Ok(stream_link(reader, writer, frame_bytes_max))
        })
    }
}

/// The name of the curve P-521 in keys, 1.3.132.0.35 in DER.
const P521: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::config(format!("{what} holds no certificate in PEM"))),
        Err(error) => Err(Error::config(format!("{what}: {error}"))),
    }
}

fn verifier(
    trusted: Vec<CertificateDer<'static>>,
    verify_hostname: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Verifier> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let by_roots =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let by_roots = by_roots.map_err(|error| Error::config(format!("ssl.truststore: {error}")))?;
    Ok(Verifier { by_roots, trusted, verify_hostname })
}

/// Judges brokers' certificates.
#[derive(Debug)]
struct Verifier {
    by_roots: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    verify_hostname: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let verified = self.by_roots.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let is_trusted_itself = self.trusted.iter().any(|trusted| trusted == end_entity);
        match verified {
            Ok(verified) => Ok(verified),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.verify_hostname => Ok(ServerCertVerified::assertion()),
            Err(
                error @ rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. }
                    | CertificateError::Expired
                    | CertificateError::ExpiredContext { .. },
                ),
            ) => Err(error),
            Err(_) if is_trusted_itself => {
                if self.verify_hostname {
                    let parsed = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&parsed, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.by_roots.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.by_roots.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_roots.supported_verify_schemes()
    }
}
