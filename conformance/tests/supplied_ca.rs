//! A CA that the deployment supplies, as Kubernetes mounts it: it is renewed without a failed handshake, a bad one never
//! comes in, and one that has expired refuses what it would have signed and nothing else.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use outgate_conformance::{Guest, Outcome, Way, World, eventually, within};
use outgate_testkit::{
    CommandOutput, Gateway, GatewayOptions, certs::roots_from_pem, gateway::binary,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;
use tokio::task::JoinSet;

outgate_conformance::scenarios! {
    an_intermediate_is_renewed_under_load_and_no_handshake_fails: [I4 E2];
    one_root_follows_another_and_whoever_trusts_both_notices_nothing: [I4 E2];
    half_a_pair_changes_nothing_and_a_whole_one_is_taken: [I4 D1];
    a_ca_that_has_expired_signs_nothing_and_what_passes_through_goes_on: [D1 P8 E2];
    a_ca_that_cannot_sign_stops_the_start_and_none_is_made_in_its_place: [D1 P2];
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the gateway is another process")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

/// The parameters of a CA that is good for so many seconds.
fn params(name: &str, seconds: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now() + seconds);
    params
}

const LONG: u64 = 90 * 24 * 60 * 60;

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(params(name, LONG), key()).expect("a root")
}

fn below(root: &Issuer, seconds: u64) -> Issuer {
    CertifiedIssuer::signed_by(params("the CA", seconds), key(), root).expect("a CA")
}

fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("space");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o440)).expect("our own");
    fs::rename(&beside, path).expect("our own");
}

fn pem(blocks: &[&Issuer]) -> String {
    blocks.iter().map(|it| it.pem()).collect()
}

/// A Secret as kubelet mounts it: files that are links through a folder that is swapped as one.
struct Mount(PathBuf);

impl Mount {
    fn new(folder: &Path) -> Self {
        let mount = Self(folder.join("ca"));
        fs::create_dir_all(&mount.0).expect("space");
        for name in ["tls.crt", "tls.key"] {
            let _ = symlink(Path::new("..data").join(name), mount.0.join(name));
        }
        mount
    }

    fn swap(&self, blocks: &[&Issuer], signer: &Issuer) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let version = format!("..v{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let folder = self.0.join(&version);
        fs::create_dir(&folder).expect("a new one");
        put(&folder.join("tls.crt"), &pem(blocks));
        put(&folder.join("tls.key"), &signer.key().serialize_pem());
        let before = fs::read_link(self.0.join("..data"));
        symlink(&version, self.0.join("..data_tmp")).expect("a new one");
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).expect("our own");
        if let Ok(before) = before {
            fs::remove_dir_all(self.0.join(before)).expect("our own");
        }
    }
}

fn files(folder: &Path) -> serde_json::Value {
    json!({ "certificate": folder.join("ca/tls.crt"), "key": folder.join("ca/tls.key") })
}

/// The usual world, with this CA.
async fn world(blocks: Vec<Arc<Issuer>>) -> (World, Mount) {
    let world = World::configured(move |config, places| {
        let blocks: Vec<&Issuer> = blocks.iter().map(|it| &**it).collect();
        Mount::new(&places.folder).swap(&blocks, blocks[0]);
        config["ca"] = files(&places.folder);
    })
    .await;
    let mount = Mount(world.folder.path().join("ca"));
    (world, mount)
}

fn guest(world: &World, trusted: &[&Issuer]) -> Guest {
    let trusted: Vec<String> = trusted.iter().map(|it| it.pem()).collect();
    let trusted = trusted.iter().map(String::as_str);
    let roots = roots_from_pem(trusted.chain([world.ca.pem()]));
    Guest::new(world.plane().proxy(), roots)
}

fn passed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Answered(answer) if answer.status == 200)
}

async fn is_served(world: &World, guest: &Guest, host: &str, token: &str) -> bool {
    let req = world.get(Way::TunnelH1, host, "/").bearer(token);
    let guest = guest.with_proxy_token(token);
    passed(&guest.send(Way::TunnelH1, &req).await)
}

