//! The key by which a webhook's signatures are judged. The file says which of the two kinds it is: a signature of the
//! other kind is none, so a public key can never be taken for a shared secret.

use std::{fmt, path::Path};

use aws_lc_rs::{
    hmac,
    signature::{ED25519, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::operator::{secret_file, settings::WebhookKeyFile};

/// How Ed25519's SubjectPublicKeyInfo begins (RFC 8410 section 4).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A shared secret or a public key.
pub(super) enum WebhookKey {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret([redacted])",
            Self::Public(_) => "Public",
        })
    }
}

impl WebhookKey {
    pub(super) fn read(file: &WebhookKeyFile) -> Result<Self, String> {
        match file {
            WebhookKeyFile::Secret(path) => Self::secret(path),
            WebhookKeyFile::Public(path) => Self::public(path),
        }
    }

    fn secret(path: &Path) -> Result<Self, String> {
        let text = secret_file::read(path)?;
        let encoded = text.strip_prefix("whsec_").unwrap_or(&text);
        let secret = Zeroizing::new(STANDARD.decode(encoded).unwrap_or_default());
        if !(24..=64).contains(&secret.len()) {
            return Err(format!(
                "{} must hold `whsec_` and the base64 of 24 to 64 bytes",
                path.display()
            ));
        }
        Ok(Self::Secret(Box::new(hmac::Key::new(
            hmac::HMAC_SHA256,
            &secret,
        ))))
    }

    fn public(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        public_key(text.trim())
            .and_then(|raw| ParsedPublicKey::new(&ED25519, &raw).ok())
            .map(Self::Public)
            .ok_or_else(|| {
                format!(
                    "{} must hold `whpk_` and the base64 of an Ed25519 public key, or its PEM form",
                    path.display()
                )
            })
    }

    /// Whether this one of the signatures is good: `v1,` or `v1a,` and its base64.
    pub(super) fn verifies(&self, signature: &str, signed: &[u8]) -> bool {
        let (version, encoded) = signature.split_once(',').unwrap_or(("", ""));
        let Ok(signature) = STANDARD.decode(encoded) else {
            return false;
        };
        match (self, version) {
            (Self::Secret(key), "v1") => hmac::verify(key, signed, &signature).is_ok(),
            (Self::Public(key), "v1a") => key.verify_sig(signed, &signature).is_ok(),
            _ => false,
        }
    }
}

/// The 32 bytes of a public key.
fn public_key(text: &str) -> Option<Vec<u8>> {
    if let Some(encoded) = text.strip_prefix("whpk_") {
        return STANDARD.decode(encoded).ok();
    }
    let body = text
        .strip_prefix("-----BEGIN PUBLIC KEY-----")?
        .strip_suffix("-----END PUBLIC KEY-----")?;
    let encoded: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(encoded).ok()?;
    der.strip_prefix(&SPKI).map(<[u8]>::to_vec)
}
