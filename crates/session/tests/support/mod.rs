//! A ring in a folder of its own, and the means to forge: its private key, read from its file.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outgate_journey::session::{
    SessionId, Terms, TokenClaims, TokenFault, TokenVerifier, UnixSeconds,
};
use outgate_session::{KeyRing, Verifier};
use serde_json::{Value, json};

pub(crate) const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
pub(crate) const HALF_HOUR: Duration = Duration::from_secs(1800);

pub(crate) fn at(offset: i64) -> UnixSeconds {
    UnixSeconds(NOW.0.checked_add_signed(offset).unwrap())
}

pub(crate) struct Fixture {
    root: tempfile::TempDir,
    pub(crate) ring: KeyRing,
    pub(crate) verifier: Verifier,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ring = open(&root.path().join("keys"), NOW);
        let verifier = ring.verifier();
        Self {
            root,
            ring,
            verifier,
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("keys")
    }

    /// The files of the ring, oldest key first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    pub(crate) fn newest_key(&self) -> Stolen {
        Stolen::read(self.files().last().unwrap())
    }

    pub(crate) fn mint(&self) -> String {
        let minted = self
            .ring
            .mint(&session(), &Terms::default(), HALF_HOUR, NOW)
            .unwrap();
        minted.token.expose().to_owned()
    }

    pub(crate) fn verify(
        &self,
        token: &str,
        now: UnixSeconds,
    ) -> Result<Arc<TokenClaims>, Refusal> {
        self.verifier.verify(token, now).map_err(Refusal::from)
    }
}

/// [`TokenFault`] without the claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Invalid(&'static str),
    Expired,
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        match fault {
            TokenFault::Invalid(why) => Self::Invalid(why),
            TokenFault::Expired(_) => Self::Expired,
        }
    }
}

pub(crate) fn open(dir: &Path, now: UnixSeconds) -> KeyRing {
    KeyRing::open(dir, "outgate-test", "outgate", now).unwrap()
}

pub(crate) fn session() -> SessionId {
    SessionId::parse("s_4fz8").unwrap()
}

/// A private key in the wrong hands.
pub(crate) struct Stolen {
    pub(crate) pair: Ed25519KeyPair,
    pub(crate) kid: String,
}

impl Stolen {
    pub(crate) fn read(path: &Path) -> Self {
        let der = outgate_state::private_key_from_pem(&fs::read(path).unwrap()).unwrap();
        Self::new(Ed25519KeyPair::from_pkcs8(&der).unwrap())
    }

    pub(crate) fn fresh() -> Self {
        Self::new(Ed25519KeyPair::generate().unwrap())
    }

    fn new(pair: Ed25519KeyPair) -> Self {
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes());
        Self {
            pair,
            kid: URL_SAFE_NO_PAD.encode(hash),
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.pair.public_key()) })
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.kid })
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = unsigned(header, claims);
        format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()))
        )
    }
}

pub(crate) fn unsigned(header: &str, claims: &str) -> String {
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    )
}

/// Good claims at [`NOW`].
pub(crate) fn claims() -> Value {
    json!({
        "iss": "outgate-test", "aud": "outgate", "sub": "s_4fz8", "jti": "t_1", "iat": NOW.0, "exp": NOW.0 + 1800
    })
}

/// The object with one member set, or removed by `Value::Null`.
pub(crate) fn with(mut object: Value, member: &str, value: impl Into<Value>) -> Value {
    let members = object.as_object_mut().unwrap();
    match value.into() {
        Value::Null => members.remove(member),
        value => members.insert(member.to_owned(), value),
    };
    object
}
