use outgate_journey::{
    denial::{Denial, DenyCode},
    inject::{
        CredentialFault, InjectionPlan,
        Presentation::{self, ByRequest, NotByRequest},
        plan_injection,
    },
    limit::admit,
    policy::{Rule, TokenDemand},
};

use crate::support::{
    FakePlane, ONE, Store, Vault, code, header_form, injecting, permit, policy, rule, session, to,
};

/// Plans for a request to the one rule, over TLS or (`:80`) in clear.
fn plan(
    plane: &FakePlane,
    rule: Rule,
    target: &str,
    presentation: Presentation,
) -> Result<InjectionPlan<String>, Denial> {
    let policy = policy(vec![rule]);
    let destination = match to(target) {
        clear if target.ends_with(":80") => clear.in_clear(),
        tunnel => tunnel,
    };
    let permit = permit(&policy, destination);
    let admission = admit(&plane.counters, &policy, permit, Some(session(ONE))).unwrap();
    plan_injection(
        &plane.vault,
        &plane.store,
        &plane.ended,
        admission,
        presentation,
    )
}

fn in_clear(over_plaintext: bool) -> Rule {
    injecting("a.test", |rule| {
        rule.plaintext = true;
        rule.ports.push(outgate_journey::policy::Port::HTTP);
        rule.injection.as_mut().unwrap().over_plaintext = over_plaintext;
    })
}

fn optional(rule: &mut Rule) {
    rule.token = TokenDemand::Optional;
}

fn audit_closed() -> FakePlane {
    FakePlane {
        store: Store(false),
        ..FakePlane::default()
    }
}

fn credential_missing(fault: CredentialFault) -> FakePlane {
    FakePlane {
        vault: Vault {
            fault: Some(fault),
            ..Vault::default()
        },
        ..FakePlane::default()
    }
}

#[test]
fn the_rules_own_credential_is_attached_to_a_request_that_presents_a_token() {
    let plane = FakePlane::default();
    let rule = injecting("a.test", |_| {});
    let plan = plan(&plane, rule.clone(), "a.test:443", ByRequest).unwrap();
    let attachment = plan.attachment().unwrap();
    assert_eq!(attachment.lease(), "a.test-key");
    assert_eq!(attachment.injection(), rule.injection.as_ref());
    assert!(plan.is_injected_destination());
    assert_eq!(
        plan.admission()
            .permit()
            .allowed()
            .destination()
            .to_string(),
        "a.test:443"
    );
    assert_eq!(plane.leased(), ["a.test-key"]);
}

#[test]
fn nothing_is_drawn_for_a_destination_without_a_credential() {
    // Nor does it depend on what only credentials need.
    for plane in [FakePlane::default(), audit_closed()] {
        for presentation in [ByRequest, NotByRequest] {
            let plan = plan(&plane, rule("a.test", |_| {}), "a.test:443", presentation).unwrap();
            assert!(plan.attachment().is_none() && !plan.is_injected_destination());
            assert!(plane.leased().is_empty());
        }
    }
}

#[test]
fn a_request_that_presents_no_token_draws_nothing_however_its_connection_is_attributed() {
    let plane = FakePlane::default();
    let required = plan(
        &plane,
        injecting("a.test", |_| {}),
        "a.test:443",
        NotByRequest,
    );
    assert_eq!(code(required), Some(DenyCode::TokenMissing));
    let optional = plan(
        &plane,
        injecting("a.test", optional),
        "a.test:443",
        NotByRequest,
    )
    .unwrap();
    assert!(optional.attachment().is_none());
    // The guest's own credentials are taken out all the same.
    assert!(optional.is_injected_destination());
    assert!(plane.leased().is_empty());
}

#[test]
fn a_credential_leaves_in_clear_only_where_the_rule_says_so() {
    let plane = FakePlane::default();
    let refused = plan(&plane, in_clear(false), "a.test:80", ByRequest);
    assert_eq!(code(refused), Some(DenyCode::CredentialOverPlaintext));
    assert!(plane.leased().is_empty());

    let open = plan(&plane, in_clear(true), "a.test:80", ByRequest).unwrap();
    assert!(open.attachment().is_some());
    let tls = plan(&plane, in_clear(false), "a.test:443", ByRequest).unwrap();
    assert!(tls.attachment().is_some());
}

#[test]
fn what_cannot_be_recorded_draws_no_credential() {
    let plane = audit_closed();
    let refused = plan(&plane, injecting("a.test", |_| {}), "a.test:443", ByRequest);
    assert_eq!(code(refused), Some(DenyCode::AuditUnavailable));
    assert!(plane.leased().is_empty());
    let optional = plan(
        &plane,
        injecting("a.test", optional),
        "a.test:443",
        ByRequest,
    );
    assert_eq!(code(optional), Some(DenyCode::AuditUnavailable));
}

#[test]
fn a_credential_that_cannot_be_leased_refuses_the_request_even_where_a_token_is_optional() {
    for (fault, detail) in [
        (
            CredentialFault::Missing("the file is gone".into()),
            "the source has no value: the file is gone",
        ),
        (CredentialFault::Unfit, "the value does not fit the form"),
    ] {
        for rule in [
            injecting("a.test", |_| {}),
            injecting("a.test", optional),
            injecting("a.test", |rule| {
                rule.injection.as_mut().unwrap().form = header_form("x-key");
            }),
        ] {
            let plane = credential_missing(fault.clone());
            let denial = plan(&plane, rule, "a.test:443", ByRequest).unwrap_err();
            assert_eq!(denial.code(), DenyCode::CredentialUnavailable);
            assert_eq!(denial.detail(), detail);
            assert_eq!(denial.rule().unwrap().as_str(), "rule a.test");
        }
    }
}
