//! Leaves from a minter in another process: what it sends is served, and where it sends none there is no handshake.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outgate_journey::{
    denial::DenyCode,
    name::HostName,
    record::{Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use outgate_pki::{CertificateAuthority, Minter};
use outgate_plane::clock::unix_now;
use outgate_testkit::{Outcome, TlsOptions, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    vault::Vault,
    world::{ANYWHERE, SECOND, Setup, Way, World},
};

/// A process that has the CA, and its socket.
struct Elsewhere {
    minter: Minter,
    vault: Vault,
    folder: TempDir,
}

impl Elsewhere {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::at(&folder.path().join("minter.sock"));
        let (minter, folder) = minter(folder);
        Self {
            minter,
            vault,
            folder,
        }
    }

    fn section(&self) -> Value {
        json!({
            "socket": self.folder.path().join("minter.sock"),
            "leaf_ca": self.folder.path().join("ca.crt"),
        })
    }

    async fn world(&self) -> World {
        let section = self.section();
        let setup = Setup::new(Attribution::BySocket).config(move |config, _| {
            config["minter"] = section;
            config["timeouts"]["handshake"] = "1s".into();
        });
        World::with(setup).await
    }

    fn mint(&self, host: &str) {
        put(&self.vault, &self.minter, host, host);
    }
}

fn minter(folder: TempDir) -> (Minter, TempDir) {
    let authority = CertificateAuthority::open_or_create(folder.path(), unix_now()).unwrap();
    (Minter::new(Arc::new(authority), 0), folder)
}

/// Has the server say for a name what this minter makes for that host.
fn put(vault: &Vault, minter: &Minter, name: &str, host: &str) {
    let leaf = minter.portable(&HostName::parse(host).unwrap(), unix_now());
    let leaf = leaf.unwrap();
    vault.put_certificate(name, leaf.chain_pem(), leaf.key_pem());
}

/// The record of a handshake that was refused says why.
async fn assert_refused(world: &World, name: &str, why: &str) {
    let mark = world.mark();
    let refused = world.handshake(Way::TlsH1, name).await.err();
    assert!(
        matches!(refused, Some(Outcome::HandshakeFailed(_))),
        "{why}: {refused:?}"
    );
    let code = DenyCode::InternalFault;
    let record = world
        .record(mark, why, |record| record.verdict == Verdict::Denied(code))
        .await;
    assert_eq!(record.entry, Entry::Transparent, "{why}");
    assert!(record.detail.contains(why), "{why}: {}", record.detail);
    assert!(!record.detail.contains("BEGIN"), "{why}");
    world.assert_nothing_sent(mark, why);
}

#[tokio::test]
async fn the_minters_leaf_is_served_and_so_is_the_one_that_it_renews() {
    let mut elsewhere = Elsewhere::new();
    elsewhere.mint("n.test");
    elsewhere.vault.open();
    let world = elsewhere.world().await;
    let first = world.handshake(Way::TlsH1, "n.test").await.unwrap().leaf;
    for way in Way::TLS {
        let req = world.get(way, "n.test", "/");
        assert_eq!(world.send(way, &req).await.answered().status, 200);
    }
    let again = world.handshake(Way::TlsH2, "n.test").await.unwrap().leaf;
    assert_eq!(first, again);

    elsewhere.mint("n.test");
    let deadline = Instant::now() + 3 * SECOND;
    while world.handshake(Way::TlsH1, "n.test").await.unwrap().leaf == first {
        assert!(Instant::now() < deadline, "the renewed leaf is not served");
    }

    elsewhere.vault.close().await;
    let last = world.handshake(Way::TlsH1, "n.test").await;
    assert!(last.is_ok(), "it is good without the minter");
    world.finish().await;
}

#[tokio::test]
async fn where_the_minter_sends_nothing_that_guests_would_take_there_is_no_handshake() {
    let mut elsewhere = Elsewhere::new();
    elsewhere.vault.open();
    let world = elsewhere.world().await;
    let (foreign, _folder) = minter(tempfile::tempdir().unwrap());
    assert_refused(&world, "tlsonly.test", "there is no such secret").await;

    let vault = &elsewhere.vault;
    put(vault, &foreign, "a.test", "a.test");
    put(vault, &elsewhere.minter, "b.test", "a.test");
    vault.put("n.test", "some text");
    for (name, why) in [
        ("a.test", "does not vouch for it"),
        ("b.test", "does not vouch for it"),
        ("n.test", "something else than a certificate"),
    ] {
        assert_refused(&world, name, why).await;
    }
    elsewhere.mint("tlsonly.test");
    let served = async {
        while world.handshake(Way::TlsH1, "tlsonly.test").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let served = tokio::time::timeout(3 * SECOND, served).await;
    served.expect("a leaf that came after all");
    elsewhere.vault.remove("tlsonly.test");
    let withdrawn = async {
        while world.handshake(Way::TlsH1, "tlsonly.test").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let withdrawn = tokio::time::timeout(3 * SECOND, withdrawn).await;
    withdrawn.expect("a leaf that was taken back");
}

#[tokio::test]
async fn a_minter_that_is_away_or_silent_costs_a_handshake_its_time_and_no_other_guest_anything() {
    let mut elsewhere = Elsewhere::new();
    let world = elsewhere.world().await;
    let began = Instant::now();
    let waiting = assert_refused(&world, "n.test", "cannot be reached");
    let other = async {
        let passing = Instant::now();
        let options = TlsOptions::new("pass.test", "http/1.1");
        let stream = world.dial(ANYWHERE, world.tls.port()).await;
        let shaken = world.proxy.handshake(stream, &options).await;
        assert!(shaken.is_ok(), "a destination that passes through");
        passing.elapsed()
    };
    let ((), other) = tokio::join!(waiting, other);
    assert!(other < SECOND / 2, "another guest waited for {other:?}");
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());

    elsewhere.vault.withhold("n.test");
    elsewhere.vault.open();
    let connected = eventually(8 * SECOND, || (elsewhere.vault.streams() > 0).then_some(()));
    connected.await.expect("it comes back");
    assert_refused(&world, "n.test", "has not answered in time").await;
    elsewhere.mint("n.test");
    let served = async { while world.handshake(Way::TlsH1, "n.test").await.is_err() {} };
    let served = tokio::time::timeout(3 * SECOND, served).await;
    served.expect("it answers");
}

#[tokio::test]
async fn a_renewed_ca_counts_from_a_reload_on() {
    let mut elsewhere = Elsewhere::new();
    elsewhere.mint("n.test");
    elsewhere.vault.open();
    let world = elsewhere.world().await;
    assert!(world.handshake(Way::TlsH1, "n.test").await.is_ok());
    let (renewed, other) = minter(tempfile::tempdir().unwrap());
    let certificate = elsewhere.folder.path().join("ca.crt");
    std::fs::copy(other.path().join("ca.crt"), certificate).unwrap();
    world.gateway.take_over(world.changed(|_| {})).unwrap();
    assert_refused(&world, "n.test", "does not vouch for it").await;
    put(&elsewhere.vault, &renewed, "n.test", "n.test");
    // The guest of this test trusts the old one alone: its refusal shows that the new leaf is served.
    let refused = async {
        loop {
            let outcome = world.handshake(Way::TlsH1, "n.test").await.err();
            if format!("{outcome:?}").contains("UnknownIssuer") {
                return;
            }
        }
    };
    let refused = tokio::time::timeout(3 * SECOND, refused).await;
    refused.expect("the new CA's leaf");
}
