//! The typed messages: what a secret is on the wire, and that it has no `Debug`.

#![allow(clippy::unwrap_used, reason = "what helps a test fails it")]

use std::{fmt::Debug, marker::PhantomData};

use outgate_envoy_proto::envoy::{
    config::core::v3::{DataSource, HeaderValue, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{GenericSecret, Secret, TlsCertificate, secret::Type},
    service::{
        auth::v3::{CheckRequest, CheckResponse},
        discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryResponse, Resource,
        },
        ext_proc::v3::{ProcessingRequest, ProcessingResponse},
    },
};
use prost::Message;

fn inline(bytes: &[u8]) -> DataSource {
    let specifier = Some(Specifier::InlineBytes(bytes.to_vec()));
    DataSource {
        specifier,
        ..DataSource::default()
    }
}

#[test]
fn a_secret_survives_the_wire() {
    let leaf = Secret {
        name: "api.example.org".to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(b"chain")),
            private_key: Some(inline(b"key")),
            ..TlsCertificate::default()
        })),
    };
    let read = Secret::decode(leaf.encode_to_vec().as_slice()).unwrap();
    assert!(read == leaf);
}

#[test]
fn a_secret_has_the_bytes_that_envoy_reads() {
    let secret = Secret {
        name: "n".to_owned(),
        r#type: Some(Type::GenericSecret(GenericSecret {
            secret: Some(inline(b"v")),
            ..GenericSecret::default()
        })),
    };
    // name = 1; generic_secret = 5 { secret = 1 { inline_bytes = 2 } }
    let expected = [0x0a, 1, b'n', 0x2a, 5, 0x0a, 3, 0x12, 1, b'v'];
    assert_eq!(secret.encode_to_vec(), expected);
    let revoked = Secret {
        name: "n".to_owned(),
        r#type: Some(Type::GenericSecret(GenericSecret::default())),
    };
    assert_eq!(revoked.encode_to_vec(), [0x0a, 1, b'n', 0x2a, 0]);
}

/// Says whether `T` has `Debug`: the method of the type itself is preferred to that of the trait.
struct Probe<T>(PhantomData<T>);

impl<T: Debug> Probe<T> {
    const fn has_debug(&self) -> bool {
        true
    }
}

trait Fallback {
    fn has_debug(&self) -> bool {
        false
    }
}

impl<T> Fallback for Probe<T> {}

macro_rules! has_debug {
    ($kind:ty) => {
        Probe::<$kind>(PhantomData).has_debug()
    };
}

#[test]
fn no_message_that_can_carry_a_secret_can_be_printed() {
    let kinds = [
        has_debug!(Secret),
        has_debug!(Type),
        has_debug!(TlsCertificate),
        has_debug!(GenericSecret),
        has_debug!(DataSource),
        has_debug!(Specifier),
        has_debug!(HeaderValue),
        has_debug!(Resource),
        has_debug!(DiscoveryResponse),
        has_debug!(DeltaDiscoveryResponse),
        has_debug!(CheckRequest),
        has_debug!(CheckResponse),
        has_debug!(ProcessingRequest),
        has_debug!(ProcessingResponse),
    ];
    assert_eq!(kinds, [false; 14]);
    assert!(has_debug!(DeltaDiscoveryRequest), "the probe can say yes");
}
