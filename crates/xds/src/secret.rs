//! A secret's message: how it is written for a data plane.

use prost::Message;
use zeroize::{Zeroize, Zeroizing};

use crate::{pb, source::Body};

impl Body {
    /// A secret of any bytes. An empty one is one that was revoked: a client that has it goes on with one that is only
    /// removed.
    #[must_use]
    pub fn generic_secret(name: &str, value: &[u8]) -> Self {
        let secret = pb::GenericSecret {
            secret: Some(inline(value)),
            ..pb::GenericSecret::default()
        };
        encoded(name, pb::SecretType::GenericSecret(secret))
    }

    /// A certificate chain and its key, both PEM.
    #[must_use]
    pub fn certificate(name: &str, chain_pem: &str, key_pem: &str) -> Self {
        let certificate = pb::TlsCertificate {
            certificate_chain: Some(inline(chain_pem.as_bytes())),
            private_key: Some(inline(key_pem.as_bytes())),
            ..pb::TlsCertificate::default()
        };
        encoded(name, pb::SecretType::TlsCertificate(certificate))
    }
}

fn inline(bytes: &[u8]) -> pb::DataSource {
    pb::DataSource {
        specifier: Some(pb::Specifier::InlineBytes(bytes.to_vec())),
        ..pb::DataSource::default()
    }
}

fn encoded(name: &str, kind: pb::SecretType) -> Body {
    let mut secret = pb::Secret {
        name: name.to_owned(),
        r#type: Some(kind),
    };
    // Of the right length from the start: what grows leaves what it held behind.
    let body = Body::from_encoded(secret.encode_to_vec());
    wipe(&mut secret);
    body
}

/// Wipes what a secret's message holds.
pub(crate) fn wipe(secret: &mut pb::Secret) {
    match &mut secret.r#type {
        Some(pb::SecretType::GenericSecret(generic)) => {
            let sources = generic
                .secret
                .iter_mut()
                .chain(generic.secrets.values_mut());
            sources.for_each(wipe_source);
        }
        Some(pb::SecretType::TlsCertificate(certificate)) => {
            let sources = [
                &mut certificate.private_key,
                &mut certificate.password,
                &mut certificate.pkcs12,
            ];
            sources.into_iter().flatten().for_each(wipe_source);
        }
        _ => {}
    }
}

fn wipe_source(source: &mut pb::DataSource) {
    match &mut source.specifier {
        Some(pb::Specifier::InlineBytes(bytes)) => bytes.zeroize(),
        Some(pb::Specifier::InlineString(text)) => text.zeroize(),
        _ => {}
    }
}

/// What a source says in place; `None` where it points to somewhere else. Nothing is read at another's word.
pub(crate) fn take_inline(source: Option<&mut pb::DataSource>) -> Option<Zeroizing<Vec<u8>>> {
    match source?.specifier.take()? {
        pb::Specifier::InlineBytes(bytes) => Some(Zeroizing::new(bytes)),
        pb::Specifier::InlineString(text) => Some(Zeroizing::new(text.into_bytes())),
        _ => None,
    }
}
