//! How commands reach a running gateway, and how they say what it answered. A refusal is shown with what to do about
//! it, which only the command line can say.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use outgate_config::Config;
use outgate_control::{
    client::{ClientError, Endpoint, OperatorClient},
    operator::ErrorCode,
};
use outgate_native::state::StatePaths;
use serde_json::json;

use super::{block_on, state};
use crate::{
    cli::{Place, Reach},
    style::say,
};

/// The gateway that a command speaks to: at the URL, or in the state folder.
fn client(reach: &Reach, state_dir: Option<PathBuf>) -> Result<OperatorClient> {
    Ok(match remote(reach)? {
        Some(client) => client,
        None => OperatorClient::new(&local_state(&reach.place, state_dir)?.operator_socket()),
    })
}

/// The gateway at the URL, if one is given.
pub(super) fn remote(reach: &Reach) -> Result<Option<OperatorClient>> {
    let Some(url) = reach.operator.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    let bearer_file = reach.operator_token.clone().with_context(|| {
        format!("{url}: give the file with your operator's token, with --operator-token or OUTGATE_OPERATOR_TOKEN_FILE")
    })?;
    Ok(Some(OperatorClient::at(Endpoint::Https {
        url: url.to_owned(),
        bearer_file,
        ca_file: reach.operator_ca.clone(),
    })))
}

/// The state folder: the flag's or variable's, else that of the configuration file that was named, else the platform's.
pub(super) fn local_state(place: &Place, state_dir: Option<PathBuf>) -> Result<StatePaths> {
    match state_dir {
        // What the file says about it does not matter then: a kill must not wait for its mending.
        Some(folder) => state(Some(folder), None),
        None => state(None, named_config(place)?.as_ref()),
    }
}

/// The configuration file that was named, without its warnings.
pub(super) fn named_config(place: &Place) -> Result<Option<Config>> {
    let Some(path) = &place.config else {
        return Ok(None);
    };
    if !path.exists() {
        bail!(
            "there is no configuration file {}; name another with --config, or the state folder with --state-dir",
            path.display()
        );
    }
    let config = Config::load(path).map_err(anyhow::Error::from);
    config.map(Some).context("the state folder is not known, because the configuration file has problems; give it with --state-dir")
}

/// Speaks to the gateway, and says what came of it.
pub(super) fn speak(
    reach: &Reach,
    state_dir: Option<PathBuf>,
    json: bool,
    act: impl FnOnce(&OperatorClient) -> Result<()>,
) -> Result<ExitCode> {
    let done = client(reach, state_dir).and_then(|client| act(&client));
    told(json, done.map(|()| ExitCode::SUCCESS))
}

/// Makes a call and waits for its answer.
pub(super) fn ask<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
    block_on(async { Ok(call.await?) })
}

/// Ends a command: what was refused is said as JSON, or with what to do about it.
pub(super) fn told(json: bool, done: Result<ExitCode>) -> Result<ExitCode> {
    let error = match done {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    if json {
        say!("{}", as_json(&error));
        return Ok(ExitCode::FAILURE);
    }
    match error.downcast_ref::<ClientError>() {
        Some(refusal @ ClientError::Refused { .. }) => Err(anyhow::anyhow!(explained(refusal))),
        _ => Err(error),
    }
}

/// Prints an answer as it came.
pub(super) fn print_json(answer: &impl serde::Serialize) -> Result<()> {
    say!("{}", serde_json::to_string(answer)?);
    Ok(())
}

fn as_json(error: &anyhow::Error) -> serde_json::Value {
    let refusal = error.downcast_ref::<ClientError>();
    let in_effect = matches!(
        refusal,
        Some(ClientError::Refused {
            in_effect: true,
            ..
        })
    );
    let message = match refusal {
        Some(refusal) => explained(refusal),
        None => format!("{error:#}"),
    };
    let code = refusal.map_or("failed", ClientError::code);
    json!({ "error": { "code": code, "message": message, "in_effect": in_effect } })
}

/// What happened, what there is to say about it, and what to do in the command line's words.
fn explained(refusal: &ClientError) -> String {
    let ClientError::Refused {
        code,
        detail,
        in_effect,
        ..
    } = refusal
    else {
        return refusal.to_string();
    };
    let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code);
    let title = known.map(|known| known.title()).unwrap_or_default();
    let remedy = known.map(|known| known.remedy()).unwrap_or_default();
    let detail = if detail == remedy {
        hint(code).unwrap_or(remedy)
    } else {
        detail
    };
    let effect = if *in_effect {
        " It is in effect all the same."
    } else {
        ""
    };
    format!(
        "{} [{code}]{effect}\n  {detail}",
        title.trim_end_matches('.')
    )
}

fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "credential_missing" | "credential_invalid" => {
            "Give the file with a token of the gateway's `operator.tokens`, or of its identity provider, with --operator-token."
        }
        "unknown_session" => {
            "`outgate session list --all` shows those there are; `outgate deny add` refuses an id whatever it is."
        }
        "session_over" => "`outgate session create` makes another one.",
        "kill_switch" => {
            "`outgate kill --status` says who pulled it and why; `outgate kill --lift` ends it."
        }
        "not_denied" => "`outgate deny list` shows the entries.",
        "quota_exceeded" => "End sessions, or raise the quota with `outgate quota`.",
        _ => return None,
    })
}

/// Writes a token for its holder alone, in one step.
pub(super) fn write_token(path: &Path, token: &str) -> Result<()> {
    let mut line = zeroize::Zeroizing::new(Vec::with_capacity(token.len() + 1));
    line.extend_from_slice(token.as_bytes());
    line.push(b'\n');
    outgate_state::write_private_atomic(path, &line).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, detail: &str, in_effect: bool) -> ClientError {
        ClientError::Refused {
            code: code.to_owned(),
            detail: detail.to_owned(),
            in_effect,
            status: 400,
            request_id: String::new(),
        }
    }

    #[test]
    fn a_refusal_says_what_happened_and_what_to_do() {
        let code = ErrorCode::UnknownSession;
        let text = explained(&refused("unknown_session", code.remedy(), false));
        assert!(
            text.starts_with("There is no such session [unknown_session]"),
            "{text}"
        );
        assert!(text.contains("session list --all"), "{text}");
        let text = explained(&refused(
            "invalid_ttl",
            "ttl_seconds: 1 to 1800 (sessions.ttl)",
            false,
        ));
        assert!(
            text.ends_with("ttl_seconds: 1 to 1800 (sessions.ttl)"),
            "{text}"
        );
        let text = explained(&refused("audit_unavailable", "x", true));
        assert!(text.contains("in effect"), "{text}");
    }

    #[test]
    fn a_code_of_a_later_gateway_is_shown_as_it_came() {
        assert_eq!(
            explained(&refused("from_the_future", "Do this.", false)),
            " [from_the_future]\n  Do this."
        );
    }

    #[test]
    fn a_url_without_a_token_file_is_an_error_that_says_so() {
        let reach = Reach {
            place: Place { config: None },
            operator: Some("https://gw.example.org".to_owned()),
            operator_token: None,
            operator_ca: None,
        };
        assert!(
            remote(&reach)
                .unwrap_err()
                .to_string()
                .contains("--operator-token")
        );
    }
}
