//! A minter as a process has it: its places, and what outlives it.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use outgate_audit::{RECORDS_FILE, Rotation, VerifyOptions};
use outgate_clock::FakeClock;
use outgate_journey::name::HostName;
use outgate_minter::{Asker, MinterPlaces, MinterProcess};
use outgate_pki::{CaCertificate, CaFiles, CaLook, CertificateAuthority};
use outgate_xds::{
    Door,
    client::{Protocol, SecretClient, SecretState, SecretValue, SecretWatch, Target},
};
use tokio_util::sync::CancellationToken;

use crate::support::{HOUR, NOW, bumping};

fn open(places: &MinterPlaces) -> MinterProcess {
    let clock = Arc::new(FakeClock::at(NOW));
    MinterProcess::open(places, Rotation::default(), bumping(&["a.test"]), clock).unwrap()
}

#[tokio::test]
async fn the_ca_and_the_trail_outlive_the_process() {
    let state = tempfile::tempdir().unwrap();
    let places = MinterPlaces::under(state.path());
    assert_eq!(places.ca, state.path().join("ca"));
    let mut ca = Vec::new();
    for _ in 0..2 {
        let process = open(&places);
        ca.push(process.certificate_pem().to_owned());
        let service = process.leaves().service();
        service.leaf(&Asker::local(), "a.test").await.unwrap();
        process.set_policy(bumping(&["b.test"]));
        assert!(service.leaf(&Asker::local(), "a.test").await.is_err());
    }
    assert_eq!(ca[0], ca[1]);
    for folder in [&places.audit, &places.audit_key, &places.ca] {
        let mode = std::fs::metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
    outgate_audit::verify(&places.audit, &VerifyOptions::default(), |_| {}).unwrap();
    let trail = std::fs::read_to_string(places.audit.join(RECORDS_FILE)).unwrap();
    let of_leaves = trail.lines().filter(|line| line.contains("leaf.mint"));
    assert_eq!(of_leaves.count(), 4);
}

#[test]
fn a_trail_has_one_process_that_writes_it() {
    let state = tempfile::tempdir().unwrap();
    let places = MinterPlaces::under(state.path());
    let _first = open(&places);
    let clock = Arc::new(FakeClock::at(NOW));
    let second = MinterProcess::open(&places, Rotation::default(), bumping(&[]), clock);
    assert!(second.unwrap_err().to_string().contains("audit"));
}

/// Follows a secret until it is in this state.
async fn until(watch: &mut SecretWatch, wanted: impl Fn(&SecretState) -> bool) -> SecretState {
    let waiting = async {
        loop {
            let state = watch.state();
            if wanted(&state) {
                return state;
            }
            watch.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("the secret does not come to that state")
}

fn serial_of(state: &SecretState) -> Option<String> {
    match state {
        SecretState::Present(secret) => Some(secret.version.to_string()),
        SecretState::Waiting | SecretState::Absent => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_come_renew_and_go_through_the_door() {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let state = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock::at(NOW));
        let process = MinterProcess::open(
            &MinterPlaces::under(state.path()),
            Rotation::default(),
            bumping(&["a.test", "b.test"]),
            clock.clone(),
        );
        let process = Arc::new(process.unwrap());
        let socket = state.path().join("minter.sock");
        let door = Door::unix(&socket).unwrap();
        let stop = CancellationToken::new();
        let (serving, stopping) = (Arc::clone(&process), stop.clone());
        let served = tokio::spawn(async move { serving.serve(door, stopping).await });

        let client =
            SecretClient::new(Target::Unix(socket.clone()), "gateway-1", protocol).unwrap();
        let mut a = client.watch("a.test").unwrap();
        let mut b = client.watch("b.test").unwrap();
        let first = until(&mut a, |it| serial_of(it).is_some()).await;
        let SecretState::Present(secret) = &first else {
            panic!("{protocol:?}");
        };
        let SecretValue::Certificate { chain_pem, key_pem } = &secret.value else {
            panic!("{protocol:?}");
        };
        let host = HostName::parse("a.test").unwrap();
        let authority = process.leaves().service().authority();
        assert!(
            authority
                .vouches_for(chain_pem, key_pem, &host, NOW)
                .is_some()
        );
        until(&mut b, |it| serial_of(it).is_some()).await;

        clock.advance(Duration::from_secs(16 * HOUR));
        process.leaves().service().look();
        let second = until(&mut a, |it| serial_of(it) != serial_of(&first)).await;
        assert!(serial_of(&second).is_some());

        process.set_policy(bumping(&["a.test"]));
        if protocol == Protocol::Delta {
            until(&mut b, |it| matches!(it, SecretState::Absent)).await;
            let mut refused = client.watch("127.0.0.1").unwrap();
            until(&mut refused, |it| matches!(it, SecretState::Absent)).await;
        }
        assert_eq!(serial_of(&a.state()), serial_of(&second));

        stop.cancel();
        served.await.unwrap().unwrap();
        assert!(!socket.exists());
    }
}

/// Puts a CA of a folder where the deployment supplies one.
fn supply(from: &Path, files: &CaFiles) {
    CertificateAuthority::open_or_create(from, NOW).unwrap();
    for (name, file) in [("ca.crt", &files.certificate), ("ca.key", &files.key)] {
        let bytes = std::fs::read(from.join(name)).unwrap();
        outgate_state::write_private_atomic(file, &bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_the_deployment_renews_reaches_whoever_has_a_leaf() {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = CaFiles {
            certificate: at("tls.crt"),
            key: at("tls.key"),
        };
        supply(&at("first"), &files);
        let places = MinterPlaces {
            supplied: Some(files.clone()),
            ..MinterPlaces::under(&at("state"))
        };
        let process = Arc::new(open(&places));
        assert!(!places.ca.join("ca.key").exists());
        let published = || std::fs::read_to_string(places.ca.join("ca.crt")).unwrap();
        assert_eq!(published(), process.certificate_pem());
        let socket = at("minter.sock");
        let door = Door::unix(&socket).unwrap();
        let stop = CancellationToken::new();
        let (serving, stopping) = (Arc::clone(&process), stop.clone());
        let served = tokio::spawn(async move { serving.serve(door, stopping).await });
        let client = SecretClient::new(Target::Unix(socket), "gateway-1", protocol).unwrap();
        let mut a = client.watch("a.test").unwrap();
        let first = until(&mut a, |it| serial_of(it).is_some()).await;

        assert!(matches!(process.refresh_ca(), CaLook::Same));
        supply(&at("second"), &files);
        assert!(matches!(process.refresh_ca(), CaLook::Renewed(_)));
        assert_eq!(published(), process.certificate_pem());
        let second = until(&mut a, |it| serial_of(it) != serial_of(&first)).await;
        let SecretState::Present(secret) = &second else {
            panic!("{protocol:?}");
        };
        let SecretValue::Certificate { chain_pem, key_pem } = &secret.value else {
            panic!("{protocol:?}");
        };
        let known = CaCertificate::load(&files.certificate, NOW).unwrap();
        let host = HostName::parse("a.test").unwrap();
        known.receive(chain_pem, key_pem, &host, NOW).unwrap();
        stop.cancel();
        served.await.unwrap().unwrap();
    }
}

#[test]
fn without_the_files_that_it_was_promised_a_minter_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let places = MinterPlaces {
        supplied: Some(CaFiles {
            certificate: at("tls.crt"),
            key: at("tls.key"),
        }),
        ..MinterPlaces::under(&at("state"))
    };
    let clock = Arc::new(FakeClock::at(NOW));
    let refused = MinterProcess::open(&places, Rotation::default(), bumping(&[]), clock);
    let refused = refused.unwrap_err().to_string();
    let path = at("tls.crt").display().to_string();
    assert!(
        refused.contains("ca.certificate") && refused.contains(&path),
        "{refused}"
    );
    assert!(!places.ca.exists());
}
