//! What the owner says about an issuer.

use std::{path::PathBuf, time::Duration};

use outgate_journey::policy::CredentialSource;

use crate::policy::SessionPolicy;

/// One issuer whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// One of these must be among the `aud` of a token; at least one.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// The signature algorithms that are taken; empty: [`Algorithm::DEFAULT`].
    pub algorithms: Vec<Algorithm>,
    /// The way to the claim that tells sessions apart; see [`crate::claim()`].
    pub session_claim: String,
    /// How long after its `iat` a token is good at most; with it, a token must have one.
    pub max_age: Option<Duration>,
    /// A PEM file with the roots of its servers; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Where to ask about tokens that are no JWT.
    pub introspection: Option<IntrospectionConfig>,
    /// What its sessions are confined to.
    pub policy: SessionPolicy,
}

impl IssuerConfig {
    /// An issuer whose keys are found by discovery, whose `sub` is the session, and nothing further.
    #[must_use]
    pub fn new(issuer: &str, audience: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: vec![audience.to_owned()],
            keys: KeySource::Discovery,
            algorithms: Vec::new(),
            session_claim: "sub".to_owned(),
            max_age: None,
            ca: None,
            introspection: None,
            policy: SessionPolicy::Unconfined,
        }
    }
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Where the issuer's metadata say (OpenID Connect Discovery 1.0 section 4), which must be of the issuer's own
    /// origin: the owner named that host and no other. An issuer that keeps its keys elsewhere needs
    /// [`KeySource::JwksUrl`].
    Discovery,
    /// At an `https` URL.
    JwksUrl(String),
    /// In a file, which is read again each minute.
    JwksFile(PathBuf),
}

/// Token introspection (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionConfig {
    /// The endpoint, an `https` URL.
    pub url: String,
    /// The gateway's name there.
    pub client_id: String,
    /// Where the gateway's secret there comes from; read for each call.
    pub client_secret: CredentialSource,
    /// How long an answer is good for; more than 60 seconds count as 60.
    pub cache_for: Duration,
    /// A PEM file with the roots of the endpoint; `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// A signature algorithm with a public key (RFC 7518 section 3.1, RFC 8037). There are no others: with a shared secret
/// whoever can check a token can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519, also by the name that RFC 9864 gives it.
    EdDsa,
}

impl Algorithm {
    /// What is taken where nothing is said.
    pub const DEFAULT: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The algorithm of an `alg`, which is compared exactly.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "Ed25519" {
            return Some(Self::EdDsa);
        }
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    /// The `alg` of a token's header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// How long is waited for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a request waits for what its token needs. Default: 6 s.
    pub wait: Duration,
    /// How long one call to an issuer may take. Default: 4 s.
    pub call: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(6),
            call: Duration::from_secs(4),
        }
    }
}
