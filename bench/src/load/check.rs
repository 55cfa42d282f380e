//! Is there a peer, and does it do its job? One that does not is not measured.

use std::time::{Duration, Instant};

use super::{
    Outcome,
    arguments::WorkArguments,
    connection::{Answer, Connection},
    target::Target,
    window,
};
use crate::{clock, processes};

/// Of one attempt.
const LONGEST: Duration = Duration::from_secs(8);
const ATTEMPT: Duration = Duration::from_secs(3);
const BETWEEN: Duration = Duration::from_millis(2);

/// Looks for texts in what the origin received.
pub(super) async fn check(work: &WorkArguments, target: &Target) -> anyhow::Result<Outcome> {
    let mut body = Vec::new();
    let Answer { status, .. } = tokio::time::timeout(LONGEST, async {
        let (mut connection, _) = Connection::dial(target).await?;
        connection
            .call(&mut |piece| body.extend_from_slice(piece))
            .await
    })
    .await??;
    let body = String::from_utf8_lossy(&body);
    let lower = body.to_ascii_lowercase();
    let holds = |text: &String| lower.contains(&text.to_ascii_lowercase());
    let expected = work.expect.iter().all(holds);
    let forbidden = work.forbid.iter().any(holds);
    Ok(Outcome {
        text: format!(
            "{body}check: status {status} expect={expected} forbidden-present={forbidden}"
        ),
        success: status == 200 && expected && !forbidden,
    })
}

/// Tries until a request is answered 200. Reports the milliseconds since the peer was started.
pub(super) async fn wait_ready(
    longest: f64,
    work: &WorkArguments,
    target: &Target,
) -> anyhow::Result<Outcome> {
    let since = work.since_ns.unwrap_or_else(clock::unix_ns);
    let end = Instant::now() + window::seconds(longest)?;
    loop {
        let attempt = tokio::time::timeout(ATTEMPT, attempt(target)).await;
        let problem = match attempt {
            Ok(Ok(())) => {
                let ready = std::time::Duration::from_nanos(clock::unix_ns().saturating_sub(since));
                let text = format!("{{\"ready_ms\":{:.1}}}", ready.as_secs_f64() * 1e3);
                return Ok(Outcome {
                    text,
                    success: true,
                });
            }
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if !work.alive.0.iter().all(|pid| processes::is_alive(*pid)) {
            anyhow::bail!("the peer has ended: {problem}");
        }
        anyhow::ensure!(Instant::now() < end, "not ready: {problem}");
        tokio::time::sleep(BETWEEN).await;
    }
}

async fn attempt(target: &Target) -> std::io::Result<()> {
    let (mut connection, _) = Connection::dial(target).await?;
    connection.fetch().await.map(|_| ())
}
