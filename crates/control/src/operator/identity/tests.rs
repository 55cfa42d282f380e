use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::operator::settings::ClaimsVerifier;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn token(name: &str, file: PathBuf) -> TokenSettings {
    TokenSettings {
        name: name.to_owned(),
        file,
        scopes: vec![Scope::SessionRead],
        tenant: Some("team-a".to_owned()),
    }
}

/// Takes `good.x.y` for a good token, whose claims are these.
struct Claims(Value);

impl ClaimsVerifier for Claims {
    fn verify_claims<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        let good = token == "good.x.y";
        Box::pin(async move { good.then(|| self.0.clone()).ok_or_else(|| "bad".to_owned()) })
    }
}

fn provider(claims: Value, tenant_claim: Option<&str>) -> OidcSettings {
    OidcSettings {
        name: "idp".to_owned(),
        verifier: Arc::new(Claims(claims)),
        name_claim: "sub".to_owned(),
        scopes_claim: "realm.groups".to_owned(),
        scopes: BTreeMap::from([
            ("secops".to_owned(), vec![Scope::Revoke, Scope::AuditRead]),
            ("dev".to_owned(), vec![Scope::SessionCreate]),
        ]),
        tenant_claim: tenant_claim.map(str::to_owned),
    }
}

async fn ask(identities: &Identities, authorization: &[&str]) -> Result<Identity, ErrorCode> {
    let mut headers = HeaderMap::new();
    for value in authorization {
        headers.append(AUTHORIZATION, value.parse().unwrap());
    }
    let answer = identities.authenticate(&headers).await;
    answer.map_err(|refusal| refusal.code)
}

#[tokio::test]
async fn a_token_is_its_owner_and_nothing_close_to_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [token("ci", file(&dir, "ci", &format!("{TOKEN}\n")))];
    let identities = Identities::read(&settings, Vec::new()).unwrap();
    for good in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN} ")] {
        let identity = ask(&identities, &[&good]).await.unwrap();
        assert_eq!(
            (identity.by().as_str(), identity.tenant()),
            ("token:ci@team-a", Some("team-a"))
        );
        assert!(identity.scopes.has_any(&[Scope::SessionRead]));
        assert!(!identity.scopes.has_any(&[Scope::Revoke]));
    }
    let invalid = Err(ErrorCode::CredentialInvalid);
    for bad in [
        format!("Bearer {TOKEN}0"),
        format!("Bearer {}", &TOKEN[1..]),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
        "Bearer ".to_owned(),
        "Bearer good.x.y".to_owned(),
    ] {
        assert_eq!(ask(&identities, &[&bad]).await, invalid, "{bad}");
    }
    let good = format!("Bearer {TOKEN}");
    assert_eq!(ask(&identities, &[&good, &good]).await, invalid);
    assert_eq!(
        ask(&identities, &[]).await,
        Err(ErrorCode::CredentialMissing)
    );
}

#[test]
fn a_token_file_that_is_short_shared_or_readable_by_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let exposed = file(&dir, "exposed", TOKEN);
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let cases = [
        vec![token("a", file(&dir, "short", &TOKEN[1..]))],
        vec![token(
            "a",
            file(&dir, "spaced", "0123456789abcdef 0123456789abcdef"),
        )],
        vec![token("a", dir.path().join("missing"))],
        vec![token("a", exposed)],
        vec![
            token("b", file(&dir, "b", TOKEN)),
            token("a", file(&dir, "c", TOKEN)),
        ],
    ];
    for case in cases {
        let error = Identities::read(&case, Vec::new()).unwrap_err();
        assert_eq!(error.place, "operator.tokens a");
        assert!(!error.to_string().contains(TOKEN));
    }
}

