//! A server's message, read: what of it is a secret that can be used. Nothing is read from a file or from the
//! environment at a server's word.

use prost::Message;
use zeroize::{Zeroize, Zeroizing};

use super::SecretValue;
use crate::{
    pb,
    secret::{take_inline, wipe},
    source::type_urls,
};

/// The longest secret.
const SECRET_BYTES: usize = 1024 * 1024;

/// A secret that cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    /// The name that it says it has; empty where even that cannot be read.
    pub(super) name: String,
    pub(super) why: &'static str,
}

/// The secret and the name that it says it has; `None` in place of a secret that is empty.
pub(super) fn read(mut any: prost_types::Any) -> Result<(String, Option<SecretValue>), Unusable> {
    let is_secret = any.type_url == type_urls::SECRET;
    let decoded = pb::Secret::decode(any.value.as_slice());
    let len = any.value.len();
    any.value.zeroize();
    let mut secret = decoded.map_err(|_| Unusable {
        name: String::new(),
        why: "malformed",
    })?;
    let value = match (is_secret, len <= SECRET_BYTES) {
        (false, _) => Err("no secret"),
        (_, false) => Err("too long"),
        (true, true) => value(&mut secret),
    };
    let name = std::mem::take(&mut secret.name);
    wipe(&mut secret);
    match value {
        Ok(value) => Ok((name, value)),
        Err(why) => Err(Unusable { name, why }),
    }
}

fn value(secret: &mut pb::Secret) -> Result<Option<SecretValue>, &'static str> {
    const ELSEWHERE: &str = "not in place";
    match &mut secret.r#type {
        Some(pb::SecretType::GenericSecret(generic)) => {
            let bytes = take_inline(generic.secret.as_mut()).ok_or(ELSEWHERE)?;
            Ok((!bytes.is_empty()).then_some(SecretValue::Generic(bytes)))
        }
        Some(pb::SecretType::TlsCertificate(certificate)) => {
            let chain = take_inline(certificate.certificate_chain.as_mut()).ok_or(ELSEWHERE)?;
            let key = take_inline(certificate.private_key.as_mut()).ok_or(ELSEWHERE)?;
            if chain.is_empty() && key.is_empty() {
                return Ok(None);
            }
            let chain_pem = std::str::from_utf8(&chain)
                .map_err(|_| "not PEM")?
                .to_owned();
            let key = std::str::from_utf8(&key).map_err(|_| "not PEM")?;
            let key_pem = Zeroizing::new(key.to_owned());
            Ok(Some(SecretValue::Certificate { chain_pem, key_pem }))
        }
        _ => Err("of a kind that is not used"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    fn any(body: &Body) -> prost_types::Any {
        prost_types::Any {
            type_url: type_urls::SECRET.to_owned(),
            value: body.bytes().to_vec(),
        }
    }

    fn of(kind: Option<pb::SecretType>) -> prost_types::Any {
        any(&Body::of(&pb::Secret {
            name: "a".to_owned(),
            r#type: kind,
        }))
    }

    fn generic(specifier: Option<pb::Specifier>) -> prost_types::Any {
        let source = pb::DataSource {
            specifier,
            ..pb::DataSource::default()
        };
        of(Some(pb::SecretType::GenericSecret(pb::GenericSecret {
            secret: Some(source),
            ..pb::GenericSecret::default()
        })))
    }

    #[test]
    fn a_secret_in_place_is_read() {
        let (name, value) = read(any(&Body::generic_secret("a", b"\0value"))).unwrap();
        assert_eq!(name, "a");
        assert!(matches!(value, Some(SecretValue::Generic(v)) if *v == *b"\0value"));
        let text = pb::Specifier::InlineString("text".to_owned());
        let (_, value) = read(generic(Some(text))).unwrap();
        assert!(matches!(value, Some(SecretValue::Generic(v)) if *v == *b"text"));
        let (_, value) = read(any(&Body::certificate("a", "chain", "key"))).unwrap();
        assert!(matches!(
            value,
            Some(SecretValue::Certificate { chain_pem, key_pem })
                if chain_pem == "chain" && *key_pem == "key"
        ));
    }

    #[test]
    fn an_empty_secret_is_none() {
        for body in [
            Body::generic_secret("a", b""),
            Body::certificate("a", "", ""),
        ] {
            assert!(read(any(&body)).unwrap().1.is_none());
        }
    }

    #[test]
    fn a_secret_that_is_elsewhere_or_of_another_kind_is_refused() {
        let mut other = any(&Body::generic_secret("a", b"v"));
        other.type_url = type_urls::CLUSTER.to_owned();
        let mut malformed = any(&Body::generic_secret("a", b"v"));
        malformed.value.truncate(4);
        for (any, why) in [
            (
                generic(Some(pb::Specifier::Filename("/etc/passwd".to_owned()))),
                "not in place",
            ),
            (
                generic(Some(pb::Specifier::EnvironmentVariable("HOME".to_owned()))),
                "not in place",
            ),
            (generic(None), "not in place"),
            (of(None), "of a kind that is not used"),
            (other, "no secret"),
            (malformed, "malformed"),
            (
                any(&Body::generic_secret("a", &vec![7; SECRET_BYTES])),
                "too long",
            ),
            (
                of(Some(pb::SecretType::TlsCertificate(Default::default()))),
                "not in place",
            ),
        ] {
            assert_eq!(read(any).err().map(|unusable| unusable.why), Some(why));
        }
    }
}
