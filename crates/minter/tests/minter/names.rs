//! Which names have a leaf, and what a client makes of it.

use std::sync::Arc;

use outgate_journey::{
    denial::DenyCode,
    policy::{Posture, TunnelProtocol},
};
use outgate_minter::Leaf;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use crate::support::{World, policy, rule};

/// A handshake in memory: the server has the leaf as text, the client the CA's certificate and the name.
fn handshake(ca_pem: &str, leaf: &Leaf, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(leaf.chain_pem().as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// The leaf is for the time of the clock that stands still; a handshake judges by the machine's.
fn today(world: &World) {
    world
        .clock
        .set_wall(outgate_clock::Clock::unix(&*outgate_clock::machine()));
}

#[tokio::test]
async fn a_client_that_trusts_the_ca_takes_the_leaf_for_its_name_alone() {
    let world = World::new(policy(vec![rule("*.wild.test", Posture::Bump)]));
    today(&world);
    let ca = world.service.authority().certificate_pem().to_owned();
    let leaf = world.leaf("a.wild.test").await.unwrap();
    handshake(&ca, &leaf, "a.wild.test").unwrap();
    for other in ["b.wild.test", "wild.test", "x.a.wild.test"] {
        assert!(handshake(&ca, &leaf, other).is_err(), "{other}");
    }
    let stranger = World::new(policy(vec![]));
    let other_ca = stranger.service.authority();
    assert!(handshake(other_ca.certificate_pem(), &leaf, "a.wild.test").is_err());
}

#[tokio::test]
async fn only_canonical_names_of_bumped_hosts_have_a_leaf() {
    let world = World::new(policy(vec![
        rule("bumped.test", Posture::Bump),
        rule("*.wild.test", Posture::Bump),
        rule("passed.test", Posture::PassThrough),
        rule("denied.test", Posture::DenyAll),
        rule("denied.wild.test", Posture::DenyAll),
        {
            let mut opaque = rule("opaque.test", Posture::PassThrough);
            opaque.protocol = TunnelProtocol::Opaque;
            opaque
        },
    ]));
    for name in ["bumped.test", "a.wild.test", "xn--bcher-kva.wild.test"] {
        let leaf = world.leaf(name).await.unwrap();
        assert_eq!(leaf.host().as_str(), name);
    }
    let minted = world.book.mints();
    let refused = [
        ("other.test", DenyCode::DestinationNotAllowed),
        ("passed.test", DenyCode::DestinationNotAllowed),
        ("opaque.test", DenyCode::DestinationNotAllowed),
        ("denied.test", DenyCode::DestinationNotAllowed),
        ("denied.wild.test", DenyCode::DestinationNotAllowed),
        ("wild.test", DenyCode::DestinationNotAllowed),
        ("b.a.wild.test", DenyCode::DestinationNotAllowed),
        ("BUMPED.test", DenyCode::HostInvalid),
        ("bumped.test.", DenyCode::HostInvalid),
        ("*.wild.test", DenyCode::HostInvalid),
        ("", DenyCode::HostInvalid),
        ("bumped.test\0.other.test", DenyCode::HostInvalid),
        ("127.0.0.1", DenyCode::IpLiteral),
        ("[::1]", DenyCode::IpLiteral),
        ("2130706433", DenyCode::IpLiteral),
    ];
    for (name, code) in refused {
        assert_eq!(world.leaf(name).await.unwrap_err(), code, "{name:?}");
    }
    assert_eq!(world.book.mints(), minted);
    assert_eq!(world.service.held(), 3);
}