#[tokio::test]
async fn claims_give_a_name_scopes_and_a_tenant_or_nothing() {
    let good = json!({"sub": "alice", "realm": {"groups": ["secops", "other"]}, "org": "team-b"});
    let identities = Identities::read(&[], vec![provider(good, Some("org"))]).unwrap();
    let alice = ask(&identities, &["Bearer good.x.y"]).await.unwrap();
    assert_eq!(
        (alice.by().as_str(), alice.tenant()),
        ("oidc:alice@team-b", Some("team-b"))
    );
    assert!(
        alice.scopes.has_any(&[Scope::Revoke]) && !alice.scopes.has_any(&[Scope::SessionCreate])
    );
    assert_eq!(
        ask(&identities, &["Bearer bad.x.y"]).await,
        Err(ErrorCode::CredentialInvalid)
    );
    for (claims, tenant_claim) in [
        (json!({"realm": {"groups": "secops"}}), None),
        (json!({"sub": 5}), None),
        (json!({"sub": ""}), None),
        (json!({"sub": "a\nb"}), None),
        (json!({"sub": "alice"}), Some("org")),
        (json!({"sub": "alice", "org": ["team-a"]}), Some("org")),
        (json!({"sub": "alice", "org": "a/b"}), Some("org")),
    ] {
        let identities =
            Identities::read(&[], vec![provider(claims.clone(), tenant_claim)]).unwrap();
        let answer = ask(&identities, &["Bearer good.x.y"]).await;
        assert_eq!(answer, Err(ErrorCode::CredentialInvalid), "{claims}");
    }
}

#[tokio::test]
async fn two_providers_cannot_give_two_people_one_name() {
    let claims = json!({ "sub": "alice", "realm": { "groups": ["dev"] } });
    let mut other = provider(claims.clone(), None);
    other.name = "https://other.example.org".to_owned();
    let alone = Identities {
        tokens: Vec::new(),
        oidc: vec![provider(claims.clone(), None)],
    };
    let alice = ask(&alone, &["Bearer good.x.y"]).await.unwrap();
    assert_eq!(alice.operator.name, "alice");
    let both = Identities {
        tokens: Vec::new(),
        oidc: vec![other, provider(claims, None)],
    };
    let alice = ask(&both, &["Bearer good.x.y"]).await.unwrap();
    assert_eq!(alice.operator.name, "https://other.example.org#alice");
}

#[tokio::test]
async fn groups_that_nobody_mapped_give_no_scope() {
    for groups in [json!(["admin"]), json!("admin root"), json!(7), json!(null)] {
        let claims = json!({"sub": "bob", "realm": {"groups": groups}});
        let identities = Identities::read(&[], vec![provider(claims, None)]).unwrap();
        let bob = ask(&identities, &["Bearer good.x.y"]).await.unwrap();
        assert!(!bob.scopes.has_any(Scope::ALL));
        assert_eq!(bob.tenant(), None);
    }
    let claims = json!({"sub": "bob", "realm": {"groups": "dev secops"}});
    let identities = Identities::read(&[], vec![provider(claims, None)]).unwrap();
    let bob = ask(&identities, &["Bearer good.x.y"]).await.unwrap();
    assert!(bob.scopes.has_any(&[Scope::SessionCreate]) && bob.scopes.has_any(&[Scope::Revoke]));
}

#[test]
fn a_claims_path_leads_into_objects_and_finds_names_with_dots() {
    let claims = json!({"a.b": {"c": 1}, "a": {"b": {"c": 2}, "d": 3}, "e.f": 4});
    for (path, expected) in [
        ("a.b.c", Some(1)),
        ("a.d", Some(3)),
        ("e.f", Some(4)),
        ("a.b.d", None),
        ("a..d", None),
        ("", None),
        ("e.f.g", None),
    ] {
        assert_eq!(
            claim(&claims, path).and_then(Value::as_i64),
            expected,
            "{path}"
        );
    }
}

#[test]
fn what_others_imposed_is_not_a_tenants_to_take_back() {
    let of = |name: &str, tenant: Option<&str>| {
        let (name, tenant) = (name.to_owned(), tenant.map(str::to_owned));
        Identity::of(OperatorKind::Oidc, name, tenant, Scopes::default())
    };
    let bound = of("ann@example.org", Some("team-a"));
    assert_eq!(bound.by(), "oidc:ann@example.org@team-a");
    assert!(bound.may_take_back(&bound.imposed_by()));
    assert!(bound.may_take_back("webhook:soar@team-a"));
    for others in [
        of("ann", None).imposed_by(),
        // Its name ends like a bound one's.
        of("ann@team-a", None).imposed_by(),
        of("ann", Some("team-b")).imposed_by(),
        of("ann", Some("my-team-a")).imposed_by(),
        "tripwire".to_owned(),
        "local:1000".to_owned(),
        "team-a".to_owned(),
    ] {
        assert!(!bound.may_take_back(&others), "{others}");
        assert!(of("root", None).may_take_back(&others), "{others}");
    }
}