async fn until_served(world: &World, guest: &Guest, token: &str, what: &str) {
    let begin = Instant::now();
    while !is_served(world, guest, "n.test", token).await {
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(10), "not served: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the log says something so often.
async fn until_logged(world: &World, text: &str, times: usize) {
    let found = eventually(Duration::from_secs(10), || {
        (world.plane().logs().matches(text).count() >= times).then_some(())
    });
    assert!(
        found.await.is_some(),
        "the log never said {text:?} {times} times"
    );
}

/// Handshakes without end, each on a connection of its own, and one connection that stays.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    tasks: JoinSet<Vec<String>>,
}

impl Load {
    fn start(world: &World, guest: &Guest, token: &str) -> Self {
        let (stop, sent, mut tasks) = (Arc::default(), Arc::default(), JoinSet::new());
        for (way, stays) in [
            (Way::TunnelH1, false),
            (Way::TunnelH1, false),
            (Way::TunnelH2, false),
            (Way::TunnelH2, true),
        ] {
            let req = world.get(way, "n.test", "/").bearer(token);
            let (stop, sent): (Arc<AtomicBool>, Arc<AtomicUsize>) =
                (Arc::clone(&stop), Arc::clone(&sent));
            let guest = guest.clone();
            tasks.spawn(async move {
                let (mut failed, mut kept) = (Vec::new(), None);
                while !stop.load(Ordering::SeqCst) {
                    let mut channel = match kept.take() {
                        Some(channel) => channel,
                        None => match guest.open(way, &req).await {
                            Ok(channel) => channel,
                            Err(outcome) => {
                                failed.push(format!("{way:?}: {outcome:?}"));
                                continue;
                            }
                        },
                    };
                    let outcome = channel.send(&req).await;
                    if !passed(&outcome) {
                        failed.push(format!("{way:?}, kept: {stays}: {outcome:?}"));
                    } else if stays {
                        kept = Some(channel);
                    }
                    sent.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failed
            });
        }
        Self { stop, sent, tasks }
    }

    /// Goes on until it was a load. Panics if one of them failed.
    async fn end(self) {
        let enough = eventually(Duration::from_secs(20), || {
            (self.sent.load(Ordering::SeqCst) > 60).then_some(())
        });
        assert!(enough.await.is_some(), "no load");
        self.stop.store(true, Ordering::SeqCst);
        let failed = within(20, "the load", self.tasks.join_all()).await.concat();
        let sent = self.sent.load(Ordering::SeqCst);
        let first = failed.first();
        assert!(
            failed.is_empty(),
            "{} of {sent} failed: {first:#?}",
            failed.len()
        );
    }
}

/// MUTATION: leave the intermediates out of what is sent, or the leaves of the CA before in their cache.
async fn an_intermediate_is_renewed_under_load_and_no_handshake_fails() {
    let top = root("the root");
    let first = Arc::new(below(&top, LONG));
    let (world, mount) = world(vec![Arc::clone(&first)]).await;
    let (_, token) = world.session();
    let by_root = guest(&world, &[&top]);
    until_served(&world, &by_root, &token, "by the first CA").await;
    let load = Load::start(&world, &by_root, &token);
    let mut last = first;
    for round in 1..=4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let next = below(&top, LONG);
        mount.swap(&[&next], &next);
        until_logged(&world, "ca_rotated", round).await;
        last = Arc::new(next);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    load.end().await;
    // It is the last one that signs, and no other.
    until_served(&world, &guest(&world, &[&last]), &token, "by the last CA").await;
    let stranger = guest(&world, &[&root("the root")]);
    assert!(!is_served(&world, &stranger, "n.test", &token).await);
    let shown = world.operate(&["ca", "show", "--json"]);
    assert!(shown.contains("CN=the CA"), "{shown}");
    assert!(!world.plane().gateway().state().join("ca/ca.key").exists());
}

async fn one_root_follows_another_and_whoever_trusts_both_notices_nothing() {
    let (old, new) = (Arc::new(root("old")), Arc::new(root("new")));
    let (world, mount) = world(vec![Arc::clone(&old)]).await;
    let (_, token) = world.session();
    let trusting = [&*old, &*new];
    until_served(&world, &guest(&world, &[&old]), &token, "by the old root").await;
    // Guests are given both before the new one signs.
    mount.swap(&trusting, &old);
    until_logged(&world, "ca_rotated", 1).await;
    let exported = world.operate(&["ca", "export"]);
    assert_eq!(exported.matches("BEGIN CERTIFICATE").count(), 2);
    let both = guest(&world, &trusting);
    let load = Load::start(&world, &both, &token);
    tokio::time::sleep(Duration::from_millis(400)).await;
    mount.swap(&[&new, &old], &new);
    until_logged(&world, "ca_rotated", 2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    load.end().await;
    until_served(&world, &guest(&world, &[&new]), &token, "by the new root").await;
    assert!(!is_served(&world, &guest(&world, &[&old]), "n.test", &token).await);
}

/// MUTATION: take the certificate over before the key was compared with it.
async fn half_a_pair_changes_nothing_and_a_whole_one_is_taken() {
    let top = root("the root");
    let first = Arc::new(below(&top, LONG));
    let (world, mount) = world(vec![Arc::clone(&first)]).await;
    let (_, token) = world.session();
    let by_root = guest(&world, &[&top]);
    until_served(&world, &by_root, &token, "at first").await;
    let load = Load::start(&world, &by_root, &token);
    let next = below(&top, LONG);
    // Not as kubelet does it: one file after the other, in their places.
    put(&mount.0.join("tls.crt"), &pem(&[&next]));
    until_logged(&world, "ca_refused", 1).await;
    assert!(world.plane().logs().contains("ca.key"));
    until_served(&world, &guest(&world, &[&first]), &token, "by the first CA").await;
    put(&mount.0.join("tls.key"), &next.key().serialize_pem());
    until_logged(&world, "ca_rotated", 1).await;
    until_served(
        &world,
        &guest(&world, &[&next]),
        &token,
        "by the renewed CA",
    )
    .await;
    put(&mount.0.join("tls.crt"), "nothing");
    until_logged(&world, "ca_refused", 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end().await;
}

/// MUTATION, on the native plane: mint by a CA that is past its end.
async fn a_ca_that_has_expired_signs_nothing_and_what_passes_through_goes_on() {
    const LIFE: u64 = 4;
    let top = root("the root");
    let (mut world, mount) = world(vec![Arc::new(below(&top, LONG))]).await;
    let (_, token) = world.session();
    let by_root = guest(&world, &[&top]);
    until_served(&world, &by_root, &token, "before its end").await;
    let short = below(&top, LIFE);
    mount.swap(&[&short], &short);
    until_logged(&world, "ends sooner than the one before", 1).await;
    until_logged(&world, "ca_expires_soon", 1).await;
    let mut kept = {
        let req = world.get(Way::TunnelH1, "n.test", "/").bearer(&token);
        let channel = by_root.open(Way::TunnelH1, &req).await.expect("a tunnel");
        (channel, req)
    };
    tokio::time::sleep(Duration::from_secs(LIFE + 2)).await;
    let mark = world.mark();
    let req = world.get(Way::TunnelH1, "n.test", "/").bearer(&token);
    let outcome = by_root.send(Way::TunnelH1, &req).await;
    let is_refused = matches!(outcome, Outcome::HandshakeFailed(_));
    assert!(is_refused, "{outcome:?}");
    // Envoy has the leaf until it ends, and what it cannot serve is no question to its control plane.
    if world.plane_mut().edge().is_none() {
        world.assert_audited(mark, "ca_expired", "a bumped destination");
    }
    assert!(is_served(&world, &by_root, "pass.test", &token).await);
    assert!(passed(&kept.0.send(&kept.1).await), "what is open goes on");
    let next = below(&top, LONG);
    mount.swap(&[&next], &next);
    until_served(&world, &by_root, &token, "by the renewed CA").await;
}

/// MUTATION: make a CA where the files are missing.
async fn a_ca_that_cannot_sign_stops_the_start_and_none_is_made_in_its_place() {
    let top = root("the root");
    let good = below(&top, LONG);
    let folder = tempfile::tempdir().expect("a folder");
    let mount = Mount::new(folder.path());
    type Change<'c> = Box<dyn Fn() + 'c>;
    let write = |name: &'static str, text: String| {
        let path = mount.0.join(name);
        Box::new(move || put(&path, &text)) as Change<'_>
    };
    let table: Vec<(&str, &str, Change<'_>)> = vec![
        ("ca.certificate", "No such file", Box::new(|| {})),
        (
            "ca.key",
            "is not the key",
            write("tls.key", key().serialize_pem()),
        ),
        ("ca.certificate", "PEM", write("tls.crt", "nothing".into())),
        ("ca.certificate", "has expired", {
            let ended = CertifiedIssuer::signed_by(params("ended", 0), key(), &top).expect("a CA");
            write("tls.crt", ended.pem())
        }),
    ];
    for (index, (key, says, change)) in table.iter().enumerate() {
        if index > 0 {
            mount.swap(&[&good], &good);
        }
        change();
        for output in [starts(folder.path()), mints(folder.path())] {
            let text = &output.stderr;
            assert_eq!(output.code, Some(1), "{key}: {text}");
            let path = mount.0.display().to_string();
            assert!(
                text.contains(key) && text.contains(says) && text.contains(&path),
                "{key}, {says}: {text}"
            );
        }
        for name in ["tls.crt", "tls.key"] {
            let _ = fs::remove_file(mount.0.join(name));
            let _ = symlink(Path::new("..data").join(name), mount.0.join(name));
        }
    }
    let made = fs::read_dir(folder.path().join("state/ca"));
    assert_eq!(made.map_or(0, Iterator::count), 0, "something was made");
}

fn starts(folder: &Path) -> CommandOutput {
    let config = json!({
        "version": 1, "listen": { "proxy": "127.0.0.1:0" }, "ca": files(folder),
        "destinations": [{ "host": "a.test", "posture": "bump" }],
    });
    match Gateway::try_start(GatewayOptions::new(config).log("info")) {
        Ok(_) => panic!("it started"),
        Err(output) => output,
    }
}

fn mints(folder: &Path) -> CommandOutput {
    let config = json!({
        "version": 1, "listen": { "minter": { "socket": "minter.sock" } }, "ca": files(folder),
        "destinations": [{ "host": "a.test", "posture": "bump" }],
    });
    let file = folder.join("minter.yaml");
    fs::write(&file, config.to_string()).expect("space");
    let mut command = std::process::Command::new(binary());
    command.arg("minter").arg("--config").arg(&file);
    command.arg("--state-dir").arg(folder.join("state"));
    CommandOutput::of(&mut command)
}
