//! Tokens of OAUTHBEARER: who signed them, for whom, and until when (KIP-255, KIP-768).
//!
//! Nothing is taken on trust: a token needs a signature by a key of the issuer, by an algorithm
//! with a private key; issuer and audience as the operator wrote them; and an end that has not
//! come. There are no unsigned tokens, and no algorithms with a shared secret, whose verification
//! key could then sign.
//!
//! Keys come from a JWKS document ([`KeySet`]); fetching it is the broker's business.

mod keys;
mod token;

#[cfg(test)]
mod tests;

pub use keys::{KeySet, KeySetError};
pub use token::{Bearer, BearerError, Expectations};
