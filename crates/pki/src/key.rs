//! P-256 keys. They sign, and say what their public half is; the private half leaves only towards its file.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

/// A P-256 key pair. Held by the crypto library, which wipes it.
pub(crate) struct P256Key(EcdsaKeyPair);

impl P256Key {
    pub(crate) fn generate() -> Option<Self> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .ok()
            .map(Self)
    }

    /// From PKCS#8 or SEC 1 DER.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .ok()
            .map(Self)
    }

    /// As PKCS#8; wiped on drop.
    pub(crate) fn to_pkcs8(&self) -> Option<impl AsRef<[u8]> + use<>> {
        self.0.to_pkcs8v1().ok()
    }
}

impl PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self
            .0
            .sign(&SystemRandom::new(), message)
            .map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key([redacted])")
    }
}
