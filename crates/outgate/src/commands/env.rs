//! `outgate env`: the environment that sends a workload through the gateway. Everything in it may be known to the
//! workload: the token is worth nothing elsewhere.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use outgate_control::{
    client::OperatorClient,
    operator::{About, CreateSession},
};
use outgate_sandbox::environment::{Trust, gateway_variables};

use super::{block_on, operator::speak, read_text};
use crate::{
    cli::{Env, EnvFormat},
    style::say,
};

pub(crate) fn run(env: &Env, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    speak(&env.reach, state_dir, false, |client| print(env, client))
}

fn print(env: &Env, client: &OperatorClient) -> Result<()> {
    let (about, token) = block_on(async {
        let about = client.about().await?;
        let token = match &env.token_file {
            Some(file) => read_text(file)?.trim().to_owned(),
            None => client.create(&CreateSession::default()).await?.token,
        };
        Ok((about, token))
    })?;
    let proxy = match &env.proxy {
        Some(address) => address.clone(),
        None => as_seen_by_workload(
            about
                .proxy
                .first()
                .context("the gateway has no proxy listener")?,
        ),
    };
    let variables = variables(&about, &proxy, &token);
    match env.format {
        EnvFormat::Sh => variables
            .iter()
            .for_each(|(name, value)| say!("export {name}={}", quoted(&value.to_string_lossy()))),
        EnvFormat::Json => {
            let object: serde_json::Map<_, _> = variables
                .into_iter()
                .map(|(name, value)| (name, value.to_string_lossy().into()))
                .collect();
            say!("{}", serde_json::Value::Object(object));
        }
    }
    Ok(())
}

fn as_seen_by_workload(address: &SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("127.0.0.1:{}", address.port())
    } else {
        address.to_string()
    }
}

fn variables(about: &About, proxy: &str, token: &str) -> Vec<(String, OsString)> {
    let trust = match (&about.ca, &about.bundle) {
        (Some(ca), Some(bundle)) => Some(Trust {
            ca: ca.clone(),
            bundle: bundle.clone(),
            truststore: None,
        }),
        _ => None,
    };
    let gateway = gateway_variables(proxy, token.as_ref(), trust.as_ref());
    let mut variables: Vec<_> = gateway
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    variables.extend(
        about
            .token_variables
            .iter()
            .map(|name| (name.clone(), token.into())),
    );
    variables
}

/// Quoted for a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(has_ca: bool) -> About {
        About {
            proxy: vec!["127.0.0.1:8080".parse().unwrap()],
            ca: has_ca.then(|| "/s/ca/ca.crt".into()),
            bundle: has_ca.then(|| "/s/ca/bundle.pem".into()),
            token_variables: vec!["ANTHROPIC_API_KEY".to_owned()],
            data_planes: Vec::new(),
        }
    }

    #[test]
    fn what_replaces_the_roots_gets_the_roots_too() {
        let variables: std::collections::HashMap<_, _> =
            variables(&about(true), "127.0.0.1:8080", "T")
                .into_iter()
                .collect();
        assert_eq!(variables["SSL_CERT_FILE"], "/s/ca/bundle.pem");
        assert_eq!(variables["NODE_EXTRA_CA_CERTS"], "/s/ca/ca.crt");
        assert_eq!(variables["ANTHROPIC_API_KEY"], "T");
        assert_eq!(variables["https_proxy"], "http://session:T@127.0.0.1:8080");
    }

    #[test]
    fn without_a_ca_no_trust_is_touched() {
        let variables = variables(&about(false), "127.0.0.1:8080", "T");
        assert!(
            variables
                .iter()
                .all(|(name, _)| !name.contains("CERT") && !name.contains("CA_BUNDLE"))
        );
    }

    #[test]
    fn values_survive_a_shell() {
        assert_eq!(quoted("a'b $c"), "'a'\\''b $c'");
    }
}
