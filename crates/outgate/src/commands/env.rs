//! `outgate env`: the environment that sends a workload through the gateway. Everything in it may be known to the
//! workload: the token is worth nothing elsewhere.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use outgate_control::{
    client::OperatorClient,
    operator::{About, CreateSession},
};

use super::{block_on, read_text, state};
use crate::{
    cli::{Env, EnvFormat},
    style::say,
};

/// Variables whose file replaces the system's roots: they get the roots and the CA.
const REPLACE_ROOTS: [&str; 10] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NPM_CONFIG_CAFILE",
];
/// Variables whose file is added to the roots: they get the CA alone.
const ADD_ROOTS: [&str; 1] = ["NODE_EXTRA_CA_CERTS"];
/// Some programs read one letter case, some the other; curl ignores `HTTP_PROXY`.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
/// What never leaves the machine does not need the gateway, and nothing else is excepted.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

pub(crate) fn run(env: &Env, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let client = OperatorClient::new(&state(state_dir, None)?.operator_socket());
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
            .for_each(|(name, value)| say!("export {name}={}", quoted(value))),
        EnvFormat::Json => {
            let object: serde_json::Map<_, _> = variables
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect();
            say!("{}", serde_json::Value::Object(object));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_seen_by_workload(address: &SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("127.0.0.1:{}", address.port())
    } else {
        address.to_string()
    }
}

fn variables(about: &About, proxy: &str, token: &str) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: &str| variables.push((name.to_owned(), value.to_owned()));
    let url = format!("http://session:{token}@{proxy}");
    PROXIES.iter().for_each(|name| set(name, &url));
    set("NO_PROXY", NO_PROXY);
    set("no_proxy", NO_PROXY);
    set("NODE_USE_ENV_PROXY", "1");
    set("OUTGATE_SESSION_TOKEN", token);
    if let (Some(ca), Some(bundle)) = (&about.ca, &about.bundle) {
        let (ca, bundle) = (ca.to_string_lossy(), bundle.to_string_lossy());
        REPLACE_ROOTS.iter().for_each(|name| set(name, &bundle));
        ADD_ROOTS.iter().for_each(|name| set(name, &ca));
    }
    about
        .token_variables
        .iter()
        .for_each(|name| set(name, token));
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
        }
    }

    #[test]
    fn what_replaces_the_roots_gets_the_roots_too() {
        let variables: std::collections::HashMap<_, _> =
            variables(&about(true), "127.0.0.1:8080", "T")
                .into_iter()
                .collect();
        assert!(
            REPLACE_ROOTS
                .iter()
                .all(|name| variables[*name] == "/s/ca/bundle.pem")
        );
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
                .all(|(name, _)| !REPLACE_ROOTS.contains(&name.as_str()))
        );
    }

    #[test]
    fn values_survive_a_shell() {
        assert_eq!(quoted("a'b $c"), "'a'\\''b $c'");
    }
}
