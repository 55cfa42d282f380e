//! One Ed25519 key, its id and its file.
//!
//! A file is named `<sequence>-<created>.pem`. The sequence says which key signs (the highest), not the clock, so a
//! clock that was set back cannot bring an old key to the fore.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outgate_journey::session::UnixSeconds;
use outgate_state as state;
use serde_json::json;
use zeroize::Zeroizing;

use crate::ring::KeyError;

/// The half of a key that verifies.
pub(crate) struct PublicKey {
    parsed: ParsedPublicKey,
    raw: [u8; 32],
    /// RFC 7638 thumbprint.
    pub(crate) kid: Arc<str>,
}

impl PublicKey {
    fn of(raw: &[u8]) -> Option<Self> {
        Some(Self {
            parsed: ParsedPublicKey::new(&ED25519, raw).ok()?,
            raw: raw.try_into().ok()?,
            kid: thumbprint(raw).into(),
        })
    }

    /// Reads a JWK (RFC 8037 section 2) that says of itself what it is: another kind of key, or one under a name that
    /// is not its thumbprint, is none of ours.
    pub(crate) fn from_jwk(jwk: &serde_json::Value) -> Option<Self> {
        let member = |name| jwk.get(name)?.as_str();
        if member("kty")? != "OKP" || member("crv")? != "Ed25519" {
            return None;
        }
        let key = Self::of(&URL_SAFE_NO_PAD.decode(member("x")?).ok()?)?;
        (member("kid")? == &*key.kid).then_some(key)
    }

    /// Whether the signature over the message is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// As a JWK (RFC 8037 section 2).
    pub(crate) fn jwk(&self) -> serde_json::Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(self.raw),
            "kid": &*self.kid,
            "use": "sig",
            "alg": "EdDSA",
        })
    }
}

/// A signing key with what is derived from it.
pub(crate) struct TokenKey {
    pair: Ed25519KeyPair,
    pub(crate) public: Arc<PublicKey>,
    /// The encoded JOSE header of every token that this key signs.
    header: String,
    pub(crate) sequence: u64,
    pub(crate) created: UnixSeconds,
    /// `None`: in memory only.
    path: Option<PathBuf>,
}

impl TokenKey {
    /// Makes a key that no file holds.
    pub(crate) fn in_memory(sequence: u64, created: UnixSeconds) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?;
        Self::assemble(pair, sequence, created, None)
    }

    /// Makes a key and writes its file; never over one that is present.
    pub(crate) fn create(
        dir: &Path,
        sequence: u64,
        created: UnixSeconds,
    ) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?;
        let path = dir.join(format!("{sequence:06}-{}.pem", created.0));
        let pem = state::private_key_to_pem(pkcs8.as_ref());
        match state::create_private_exclusive(&path, pem.as_bytes())? {
            state::Created::Created => Self::assemble(pair, sequence, created, Some(path)),
            state::Created::Existed => Err(KeyError::Taken { path }),
        }
    }

    /// Reads a key's file. `Ok(None)` where the name is not that of a key: a temporary file, or not `.pem`.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(None);
        };
        let Some(stem) = name.strip_suffix(".pem").filter(|_| !name.starts_with('.')) else {
            return Ok(None);
        };
        let (sequence, created) = stem
            .split_once('-')
            .and_then(|(sequence, created)| Some((sequence.parse().ok()?, created.parse().ok()?)))
            .ok_or_else(|| KeyError::Unreadable {
                path: path.to_owned(),
                why: "its name is not <number>-<unix time>.pem",
            })?;
        let text = state::read_private(path)?;
        let unreadable = || KeyError::Unreadable {
            path: path.to_owned(),
            why: "not an Ed25519 key in PKCS#8 PEM form",
        };
        let der = state::private_key_from_pem(&text).ok_or_else(unreadable)?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| unreadable())?;
        Self::assemble(pair, sequence, UnixSeconds(created), Some(path.to_owned())).map(Some)
    }

    fn assemble(
        pair: Ed25519KeyPair,
        sequence: u64,
        created: UnixSeconds,
        path: Option<PathBuf>,
    ) -> Result<Self, KeyError> {
        let public = PublicKey::of(pair.public_key().as_ref()).ok_or(KeyError::Crypto)?;
        let kid = &public.kid;
        let header =
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}"}}"#));
        Ok(Self {
            pair,
            public: Arc::new(public),
            header,
            sequence,
            created,
            path,
        })
    }

    /// Signs claims (JSON) into a token.
    pub(crate) fn sign(&self, claims: &[u8]) -> Result<Zeroizing<String>, KeyError> {
        // Header, two dots, claims, 86 characters of signature: sized up front, because a string that grows leaves
        // its outgrown copies behind unwiped.
        let length = self.header.len() + claims.len().div_ceil(3) * 4 + 88;
        let mut token = Zeroizing::new(String::with_capacity(length));
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self
            .pair
            .try_sign(token.as_bytes())
            .map_err(|_| KeyError::Crypto)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Deletes the file. One that is already gone is no error.
    pub(crate) fn delete(&self) -> Result<(), KeyError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(state::StateError::Io {
                    doing: "delete",
                    path: path.clone(),
                    source,
                }
                .into())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, [redacted])", self.public.kid)
    }
}

/// RFC 7638: SHA-256 over the required members in order, base64url.
fn thumbprint(public: &[u8]) -> String {
    let x = URL_SAFE_NO_PAD.encode(public);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // Appendix A.3.
        let public = URL_SAFE_NO_PAD
            .decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
            .unwrap();
        assert_eq!(
            thumbprint(&public),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }
}
