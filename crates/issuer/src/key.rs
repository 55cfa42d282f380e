//! One public key of an issuer, from its JWK (RFC 7517). A key that is unusable or odd is left out of its set, and the
//! rest of the set stays good: sets carry encryption keys and kinds that are yet to come.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::config::Algorithm;

/// A key that verifies.
pub(crate) struct Key {
    kid: Option<String>,
    /// The one algorithm that the issuer uses it with, if it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    P256(ParsedPublicKey),
    P384(ParsedPublicKey),
    Ed25519(ParsedPublicKey),
}

impl Key {
    /// `None` where it is not a key for signatures of a kind that is known.
    pub(crate) fn from_jwk(jwk: &Value) -> Option<Self> {
        let jwk = jwk.as_object()?;
        // A private or shared key that is published is everybody's.
        if ["d", "p", "q", "k"]
            .iter()
            .any(|name| jwk.contains_key(*name))
        {
            return None;
        }
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(alg) => Some(Algorithm::parse(alg.as_str()?)?),
        };
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str()?.to_owned()),
        };
        let key = Self {
            kid,
            algorithm,
            material: Material::from_jwk(jwk)?,
        };
        let is_coherent = key.algorithm.is_none_or(|alg| key.material.fits(alg));
        (is_coherent && is_for_signatures(jwk)).then_some(key)
    }

    /// Whether a token may be checked with it that names this key and this algorithm.
    pub(crate) fn is_meant(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        (kid.is_none() || self.kid.as_deref() == kid)
            && self.algorithm.is_none_or(|own| own == algorithm)
            && self.material.fits(algorithm)
    }

    /// Whether the signature over the message is this key's.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Rsa(key), algorithm) => rsa_parameters(algorithm)
                .is_some_and(|parameters| key.verify(parameters, message, signature).is_ok()),
            (Material::P256(key), Algorithm::Es256)
            | (Material::P384(key), Algorithm::Es384)
            | (Material::Ed25519(key), Algorithm::EdDsa) => {
                key.verify_sig(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// RFC 7517 sections 4.2 and 4.3; `jwt-svid` is what SPIFFE trust bundles write.
fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let usage = match jwk.get("use") {
        None => true,
        Some(usage) => matches!(usage.as_str(), Some("sig" | "jwt-svid")),
    };
    let operations = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|name| name == "verify"),
        Some(_) => false,
    };
    usage && operations
}

impl Material {
    fn from_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        match (text("kty")?, text("crv")) {
            ("RSA", _) => rsa(bytes("n")?, bytes("e")?),
            ("EC", Some("P-256")) => {
                let point = point(&bytes("x")?, &bytes("y")?, 32)?;
                let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
                Some(Self::P256(key))
            }
            ("EC", Some("P-384")) => {
                let point = point(&bytes("x")?, &bytes("y")?, 48)?;
                let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).ok()?;
                Some(Self::P384(key))
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes("x").filter(|x| x.len() == 32)?;
                Some(Self::Ed25519(ParsedPublicKey::new(&ED25519, x).ok()?))
            }
            _ => None,
        }
    }

    const fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa(_) => rsa_parameters(algorithm).is_some(),
            Self::P256(_) => matches!(algorithm, Algorithm::Es256),
            Self::P384(_) => matches!(algorithm, Algorithm::Es384),
            Self::Ed25519(_) => matches!(algorithm, Algorithm::EdDsa),
        }
    }
}

/// 2048 to 8192 bits; an exponent that is odd and at least 3, up to 32 bits.
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    // Some writers put a sign byte in front.
    let bare = |number: Vec<u8>| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number.get(zeros..).unwrap_or_default().to_vec()
    };
    let (n, e) = (bare(n), bare(e));
    let exponent_is_good = match e.as_slice() {
        [only] => *only >= 3 && only % 2 == 1,
        [.., last] => e.len() <= 4 && last % 2 == 1,
        [] => false,
    };
    let size = n.len() * 8
        - n.first()
            .map_or(0, |top| usize::try_from(top.leading_zeros()).unwrap_or(0));
    let modulus_is_good =
        (2048..=8192).contains(&size) && n.last().is_some_and(|last| last % 2 == 1);
    (modulus_is_good && exponent_is_good).then_some(Material::Rsa(RsaPublicKeyComponents { n, e }))
}

/// SEC 1's uncompressed point. Whether it is on the curve is checked where it is parsed.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    let is_good = x.len() == length && y.len() == length;
    is_good.then(|| [&[4], x, y].concat())
}

const fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}
