//! `outgate health`: whether the gateway answers, and whether it should be given work. For probes: it asks the socket in the
//! state folder, leaves no record, writes no file and is over within two seconds.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use outgate_control::client::{ClientError, OperatorClient};
use serde_json::json;

use super::{block_on, operator::local_state};
use crate::{
    cli::Health,
    style::{say, tell},
};

/// A gateway that takes longer is as good as gone to whoever asks every second.
const WITHIN: Duration = Duration::from_secs(2);

pub(crate) fn run(health: &Health, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let found = local_state(&health.place, state_dir).and_then(|state| {
        let client = OperatorClient::new(&state.operator_socket());
        block_on(async { Ok(ask(&client, health.ready).await) })
    });
    let answer = found.unwrap_or_else(|error| Answer::bad("failed", format!("{error:#}")));
    if health.json {
        say!("{}", answer.as_json());
    } else {
        tell(&answer.text());
    }
    Ok(ExitCode::from(u8::from(!answer.is_good)))
}

/// What is said of the gateway.
struct Answer {
    is_good: bool,
    /// `ok`, `ready`, or why not: a stable word.
    code: String,
    detail: String,
}

impl Answer {
    fn good(code: &str) -> Self {
        Self {
            is_good: true,
            code: code.to_owned(),
            detail: String::new(),
        }
    }

    fn bad(code: &str, detail: String) -> Self {
        Self {
            is_good: false,
            code: code.to_owned(),
            detail,
        }
    }

    /// One line.
    fn text(&self) -> String {
        let detail = self.detail.replace('\n', "; ");
        match self.is_good {
            true => self.code.clone(),
            false => format!("{}: {detail}", self.code),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        json!({ "ok": self.is_good, "code": self.code, "detail": self.detail })
    }
}

async fn ask(client: &OperatorClient, ready: bool) -> Answer {
    let asking = async {
        match ready {
            true => client.ready().await.map(drop),
            false => client.health().await.map(drop),
        }
    };
    match tokio::time::timeout(WITHIN, asking).await {
        Ok(Ok(())) => Answer::good(if ready { "ready" } else { "ok" }),
        // Whatever it says no to: it answers.
        Ok(Err(ClientError::Refused { .. })) if !ready => Answer::good("ok"),
        Ok(Err(ClientError::Refused { code, detail, .. })) => Answer::bad(&code, detail),
        Ok(Err(error)) => Answer::bad(error.code(), error.to_string()),
        Err(_) => {
            let seconds = WITHIN.as_secs();
            Answer::bad("no_answer", format!("none within {seconds} s"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, time::Instant};

    use super::*;

    fn asked(client: &OperatorClient, ready: bool) -> Answer {
        block_on(async { Ok(ask(client, ready).await) }).unwrap()
    }

    #[test]
    fn nobody_and_somebody_who_says_nothing_are_told_apart_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("operator.sock");
        let client = OperatorClient::new(&socket);
        for ready in [false, true] {
            let answer = asked(&client, ready);
            assert_eq!((answer.is_good, &*answer.code), (false, "not_running"));
            assert!(!answer.text().contains('\n'));
        }
        // The kernel takes the connection, and nobody the call.
        let _silent = UnixListener::bind(&socket).unwrap();
        let begin = Instant::now();
        let answer = asked(&client, false);
        assert_eq!((answer.is_good, &*answer.code), (false, "no_answer"));
        assert!(begin.elapsed() < WITHIN * 2);
    }
}
