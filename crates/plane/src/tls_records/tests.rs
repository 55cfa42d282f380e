//! Records of ours against the TLS library's own, in memory.

use std::{
    io::{IoSlice, Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use super::*;

const SUITES: [SupportedCipherSuite; 2] = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
/// Around the pieces of a copy, and around the longest record.
const LENGTHS: [usize; 9] = [1, 15, 2047, 2048, 2049, 16_383, 16_384, 16_385, 70_000];

/// A suite as each library protects it.
fn ours(suite: SupportedCipherSuite) -> Vec<SupportedCipherSuite> {
    let all = [
        by::<aws_lc::LessSafeKey>(suite),
        #[cfg(target_arch = "x86_64")]
        by::<ring_lib::LessSafeKey>(suite),
    ];
    all.into_iter()
        .map(|suite| SupportedCipherSuite::Tls13(Box::leak(Box::new(suite.unwrap()))))
        .collect()
}

fn only(suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        ..aws_lc_rs::default_provider()
    })
}

/// Both ends of a connection whose handshake is over.
fn connected(
    client: SupportedCipherSuite,
    server: SupportedCipherSuite,
) -> (ClientConnection, ServerConnection) {
    let name = "api.example.com";
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(only(client))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(only(server))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        deliver(&mut client, &mut server).unwrap();
        deliver(&mut server, &mut client).unwrap();
    }
    (client, server)
}

/// Moves what one end has to say to the other, and gives what that reads from it.
fn deliver<A, B>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<Vec<u8>, Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    receive(to, &wire)
}

fn receive<T>(to: &mut ConnectionCommon<T>, mut wire: &[u8]) -> Result<Vec<u8>, Error> {
    let mut read = Vec::new();
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets()?;
        // It ends with "would block": the connection goes on.
        let _ = to.reader().read_to_end(&mut read);
    }
    Ok(read)
}

fn speak<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>, said: &[u8]) {
    let mut heard = Vec::new();
    let mut rest = said;
    while !rest.is_empty() {
        // Cut so that records begin and end within parts.
        let (first, others) = rest.split_at(rest.len().min(3000));
        let parts = [first, &[], others].map(IoSlice::new);
        let taken = from.writer().write_vectored(&parts).unwrap();
        rest = &rest[taken..];
        heard.extend(deliver(from, to).unwrap());
    }
    assert!(heard == said, "{} bytes", said.len());
}

#[test]
fn each_library_and_the_tls_librarys_own_read_each_other() {
    for suite in SUITES {
        for ours in ours(suite) {
            for (client, server) in [(ours, suite), (suite, ours), (ours, ours)] {
                let (mut client, mut server) = connected(client, server);
                for length in LENGTHS {
                    let said: Vec<u8> = (0..=250).cycle().take(length).collect();
                    speak(&mut client, &mut server, &said);
                    speak(&mut server, &mut client, &said);
                }
            }
        }
    }
}

#[test]
fn a_record_that_was_changed_is_not_opened() {
    for ours in SUITES.into_iter().flat_map(ours) {
        for (at, what) in [(5, "text"), (9, "type"), (10, "tag"), (25, "end")] {
            let (mut client, mut server) = connected(ours, ours);
            client.writer().write_all(b"text").unwrap();
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            assert_eq!(wire.len(), 5 + 4 + 1 + TAG);
            wire[at] ^= 1;
            assert!(receive(&mut server, &wire).is_err(), "{what}");
        }
    }
}

#[test]
fn a_record_shorter_than_its_tag_is_not_opened() {
    for ours in SUITES.into_iter().flat_map(ours) {
        for length in 0..=17_u8 {
            let (_, mut server) = connected(ours, ours);
            let mut wire = vec![23, 3, 3, 0, length];
            wire.extend(vec![0; length.into()]);
            assert!(receive(&mut server, &wire).is_err(), "{length}");
        }
    }
}

#[test]
fn a_key_of_another_length_protects_nothing() {
    for length in [0, 15, 17, 24, 31, 33] {
        assert!(aws_lc::LessSafeKey::with_key(&vec![0; length]).is_none());
        #[cfg(target_arch = "x86_64")]
        assert!(ring_lib::LessSafeKey::with_key(&vec![0; length]).is_none());
    }
    let payload = OutboundChunks::Single(b"text");
    let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_3);
    let message = OutboundPlainMessage {
        typ,
        version,
        payload,
    };
    let mut records = Records::<aws_lc::LessSafeKey> {
        key: None,
        iv: Iv::new([0; NONCE_LEN]),
        next: 0,
    };
    assert_eq!(records.encrypt(message, 0).err(), Some(Error::EncryptError));
}

#[test]
fn no_nonce_is_used_twice() {
    for suite in SUITES.into_iter().flat_map(ours) {
        let SupportedCipherSuite::Tls13(suite) = suite else {
            panic!("a suite of TLS 1.3");
        };
        let (key, iv) = (AeadKey::from([7; 32]), Iv::from([3; NONCE_LEN]));
        let mut records = suite.aead_alg.encrypter(key, iv);
        let mut seal = |sequence| {
            let message = OutboundPlainMessage {
                typ: ContentType::ApplicationData,
                version: ProtocolVersion::TLSv1_3,
                payload: OutboundChunks::Single(b"text"),
            };
            records.encrypt(message, sequence).is_ok()
        };
        let sealed = [0, 0, 1, 5, 4, 5, 6, u64::MAX].map(&mut seal);
        assert_eq!(sealed, [true, false, true, true, false, false, true, false]);
    }
}
