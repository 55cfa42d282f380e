//! `outgate demo`: the whole story with real requests. A real HTTPS API, a real gateway (this binary's `serve`, in a
//! process of its own), a session, and a client that holds nothing but its token.

mod api;
mod client;
mod gateway;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use owo_colors::OwoColorize;

use self::{api::DemoApi, client::Client, gateway::DemoGateway};
use super::block_on;
use crate::style::say;

/// The API's name; only the gateway's resolver knows it.
const HOST: &str = "api.demo.example";

pub(crate) fn run() -> Result<ExitCode> {
    block_on(async {
        let mut story = Story { failed: 0 };
        tell(&mut story).await?;
        Ok(if story.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

struct Story {
    failed: usize,
}

impl Story {
    fn chapter(&self, text: &str) {
        say!("\n{}", text.bold());
    }

    fn request(&self, text: &str) {
        say!("  {} {text}", "→".dimmed());
    }

    /// Prints what came back, and whether it is what should have.
    fn expect(&mut self, holds: bool, came: &str, means: &str) {
        let mark = if holds {
            format!("{}", "✓".green())
        } else {
            format!("{}", "✗".red())
        };
        say!("  {} {came}", "←".dimmed());
        say!("  {mark} {means}");
        if !holds {
            self.failed += 1;
        }
    }
}

async fn tell(story: &mut Story) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("outgate-demo-")
        .tempdir()
        .context("a folder for the demo")?;
    let api = DemoApi::start().await?;
    let key = api.key().to_owned();
    say!(
        "An HTTPS API that accepts only its real key   https://{HOST}:{}",
        api.port()
    );
    let gateway = DemoGateway::start(folder.path(), &api).await?;
    say!(
        "A gateway that holds the key                  http://{}",
        gateway.proxy()
    );
    let session = gateway.create_session().await?;
    say!(
        "A session for a workload that does not        {}",
        session.id
    );
    let client = Client::new(&gateway, &api)?;
    let token = session.token.as_str();

    story.chapter("1. No token: refused");
    story.request("GET /v1/whoami, no token");
    let answer = client.get(None, "/v1/whoami").await?;
    story.expect(
        answer.is_denied(401, "token_missing"),
        &answer.line(),
        "the API was not asked",
    );
    if api.requests() != 0 {
        bail!("the API saw a request without a token");
    }

    story.chapter(
        "2. The session token, where the API key belongs: the real key is attached on the far side",
    );
    story.request("GET /v1/whoami, x-api-key: <session token>");
    let answer = client.get(Some(token), "/v1/whoami").await?;
    story.expect(
        answer.status == 200,
        &answer.line(),
        "the API saw its real key, and only that",
    );
    if api.saw(token) {
        story.expect(
            false,
            "the API saw the session token",
            "it must never leave the gateway",
        );
    }

    story.chapter("3. A host that no rule names: refused, not even looked up");
    story.request("CONNECT elsewhere.example:443");
    let answer = client.connect_elsewhere(token).await?;
    story.expect(
        answer.is_denied(403, "destination_not_allowed"),
        &answer.line(),
        "deny by default",
    );

    story.chapter("4. The API echoes the key: scrubbed from what comes back");
    story.request("GET /v1/echo, x-api-key: <session token>");
    let answer = client.get(Some(token), "/v1/echo").await?;
    let clean = answer.status == 200 && !answer.reveals(&key);
    story.expect(
        clean,
        &answer.line(),
        "in the header, in the text and in hex: masked",
    );

    story.chapter("5. The session is ended in mid-stream: the stream is cut");
    cut_a_stream(story, &client, &gateway, &session).await?;
    story.request("GET /v1/whoami, x-api-key: <session token>");
    let answer = client.get(Some(token), "/v1/whoami").await?;
    story.expect(
        answer.is_denied(403, "session_revoked"),
        &answer.line(),
        "and the token is worth nothing any more",
    );

    story.chapter("6. The audit trail");
    let kept = folder.keep();
    gateway.stop(story).await?;
    let trail = kept.join("state").join("audit");
    match outgate_audit::verify(&trail, &outgate_audit::VerifyOptions::default(), |_| {}) {
        Ok(report) => {
            let text = format!("{} records, every allow and every deny", report.records);
            story.expect(report.records > 6, &text, "the hash chain verifies");
        }
        Err(error) => story.expect(false, &error.to_string(), "the hash chain verifies"),
    }
    say!("    {}", trail.join(outgate_audit::RECORDS_FILE).display());
    say!("    read it    outgate audit show {}", trail.display());
    say!("    verify it  outgate audit verify {}", trail.display());
    if story.failed == 0 {
        say!("\n{}", "Every step did what it should.".green().bold());
    } else {
        say!(
            "\n{}",
            format!("{} steps did not do what they should.", story.failed)
                .red()
                .bold()
        );
    }
    Ok(())
}

async fn cut_a_stream(
    story: &mut Story,
    client: &Client,
    gateway: &DemoGateway,
    session: &outgate_control::operator::CreatedSession,
) -> Result<()> {
    story.request("GET /v1/stream, x-api-key: <session token>");
    let mut stream = client.open_stream(&session.token, "/v1/stream").await?;
    for _ in 0..2 {
        let event = stream
            .next_event()
            .await?
            .context("the stream ended too early")?;
        say!("  {} {event}", "←".dimmed());
    }
    story.request(&format!("outgate session end {}", session.id));
    gateway.end_session(&session.id).await?;
    let started = std::time::Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.drain())
        .await
        .is_ok();
    let after = started.elapsed();
    let came = if ended {
        format!("the stream broke off after {} ms", after.as_millis())
    } else {
        "it goes on".to_owned()
    };
    story.expect(
        ended && after < Duration::from_secs(1),
        &came,
        "within a second of the order",
    );
    Ok(())
}
