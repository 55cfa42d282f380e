//! What a session token is, whose tokens are taken, and how long a session lives.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use outgate_journey::{policy::CredentialSource, session::PolicyName, tripwire::Tripwire};

use crate::WebUrl;

/// Session tokens and the sessions that they prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// A token's life, 1 second to 60 minutes.
    pub ttl: Duration,
    /// How long a session may do nothing before it is over, 1 second to 15 minutes.
    pub idle: Duration,
    /// The longest that a session may live, 1 second to 12 hours.
    pub lifetime: Option<Duration>,
    /// What is an anomaly, which the policy knows too.
    pub tripwire: Option<Tripwire>,
    /// What is kept of the latest requests of each session.
    pub view: SessionView,
    /// Others whose tokens are taken for session tokens; no issuer occurs twice.
    pub issuers: Vec<TrustedIssuer>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30 * 60),
            idle: Duration::from_secs(15 * 60),
            lifetime: None,
            tripwire: None,
            view: SessionView::default(),
            issuers: Vec::new(),
        }
    }
}

/// What is kept, in memory, of the latest requests of each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// How many of each, 0 to 1000.
    pub requests: u32,
    /// Bytes of each decrypted body, 0 to 16 KiB; 0: no body is kept.
    pub bodies: u32,
    /// Bytes of all sessions together, 1 MiB to 1 GiB.
    pub memory: u32,
}

impl Default for SessionView {
    fn default() -> Self {
        Self {
            requests: 50,
            bodies: 0,
            memory: 32 << 20,
        }
    }
}

/// One issuer whose tokens are taken for session tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// The `iss` of its tokens, exactly.
    pub issuer: String,
    /// One of these must be among the `aud` of a token; at least one.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: IssuerKeys,
    /// The signature algorithms that are taken; at least one.
    pub algorithms: Vec<Algorithm>,
    /// The way to the claim that tells sessions apart: `sub`, `kubernetes.io.pod.uid`.
    pub session_claim: String,
    /// How long ago a token may have been issued, 1 minute to 24 hours.
    pub max_age: Duration,
    /// A PEM file with the roots of its servers; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What its sessions are confined to.
    pub policy: IssuerPolicy,
    /// Where tokens are asked about that are no JWT.
    pub introspection: Option<Introspection>,
}

/// What an issuer's sessions are confined to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerPolicy {
    /// Nothing less than the file lets out.
    Unconfined,
    /// The same policy for all of them.
    One(PolicyName),
    /// A policy for each key; a token whose key is not there is refused.
    ByClaim {
        /// The ways to the claims that make the key, with `/` between their values; at least one.
        claims: Vec<String>,
        /// What each key is confined to; at least one.
        map: BTreeMap<String, PolicyName>,
    },
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerKeys {
    /// Below the issuer, which is an `https` URL then (OpenID Connect Discovery 1.0, section 4).
    Discovery,
    /// At a URL.
    Url(WebUrl),
    /// In a file.
    File(PathBuf),
}

/// A signature algorithm with a public key (RFC 7518, RFC 8037). There are no others: one with a shared secret would
/// let whoever checks a token make one.
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
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// What is taken where nothing is said.
    pub const DEFAULT: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

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

/// Token introspection (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// The endpoint.
    pub url: WebUrl,
    /// The gateway's user name there.
    pub client_id: String,
    /// Where its password there comes from.
    pub client_secret: CredentialSource,
    /// How long an answer is good for, 1 to 60 seconds.
    pub cache: Duration,
    /// A PEM file with the roots of the endpoint; the issuer's if the file names none; `None`: the system's.
    pub ca: Option<PathBuf>,
}
