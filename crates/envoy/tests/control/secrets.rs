//! The secrets that Envoy's injectors ask for: over the door, and for data planes that may not have them.

use outgate_envoy::render::injection_key;
use outgate_envoy_proto::envoy::{
    config::core::v3::data_source::Specifier,
    extensions::transport_sockets::tls::v3::{Secret, secret::Type},
};
use outgate_journey::{
    denial::DenyCode::CredentialUnavailable,
    policy::{CredentialName, InjectionForm},
};
use outgate_xds::{Client, Lookup, Source, type_urls::SECRET};
use prost::Message;

use crate::{
    ask::{Ask, basic},
    nodes::Stream,
    world::{K1, K2, World},
};

/// What is told of a secret: its value; `None`: there is none of this name.
async fn told(world: &World, name: &str) -> Option<String> {
    let mut stream = Stream::open(world.another_link().await, "envoy-1").await;
    stream.subscribe(&[name]).await;
    value(&mut stream, name).await
}

async fn value(stream: &mut Stream, name: &str) -> Option<String> {
    let response = stream.next().await;
    if response.resources.is_empty() {
        assert_eq!(response.removed_resources, [name]);
        return None;
    }
    assert_eq!(response.resources.len(), 1);
    let secret = response.resources[0].resource.as_ref().unwrap();
    let secret = Secret::decode(secret.value.as_slice()).unwrap();
    assert_eq!(secret.name, name);
    let Some(Type::GenericSecret(generic)) = secret.r#type else {
        panic!("not generic");
    };
    match generic.secret.unwrap().specifier {
        Some(Specifier::InlineBytes(value)) => Some(String::from_utf8(value).unwrap()),
        _ => panic!("not in place"),
    }
}

#[tokio::test]
async fn the_secret_of_the_name_that_is_attached_is_the_whole_field() {
    let world = World::new().await;
    let guest = world.guest().await;
    for (host, field) in [
        ("key.test", K1.to_owned()),
        ("bearer.test", format!("Bearer {K1}")),
        ("basic.test", basic("robot", K2)),
    ] {
        let tunnel = world.tunnel(&format!("{host}:443"), None).await;
        let (_, name) = world
            .admit(&Ask::bumped(&tunnel, host, "/").by(&guest))
            .await;
        assert_eq!(told(&world, &name).await, Some(field), "{host}");
    }
    assert_eq!(told(&world, "credentials/k1").await.as_deref(), Some(K1));
    // No form of a rule; a form of a rule for another credential; nothing of the kind.
    let form = InjectionForm::Header {
        name: "x-other".parse().unwrap(),
        prefix: String::new(),
        suffix: String::new(),
    };
    let other = injection_key(&CredentialName::new("k1"), &form).unwrap();
    let crossed = name_of("k2");
    for name in [
        &*other,
        &crossed,
        "injections/k1",
        "credentials/k3",
        "credentials/",
        "leaf.test",
    ] {
        assert_eq!(told(&world, name).await, None, "{name}");
    }
}

/// The name of a credential as `key.test` attaches one.
fn name_of(credential: &str) -> String {
    let form = InjectionForm::Header {
        name: "x-api-key".parse().unwrap(),
        prefix: String::new(),
        suffix: String::new(),
    };
    injection_key(&CredentialName::new(credential), &form).unwrap()
}

#[tokio::test]
async fn a_credential_that_changes_is_told_and_one_that_is_lost_is_told_as_empty() {
    let world = World::new().await;
    let guest = world.guest().await;
    let name = name_of("k1");
    let mut stream = Stream::open(world.another_link().await, "envoy-1").await;
    stream.subscribe(&[&name]).await;
    assert_eq!(value(&mut stream, &name).await.as_deref(), Some(K1));
    let change = |value| {
        world.put_credential("k1", value);
        world.source.credential_changed(&CredentialName::new("k1"));
    };
    change(Some("another-live-value-Zx81"));
    assert_eq!(
        value(&mut stream, &name).await.as_deref(),
        Some("another-live-value-Zx81")
    );
    // Removed, Envoy would go on with it.
    change(None);
    assert_eq!(value(&mut stream, &name).await.as_deref(), Some(""));
    let tunnel = world.tunnel("key.test:443", None).await;
    let ask = Ask::bumped(&tunnel, "key.test", "/").by(&guest);
    let allowed = world.ask(&ask).await.unwrap();
    let refused = world.limit(allowed.id()).await.expect_err("lost");
    refused.is(CredentialUnavailable, 503, "lost");
    change(Some(K1));
    assert_eq!(value(&mut stream, &name).await.as_deref(), Some(K1));
}

#[tokio::test]
async fn a_credential_is_served_to_the_data_planes_that_may_have_it_alone() {
    let world = World::new().await;
    let serve = |planes: &[&str]| {
        let planes = planes.iter().map(|plane| (*plane).to_owned()).collect();
        let planes = [(CredentialName::new("k1"), planes)].into();
        let policy = &world.gateway.core().live().policy;
        world.source.set_policy(policy, None, planes).unwrap();
    };
    serve(&["envoy-1", "envoy-2"]);
    let (injected, free) = (name_of("k1"), "credentials/k2");
    let found = async |client: &str, name: &str| {
        let client = Client::new(client, 1);
        matches!(
            world.source.one(&client, SECRET, name).await,
            Lookup::Found(_)
        )
    };
    for (client, is_served) in [
        ("envoy-1", true),
        ("envoy-2", true),
        ("envoy-3", false),
        ("envoy", false),
        ("ENVOY-1", false),
        ("", false),
        // Whoever comes by the socket has no name.
        ("local", false),
    ] {
        assert_eq!(found(client, &injected).await, is_served, "{client}");
        assert_eq!(found(client, "credentials/k1").await, is_served, "{client}");
        assert!(found(client, free).await, "{client}");
    }
    serve(&["envoy-3"]);
    assert!(!found("envoy-1", &injected).await);
    assert!(found("envoy-3", &injected).await);
}

#[tokio::test]
async fn a_form_that_no_rule_attaches_any_more_has_no_secret() {
    let world = World::new().await;
    let name = name_of("k1");
    let mut stream = Stream::open(world.another_link().await, "envoy-1").await;
    stream.subscribe(&[&name]).await;
    assert_eq!(value(&mut stream, &name).await.as_deref(), Some(K1));
    world.reload(|config| {
        for at in [0, 10] {
            config["destinations"][at]["inject"]["header"] = "x-other".into();
        }
    });
    assert_eq!(value(&mut stream, &name).await, None);
}
