//! `outgate exec`: starts a workload with its session token in its environment. Kubernetes cannot put a projected token
//! into a variable, and most programs look for their key in one.
//!
//! This process becomes the command: nothing of it stays, and the command's exit status and signals are its own.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use outgate_sandbox::environment::{Isolation, Plan, Secret};
use zeroize::Zeroizing;

use crate::{cli::Exec, style};

/// What this command ends with where it is itself that failed.
const OWN_FAILURE: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Longer than any token; field sections of HTTP are bounded alike.
const LONGEST_TOKEN: usize = 16 * 1024;
const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";

pub(crate) fn run(exec: &Exec) -> Result<ExitCode> {
    let environment = match environment(exec, env::vars_os()) {
        Ok(environment) => environment,
        Err(error) => {
            style::error(&error);
            return Ok(ExitCode::from(OWN_FAILURE));
        }
    };
    let [program, arguments @ ..] = exec.command.as_slice() else {
        bail!("there is no command");
    };
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .exec();
    let status = status_of(&error);
    let program = program.to_string_lossy().into_owned();
    style::error(&anyhow::Error::new(error).context(format!("{program} cannot be started")));
    Ok(ExitCode::from(status))
}

/// As in a shell. A script whose interpreter is missing counts as not found too: the kernel says the same of both.
fn status_of(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

/// The caller's environment, with what leads to the gateway. Variables that name roots are left as they are: the
/// manifest knows where the bundle is.
fn environment(
    exec: &Exec,
    caller: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<OsString, OsString>> {
    let proxy = exec.proxy.as_deref();
    let proxy = proxy.context("OUTGATE_PROXY is not set: the gateway's HOST:PORT")?;
    check_proxy(proxy).with_context(|| format!("OUTGATE_PROXY is {proxy:?}"))?;
    let file = exec.token_file.as_deref();
    let file = file.context("OUTGATE_SESSION_TOKEN_FILE is not set: the session token's file")?;
    let token = read_token(file)?;
    let plan = Plan {
        proxy: proxy.to_owned(),
        token: Secret::new(token.as_bytes()),
        token_variables: names(&exec.token_variables)?,
        secrets: Vec::new(),
        secret_variables: Vec::new(),
        trust: None,
        isolation: Isolation::ProxyOnly,
        keep: Vec::new(),
    };
    let mut variables: BTreeMap<_, _> = caller.collect();
    // The plan would withhold what looks like a secret; a pod's manifest put it there on purpose. So it sees the one
    // variable that it adds to.
    let java = variables.get_key_value(OsStr::new(JAVA_OPTIONS));
    let own = plan.environment(java.map(|(name, value)| (name.clone(), value.clone())));
    variables.extend(own.variables);
    Ok(variables)
}

/// `HOST:PORT`, to be put into a URL.
fn check_proxy(proxy: &str) -> Result<()> {
    if proxy.contains("$(") {
        bail!("a variable in it was not expanded: is the gateway's Service there?");
    }
    let valid = |host: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        inner.map_or_else(
            || !host.is_empty() && host.bytes().all(plain),
            |inner| inner.parse::<std::net::Ipv6Addr>().is_ok(),
        )
    };
    match proxy.rsplit_once(':') {
        Some((host, port)) if valid(host) && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(())
        }
        _ => bail!("it has to be HOST:PORT, as in 10.96.0.7:8080, and nothing else"),
    }
}

fn names(list: &str) -> Result<Vec<String>> {
    let names = list.split(',').map(str::trim).filter(|it| !it.is_empty());
    let checked = names.map(|name| {
        if name.contains(['=', '\0']) {
            bail!("OUTGATE_TOKEN_VARIABLES: {name:?} cannot be a variable's name");
        }
        Ok(name.to_owned())
    });
    checked.collect()
}

