//! Who somebody is, and what they may do.
//!
//! Everything here is pure: bytes and facts go in, verdicts come out. Sockets, files and the moment
//! at which a verdict is asked for are the broker's business. Begin at [`sasl`] for how somebody
//! proves who they are, and at [`acl`] for what they may do.

pub mod acl;
mod certificate;
mod jaas;
pub mod keystore;
mod mapping;
pub mod oauth;
mod principal;
pub mod sasl;
mod tls;

pub use certificate::{CertificateNames, distinguished_name};
pub use jaas::{Jaas, JaasError};
pub use mapping::{PrincipalMapping, PrincipalMappingError};
pub use principal::Principal;
pub use tls::{ClientAuth, TlsError, TlsMaterial, server_config};
