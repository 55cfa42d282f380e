//! What needs no token: exactly the paths of the file, in exactly one spelling.

use serde_json::json;

use crate::world::{World, echoed, reason};

#[tokio::test]
async fn a_path_is_exempt_in_its_own_spelling_alone() {
    let exempt = json!([
        { "paths": ["/healthz", "/public/**"] },
        { "methods": "POST", "paths": "/hooks/*" },
    ]);
    let world = World::in_clear(json!({ "exempt": exempt })).await;
    for (method, path) in [
        ("GET", "/healthz"),
        ("HEAD", "/healthz"),
        ("GET", "/healthz?full=1"),
        ("GET", "/healthz?x=/../admin"),
        ("GET", "/public"),
        ("GET", "/public/"),
        ("GET", "/public/a/b.css"),
        ("GET", "/public/a%20b"),
        ("GET", "/public/..a"),
        ("POST", "/hooks/x"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: agent.test\r\n\r\n");
        assert_eq!(world.raw(&head).await.status, 200, "{method} {path}");
    }
    let asked = world.service.asked();
    for (method, path) in [
        ("POST", "/healthz"),
        ("get", "/healthz"),
        ("GET", "/healthz/"),
        ("GET", "/Healthz"),
        ("GET", "/healthz/.."),
        ("GET", "/healthzz"),
        ("GET", "/healthz%00"),
        ("GET", "/healthz;x"),
        ("GET", "/%68ealthz"),
        ("GET", "//healthz"),
        ("GET", "/./healthz"),
        ("GET", "/x/../healthz"),
        ("GET", "/public/../admin"),
        ("GET", "/public/./a"),
        ("GET", "/public/%2e%2e/admin"),
        ("GET", "/public/%2E%2E/admin"),
        ("GET", "/public/.%2e/admin"),
        ("GET", "/public/%252e%252e/admin"),
        ("GET", "/public/%25252e%25252e/admin"),
        ("GET", "/public/..%2fadmin"),
        ("GET", "/public%2fa"),
        ("GET", "/public/..%5cadmin"),
        ("GET", "/public/..\\admin"),
        ("GET", "/public/..;/admin"),
        ("GET", "/public/..;x=1/admin"),
        ("GET", "/public//admin"),
        ("GET", "/public/%2f/admin"),
        ("GET", "/public/%c0%ae%c0%ae/admin"),
        ("GET", "/public/%"),
        ("GET", "/public/%zz"),
        ("GET", "/public/%0d%0aX:1"),
        ("GET", "/public/a%3Fb"),
        ("GET", "/publicx"),
        ("GET", "/PUBLIC/a"),
        ("GET", "/admin?/public/a"),
        ("GET", "/hooks/x"),
        ("POST", "/hooks/x/y"),
        ("POST", "/hooks/"),
        ("OPTIONS", "/public/a"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: agent.test\r\n\r\n");
        let response = world.raw(&head).await;
        let code = reason(&response);
        assert!(
            code == "bearer_missing" || code == "malformed_request",
            "{method} {path}: {response:?}"
        );
    }
    assert_eq!(world.service.asked(), asked);
    // With a token such a path is the service's to judge, byte for byte.
    let line = format!("Authorization: Bearer {}", world.token());
    let echo = echoed(&world.get("/public/%2e%2e/admin", &[&line]).await);
    assert_eq!(echo["target"], "/public/%2e%2e/admin");
}

#[tokio::test]
async fn nothing_that_upgrades_is_exempt() {
    let world = World::in_clear(json!({ "exempt": [{ "paths": "/**" }] })).await;
    assert_eq!(world.get("/x", &[]).await.status, 200);
    let upgrade = ["Connection: upgrade", "Upgrade: websocket"];
    let response = world.get("/ws", &upgrade).await;
    assert_eq!(
        (response.status, reason(&response).as_str()),
        (401, "bearer_missing")
    );
    assert_eq!(response.headers.get("connection"), Some("close"));
    assert_eq!(world.service.asked(), 1);
}
