//! A CA that the deployment supplies: what is taken, what is refused by which words, and how a renewed one comes in.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{
    encoding::AsDer,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::{
    CaCertificate, CaFiles, CaLook, CaRefused, CertificateAuthority, Minter, PkiError, SuppliedCa,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use time::OffsetDateTime;

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
/// When a flaw is no moment's any more.
const SOON: UnixSeconds = UnixSeconds(NOW.0 + 2);
const DAY: u64 = 86_400;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(NOW.0 - DAY);
    params.not_after = at(NOW.0 + 90 * DAY);
    params
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
}

fn below(issuer: &Issuer, name: &str) -> Issuer {
    changed_below(issuer, name, |_| {})
}

fn changed_below(
    issuer: &Issuer,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Issuer {
    let mut params = params(name);
    change(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn of(certificates: &[&Issuer], key: &Issuer) -> Self {
        let mount = Self::new();
        mount.certificates(certificates);
        mount.key(&key.key().serialize_pem());
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self) -> CaFiles {
        CaFiles {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
        }
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    }

    fn certificates(&self, blocks: &[&Issuer]) {
        let text: String = blocks.iter().map(|it| it.pem()).collect();
        self.put("tls.crt", &text);
    }

    fn key(&self, text: &str) {
        self.put("tls.key", text);
    }

    fn open(&self) -> Result<SuppliedCa, CaRefused> {
        SuppliedCa::open(self.files(), NOW)
    }
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn minter(authority: Arc<CertificateAuthority>) -> Minter {
    Minter::new(authority, 8)
}

fn leaf(supplied: &SuppliedCa) -> Vec<CertificateDer<'static>> {
    let minter = minter(supplied.authority());
    minter.leaf(&host("a.test"), NOW).unwrap().cert.clone()
}

/// Whether a client that trusts these, and nothing else, takes what is sent.
fn is_taken(sent: &[CertificateDer<'static>], trusted: &[&Issuer]) -> bool {
    let mut roots = RootCertStore::empty();
    for root in trusted {
        roots.add(root.der().clone()).unwrap();
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.0));
    let (leaf, chain) = sent.split_first().unwrap();
    verifier
        .verify_server_cert(leaf, chain, &name, &[], now)
        .is_ok()
}

#[test]
fn a_self_signed_ca_signs_and_is_not_sent() {
    let own = root("own");
    let mount = Mount::of(&[&own], &own);
    let supplied = mount.open().unwrap();
    let sent = leaf(&supplied);
    assert_eq!(sent.len(), 1);
    assert!(is_taken(&sent, &[&own]) && !is_taken(&sent, &[&root("own")]));
    assert_eq!(
        supplied.authority().certificate_pem().trim(),
        own.pem().trim().replace("\r\n", "\n")
    );
    assert!(matches!(look(&supplied, NOW), CaLook::Same));
}

#[test]
fn a_key_in_sec1_form_is_taken_with_its_parameters_before_it() {
    let own = root("own");
    let mount = Mount::of(&[&own], &own);
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &own.key().serialize_der())
            .unwrap();
    let der: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
    let pem = outgate_state::private_key_to_pem(der.as_ref());
    let pem = pem.replace("PRIVATE KEY", "EC PRIVATE KEY");
    assert!(pem.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    for before in [
        "",
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
    ] {
        mount.key(&format!("{before}{pem}"));
        assert!(is_taken(&leaf(&mount.open().unwrap()), &[&own]), "{before}");
    }
}

#[test]
fn intermediates_are_sent_and_a_client_that_trusts_the_root_alone_takes_the_leaf() {
    let top = root("root");
    let (middle, other) = (below(&top, "middle"), root("other"));
    let low = below(&middle, "low");
    for (blocks, sent) in [
        (vec![&middle], 2),
        (vec![&middle, &top], 2),
        (vec![&middle, &other, &top], 2),
    ] {
        let supplied = Mount::of(&blocks, &middle).open().unwrap();
        let found = leaf(&supplied);
        assert_eq!(found.len(), sent);
        assert!(is_taken(&found, &[&top]) && is_taken(&found, &[&middle]));
        assert!(!is_taken(&found, &[&other]));
    }
    for blocks in [vec![&low, &middle], vec![&low, &middle, &top]] {
        let found = leaf(&Mount::of(&blocks, &low).open().unwrap());
        assert_eq!(found.len(), 3);
        assert!(is_taken(&found, &[&top]));
    }
}

#[test]
fn what_is_handed_out_are_the_roots_if_there_are_any_and_else_the_top_of_the_chain() {
    let (top, next) = (root("root"), root("next root"));
    let middle = below(&top, "middle");
    let low = below(&middle, "low");
    for (blocks, signer, trusted) in [
        (vec![&low], &low, vec![&low]),
        (vec![&low, &middle], &low, vec![&middle]),
        (vec![&low, &middle, &top], &low, vec![&top]),
        // One root follows another: guests have both before the second signs.
        (vec![&top, &next], &top, vec![&top, &next]),
        (vec![&next, &top], &next, vec![&next, &top]),
    ] {
        let mount = Mount::of(&blocks, signer);
        let pem = mount
            .open()
            .unwrap()
            .authority()
            .certificate_pem()
            .to_owned();
        let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .map(Result::unwrap)
            .collect();
        let expected: Vec<_> = trusted.iter().map(|it| it.der().clone()).collect();
        assert_eq!(found, expected);
        let by_certificate = SuppliedCa::trusted(&mount.path("tls.crt"), NOW).unwrap();
        assert_eq!(by_certificate, pem);
    }
}

#[test]
fn a_leaf_ends_with_the_first_certificate_above_it_that_ends() {
    let top = root("root");
    let middle = changed_below(&top, "middle", |it| it.not_after = at(NOW.0 + 3600));
    let low = below(&middle, "low");
    let authority = Mount::of(&[&low, &middle], &low)
        .open()
        .unwrap()
        .authority();
    assert_eq!(authority.not_after(), UnixSeconds(NOW.0 + 3600));
    let leaf = minter(authority).portable(&host("a.test"), NOW).unwrap();
    assert_eq!(leaf.not_after(), UnixSeconds(NOW.0 + 3600));
}

/// The word for what is wrong, which of the two files it is, and the whole message.
fn refusal(mount: &Mount) -> (&'static str, &'static str, String) {
    let refused = mount.open().unwrap_err();
    (refused.flaw.code(), refused.key, refused.to_string())
}

#[test]
fn every_mistake_in_the_certificate_is_refused_by_name() {
    let top = root("root");
    let good = below(&top, "good");
    type Change = fn(&mut CertificateParams);
    let changes: [(&str, Change, &str); 7] = [
        ("not_a_ca", |it| it.is_ca = IsCa::NoCa, "CA:TRUE"),
        ("not_a_ca", |it| it.is_ca = IsCa::ExplicitNoCa, "CA:TRUE"),
        (
            "may_not_sign",
            |it| it.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            "keyCertSign",
        ),
        ("may_not_sign", |it| it.key_usages.clear(), "keyCertSign"),
        ("expired", |it| it.not_after = at(NOW.0), "2026-09-21T"),
        (
            "not_yet_valid",
            |it| it.not_before = at(NOW.0 + 1),
            "clocks",
        ),
        (
            "subject",
            |it| it.distinguished_name = DistinguishedName::new(),
            "common name",
        ),
    ];
    for (code, change, says) in changes {
        let bad = changed_below(&top, "bad", change);
        let mount = Mount::of(&[&bad], &bad);
        let (found, key, text) = refusal(&mount);
        assert_eq!((found, key), (code, "ca.certificate"), "{text}");
        let path = mount.path("tls.crt").display().to_string();
        assert!(text.contains(&path) && text.contains(says), "{text}");
    }
    for (blocks, code, says) in [
        (vec![&good, &root("stranger"), &good], "chain", "block 3"),
        (vec![&good, &below(&top, "aunt")], "chain", "block 2"),
        (
            vec![
                &below(&good, "low"),
                &changed_below(&top, "good", |it| it.not_after = at(NOW.0 - 1)),
            ],
            "expired",
            "block 2",
        ),
    ] {
        let (found, key, text) = refusal(&Mount::of(&blocks, blocks[0]));
        assert_eq!((found, key), (code, "ca.certificate"), "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn what_is_no_certificate_or_no_key_is_refused_by_name() {
    let own = root("own");
    let texts = |name: &str, text: &str| {
        let mount = Mount::of(&[&own], &own);
        mount.put(name, text);
        let (code, key, text) = refusal(&mount);
        assert!(
            text.contains(&mount.path(name).display().to_string()),
            "{text}"
        );
        (code, key)
    };
    let of_certificate = ("not_certificates", "ca.certificate");
    let block = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(texts("tls.crt", ""), of_certificate);
    assert_eq!(texts("tls.crt", "no PEM"), of_certificate);
    assert_eq!(texts("tls.crt", block), of_certificate);
    assert_eq!(
        texts("tls.crt", &format!("{}{block}", own.pem())),
        of_certificate
    );
    let of_key = ("not_a_key", "ca.key");
    assert_eq!(texts("tls.key", ""), of_key);
    assert_eq!(texts("tls.key", &own.pem()), of_key);
    for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let other = KeyPair::generate_for(kind).unwrap();
        assert_eq!(texts("tls.key", &other.serialize_pem()), of_key);
    }
    let encrypted = own
        .key()
        .serialize_pem()
        .replace("PRIVATE", "ENCRYPTED PRIVATE");
    assert_eq!(texts("tls.key", &encrypted), of_key);
    let another = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(texts("tls.key", &another), ("other_key", "ca.key"));

    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = CertifiedIssuer::self_signed(params("p384"), p384).unwrap();
    let (code, key, text) = refusal(&Mount::of(&[&p384], &own));
    assert_eq!((code, key), ("not_p256", "ca.certificate"), "{text}");
    assert!(!text.contains("PRIVATE"));
}

#[test]
fn files_that_others_may_read_or_change_or_that_are_not_there_are_refused() {
    let own = root("own");
    let mode = |name: &str, mode: u32| {
        let mount = Mount::of(&[&own], &own);
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(mount.path(name), permissions).unwrap();
        mount.open().map_err(|refused| {
            assert_eq!(refused.flaw.code(), "file");
            refused.key
        })
    };
    for good in [0o400, 0o440, 0o600, 0o640] {
        assert!(mode("tls.key", good).is_ok(), "{good:o}");
    }
    for bad in [0o444, 0o460, 0o604] {
        assert_eq!(mode("tls.key", bad).err(), Some("ca.key"), "{bad:o}");
    }
    assert!(mode("tls.crt", 0o644).is_ok());
    assert_eq!(mode("tls.crt", 0o664).err(), Some("ca.certificate"));
    for (name, key) in [("tls.crt", "ca.certificate"), ("tls.key", "ca.key")] {
        let mount = Mount::of(&[&own], &own);
        fs::remove_file(mount.path(name)).unwrap();
        let (code, found, text) = refusal(&mount);
        assert_eq!((code, found), ("file", key));
        assert!(
            text.contains(&mount.path(name).display().to_string()),
            "{text}"
        );
    }
}

#[test]
fn a_subject_that_leaves_would_spell_otherwise_is_refused() {
    let own = {
        let mut it = params("own");
        let name = &mut it.distinguished_name;
        name.push(DnType::OrganizationName, "one");
        name.push(DnType::OrganizationalUnitName, "other");
        CertifiedIssuer::self_signed(it, KeyPair::generate().unwrap()).unwrap()
    };
    let mount = Mount::of(&[&own], &own);
    assert!(mount.open().is_ok());
    // Two values of one kind: what signs would write one of them, and no client would find the issuer.
    let (organization, unit) = ([0x55, 4, 10], [0x55, 4, 11]);
    let mut der = own.der().to_vec();
    for at in 0..der.len() - organization.len() {
        if der[at..].starts_with(&organization) {
            der[at..at + unit.len()].copy_from_slice(&unit);
        }
    }
    mount.put("tls.crt", &outgate_state::certificate_to_pem(&der));
    let (code, key, text) = refusal(&mount);
    assert_eq!((code, key), ("subject", "ca.certificate"), "{text}");
}

fn look(supplied: &SuppliedCa, now: UnixSeconds) -> CaLook {
    supplied.look(now, |_| ())
}

fn renewed(look: CaLook) -> Arc<CertificateAuthority> {
    match look {
        CaLook::Renewed(authority) => authority,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renewed_pair_is_taken_once_and_half_of_one_never() {
    let top = root("root");
    let (first, second) = (below(&top, "ca"), below(&top, "ca"));
    let mount = Mount::of(&[&first], &first);
    let supplied = mount.open().unwrap();
    let before = supplied.authority().fingerprint_sha256();
    mount.certificates(&[&second]);
    assert!(matches!(look(&supplied, NOW), CaLook::Unsettled));
    assert!(matches!(look(&supplied, NOW), CaLook::Unsettled));
    assert!(matches!(look(&supplied, SOON), CaLook::Same));
    assert_eq!(supplied.authority().fingerprint_sha256(), before);
    assert!(is_taken(&leaf(&supplied), &[&top]));
    mount.key(&second.key().serialize_pem());
    let authority = renewed(look(&supplied, NOW));
    assert_ne!(authority.fingerprint_sha256(), before);
    assert_eq!(
        authority.fingerprint_sha256(),
        supplied.authority().fingerprint_sha256()
    );
    assert!(is_taken(&leaf(&supplied), &[&top]));
    assert!(matches!(look(&supplied, NOW), CaLook::Same));
    // It is unsettled anew at the next renewal.
    fs::remove_file(mount.path("tls.key")).unwrap();
    assert!(matches!(look(&supplied, NOW), CaLook::Unsettled));
    assert!(matches!(look(&supplied, NOW), CaLook::Unsettled));
    assert!(matches!(look(&supplied, SOON), CaLook::Same));
    mount.key(&second.key().serialize_pem());
    assert!(matches!(look(&supplied, NOW), CaLook::Same));
    mount.key("damaged");
    assert!(matches!(look(&supplied, NOW), CaLook::Unsettled));
}

#[test]
fn other_roots_beside_the_same_signer_are_a_renewal() {
    let (own, next) = (root("own"), root("next"));
    let mount = Mount::of(&[&own], &own);
    let supplied = mount.open().unwrap();
    mount.certificates(&[&own, &next]);
    let authority = renewed(look(&supplied, NOW));
    assert_eq!(authority.certificate_pem().matches("BEGIN").count(), 2);
    assert_eq!(leaf(&supplied).len(), 1);
}

#[test]
fn an_expired_pair_is_not_taken_over_and_the_one_before_ends_when_it_ends() {
    let top = root("root");
    let short = changed_below(&top, "ca", |it| it.not_after = at(NOW.0 + DAY));
    let expired = changed_below(&top, "ca", |it| it.not_after = at(NOW.0 - 1));
    let mount = Mount::of(&[&short], &short);
    let supplied = mount.open().unwrap();
    mount.certificates(&[&expired]);
    mount.key(&expired.key().serialize_pem());
    assert!(matches!(look(&supplied, NOW), CaLook::Unsettled));
    assert!(matches!(look(&supplied, NOW), CaLook::Unsettled));
    assert!(matches!(look(&supplied, SOON), CaLook::Same));
    let end = UnixSeconds(NOW.0 + DAY);
    let minter = minter(supplied.authority());
    assert!(minter.leaf(&host("a.test"), UnixSeconds(end.0 - 1)).is_ok());
    let refused = minter.leaf(&host("a.test"), end);
    assert!(matches!(refused, Err(PkiError::Expired { .. })));
    mount.certificates(&[&short]);
    mount.key(&short.key().serialize_pem());
    assert!(matches!(look(&supplied, end), CaLook::Same));
    // One that ends sooner is a renewal all the same.
    let sooner = changed_below(&top, "ca", |it| it.not_after = at(NOW.0 + 3600));
    mount.certificates(&[&sooner]);
    mount.key(&sooner.key().serialize_pem());
    assert_eq!(
        renewed(look(&supplied, NOW)).not_after(),
        UnixSeconds(NOW.0 + 3600)
    );
}

#[test]
fn a_leaf_that_leaves_has_the_chain_and_its_ca_vouches_for_no_others() {
    let top = root("root");
    let (first, second) = (below(&top, "ca"), below(&top, "ca"));
    let authority = |it: &Issuer| Mount::of(&[it], it).open().unwrap().authority();
    let (one, other) = (authority(&first), authority(&second));
    let portable = minter(Arc::clone(&one))
        .portable(&host("a.test"), NOW)
        .unwrap();
    let sent: Vec<_> = CertificateDer::pem_slice_iter(portable.chain_pem().as_bytes())
        .map(Result::unwrap)
        .collect();
    assert_eq!(sent.len(), 2);
    assert!(is_taken(&sent, &[&top]));
    let vouched = |by: &CertificateAuthority, chain: &str| {
        by.vouches_for(chain, portable.key_pem(), &host("a.test"), NOW)
            .is_some()
    };
    assert!(vouched(&one, portable.chain_pem()) && !vouched(&other, portable.chain_pem()));
    let alone = outgate_state::certificate_to_pem(&sent[0]);
    assert!(!vouched(&one, &alone), "its intermediate is gone");
}

#[test]
fn another_process_trusts_every_ca_of_a_file_while_one_follows_the_other() {
    let (old, new) = (root("old"), root("new"));
    let received = |known: &CaCertificate, by: &Issuer| {
        let minter = minter(Mount::of(&[by], by).open().unwrap().authority());
        let leaf = minter.portable(&host("a.test"), NOW).unwrap();
        known
            .receive(leaf.chain_pem(), leaf.key_pem(), &host("a.test"), NOW)
            .is_ok()
    };
    let folder = Mount::new();
    folder.certificates(&[&old, &new]);
    let both = CaCertificate::load(&folder.path("tls.crt"), NOW).unwrap();
    assert!(received(&both, &old) && received(&both, &new) && !received(&both, &root("old")));
    assert_eq!(both.certificate_pem().matches("BEGIN").count(), 2);
    folder.certificates(&[&old]);
    let one = CaCertificate::load(&folder.path("tls.crt"), NOW).unwrap();
    assert!(received(&one, &old) && !received(&one, &new));
    let ended = {
        let mut it = params("ended");
        it.not_after = at(NOW.0 - 1);
        CertifiedIssuer::self_signed(it, KeyPair::generate().unwrap()).unwrap()
    };
    folder.certificates(&[&new, &ended]);
    let known = CaCertificate::load(&folder.path("tls.crt"), NOW).unwrap();
    assert_eq!(known.certificate_pem().matches("BEGIN").count(), 1);
}

#[test]
fn what_guests_trust_is_published_but_never_beside_a_key_that_was_made_here() {
    let top = root("root");
    let middle = below(&top, "middle");
    let authority = Mount::of(&[&middle, &top], &middle)
        .open()
        .unwrap()
        .authority();
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("ca");
    let roots = Mount::of(&[&root("system")], &top);
    let publish = |dir: &Path| authority.publish(dir, Some(&roots.path("tls.crt")));
    publish(&folder).unwrap();
    let mut there: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, ["bundle.pem", "ca.crt"]);
    let published = fs::read_to_string(folder.join("ca.crt")).unwrap();
    assert_eq!(published, authority.certificate_pem());
    let bundle = fs::read_to_string(folder.join("bundle.pem")).unwrap();
    assert!(bundle.contains(&published) && bundle.matches("BEGIN").count() == 2);

    let own = state.path().join("own");
    CertificateAuthority::open_or_create(&own, NOW).unwrap();
    let before = fs::read(own.join("ca.crt")).unwrap();
    assert!(matches!(publish(&own), Err(PkiError::MadeHere { .. })));
    assert_eq!(fs::read(own.join("ca.crt")).unwrap(), before);
}
