//! Decides which variables lead programs to the gateway and make them trust it: one table for `outgate env` and
//! `outgate run`.

use std::ffi::{OsStr, OsString};

use super::Trust;

/// Variables whose file replaces the system's roots: they get the roots and the CA.
const REPLACE_ROOTS: [&str; 16] = [
    "SSL_CERT_FILE",
    "NIX_SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NPM_CONFIG_CAFILE",
    "BUNDLE_SSL_CA_CERT",
    "HEX_CACERTS_PATH",
    "COMPOSER_CAFILE",
];
/// Variables whose file is added to the roots: they get the CA alone.
const ADD_ROOTS: [&str; 1] = ["NODE_EXTRA_CA_CERTS"];
/// Some programs read one letter case, some the other; curl ignores `HTTP_PROXY`.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
/// What never leaves the machine does not need the gateway, and nothing else is excepted.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// The variables that send a program through the proxy at `proxy` (`127.0.0.1:8080`) and, where there is a CA, make it
/// trust that. Everything in them may be known to the program.
#[must_use]
pub fn gateway_variables(
    proxy: &str,
    token: &OsStr,
    trust: Option<&Trust>,
) -> Vec<(&'static str, OsString)> {
    let mut url = OsString::from("http://session:");
    url.push(token);
    url.push("@");
    url.push(proxy);
    let mut variables: Vec<_> = PROXIES.iter().map(|name| (*name, url.clone())).collect();
    variables.extend([
        ("NO_PROXY", NO_PROXY.into()),
        ("no_proxy", NO_PROXY.into()),
        ("NODE_USE_ENV_PROXY", "1".into()),
        ("OUTGATE_SESSION_TOKEN", token.to_owned()),
    ]);
    if let Some(trust) = trust {
        let (bundle, ca) = (trust.bundle.as_os_str(), trust.ca.as_os_str());
        variables.extend(REPLACE_ROOTS.iter().map(|name| (*name, bundle.to_owned())));
        variables.extend(ADD_ROOTS.iter().map(|name| (*name, ca.to_owned())));
    }
    variables
}

/// Whether the variable names roots, in whatever letter case: npm reads its own in either.
pub(super) fn is_trust(name: &OsStr) -> bool {
    let known = REPLACE_ROOTS.iter().chain(&ADD_ROOTS);
    name.to_str()
        .is_some_and(|name| known.into_iter().any(|it| it.eq_ignore_ascii_case(name)))
}