/// A session token, from its file as it is now: it is renewed in its place. White space around it is no part of it.
///
/// # Errors
/// If it cannot be read, is empty, or is nothing that a header field and the user part of a URL can hold as it is. What
/// the file holds is never said.
pub(super) fn read_token(path: &Path) -> Result<Zeroizing<String>> {
    let named = || format!("session token {}", path.display());
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).with_context(named)?.is_file() {
        bail!("{}: not a file", named());
    }
    let file = fs::File::open(path).with_context(named)?;
    let longest = u64::try_from(LONGEST_TOKEN).unwrap_or(u64::MAX);
    // As large as it can get, so that no copy stays behind where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_TOKEN + 1));
    file.take(longest + 1)
        .read_to_end(&mut bytes)
        .with_context(named)?;
    if bytes.len() > LONGEST_TOKEN {
        bail!("{}: longer than any token", named());
    }
    let token = bytes.trim_ascii();
    if token.is_empty() {
        bail!("{}: it is empty", named());
    }
    // RFC 3986, `userinfo` without what has to be encoded.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte);
    match std::str::from_utf8(token) {
        Ok(text) if token.iter().all(plain) => Ok(Zeroizing::new(text.to_owned())),
        _ => bail!(
            "{}: it holds more than one token, or something else",
            named()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_token_is_one_word_and_what_else_a_file_holds_is_not_told() {
        let token = |content: &[u8]| read_token(written(content).path());
        assert_eq!(*token(b"a.b-c_d\n").unwrap(), "a.b-c_d");
        assert_eq!(*token(b"  opaque+base64==\r\n").unwrap(), "opaque+base64==");
        for bad in [
            &b""[..],
            b" \n",
            b"secret two",
            b"secret\nsecret",
            b"secret/x",
            b"secret@host",
            b"secret%41",
            b"secret\xff",
            b"secret\0",
            &[b'a'; LONGEST_TOKEN + 1],
        ] {
            let said = format!("{:#}", token(bad).unwrap_err());
            assert!(!said.contains("secret "), "{said}");
            assert!(!said.contains("secret/") && !said.contains("secret@"));
        }
        assert!(read_token(Path::new("/dev/null")).is_err());
        assert!(read_token(Path::new("/")).is_err());
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        for good in ["10.0.0.1:8080", "[fd00::1]:8080", "gateway.ns.svc:1"] {
            check_proxy(good).unwrap();
        }
        for bad in [
            "",
            "10.0.0.1",
            ":8080",
            "10.0.0.1:0",
            "10.0.0.1:http",
            "http://10.0.0.1:8080",
            "u:p@10.0.0.1:8080",
            "10.0.0.1:8080/x",
            "fd00::1:8080",
            "[gateway]:8080",
            "$(OUTGATE_SERVICE_HOST):8080",
        ] {
            assert!(check_proxy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_separated_by_commas() {
        assert_eq!(names("A, B_C,").unwrap(), ["A", "B_C"]);
        assert!(names("").unwrap().is_empty());
        assert!(names("A=b").is_err());
    }

    #[test]
    fn the_callers_own_variables_stay_and_the_gateways_win() {
        let token = written(b"T0KEN");
        let exec = Exec {
            proxy: Some("10.0.0.1:8080".to_owned()),
            token_file: Some(token.path().to_owned()),
            token_variables: "ANTHROPIC_API_KEY".to_owned(),
            command: vec!["true".into()],
        };
        let caller = [
            ("HTTPS_PROXY", "http://10.0.0.1:8080"),
            ("OUTGATE_PROXY", "10.0.0.1:8080"),
            ("SSL_CERT_FILE", "/etc/outgate/trust/bundle.pem"),
            ("DATABASE_PASSWORD", "pod's own"),
            ("ANTHROPIC_API_KEY", "placeholder"),
            ("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=/t"),
        ];
        let caller = caller.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let found = environment(&exec, caller.into_iter()).unwrap();
        let value = |name: &str| found[OsStr::new(name)].to_str().unwrap();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            assert_eq!(value(name), "http://session:T0KEN@10.0.0.1:8080");
        }
        assert_eq!(value("ANTHROPIC_API_KEY"), "T0KEN");
        assert_eq!(value("OUTGATE_SESSION_TOKEN"), "T0KEN");
        assert_eq!(value("OUTGATE_PROXY"), "10.0.0.1:8080");
        assert_eq!(value("SSL_CERT_FILE"), "/etc/outgate/trust/bundle.pem");
        assert_eq!(value("DATABASE_PASSWORD"), "pod's own");
        let java = value("JAVA_TOOL_OPTIONS");
        assert!(
            java.starts_with("-Djavax.net.ssl.trustStore=/t -D"),
            "{java}"
        );
        assert!(
            java.contains("-Dhttps.proxyHost=10.0.0.1 -Dhttps.proxyPort=8080"),
            "{java}"
        );
    }
}
