//! Decides what `--allow` and `--credential` say. What stands after a `=` is never repeated in a message: it may be
//! the secret itself.

use std::{fmt, path::Path};

use outgate_journey::{
    name::{HostPattern, NameError},
    policy::{CredentialSource, Port},
};

use crate::check::{credential::is_variable_name, destination::is_public_suffix};

/// One thing that is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdditionProblem {
    /// What kind; stable, for programs.
    pub code: &'static str,
    /// What is wrong, and with which flag.
    pub message: String,
    /// What to do instead.
    pub help: String,
}

impl AdditionProblem {
    pub(crate) fn new(
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            help: help.into(),
        }
    }
}

/// One line.
impl fmt::Display for AdditionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} [{}]", self.message, self.help, self.code)
    }
}

/// A host and a port of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: HostPattern,
    pub(crate) port: Port,
}

/// As a flag writes it: the port only where it is not 443.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Port::HTTPS => write!(f, "{}", self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

/// Reads `HOST[:PORT]`.
pub(crate) fn read_place(text: &str) -> Result<Place, AdditionProblem> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) if !port.contains(':') && !port.starts_with("//") => (host, Some(port)),
        _ => (text, None),
    };
    let Ok(pattern) = HostPattern::parse(host) else {
        return Err(explain(text, host));
    };
    if let HostPattern::Wildcard(parent) = &pattern
        && is_public_suffix(parent)
    {
        return Err(AdditionProblem::new(
            "wildcard_over_public_suffix",
            format!("`--allow {text}`: names directly below `{parent}` belong to many owners"),
            "name the hosts one by one, or a wildcard below a name of one owner, as in `*.api.example.org`",
        ));
    }
    let port = match port {
        None => Some(Port::HTTPS),
        // `parse` takes a sign; a port has none.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().and_then(Port::new)
        }
        Some(_) => None,
    };
    match port {
        Some(port) => Ok(Place {
            host: pattern,
            port,
        }),
        None => Err(AdditionProblem::new(
            "invalid_port",
            format!(
                "`--allow {}`: the port is no number from 1 to 65535",
                text.escape_debug()
            ),
            format!(
                "write `--allow {pattern}`, or `--allow {pattern}:8443` for another port than 443"
            ),
        )),
    }
}

/// `text` is the whole flag, `host` what was taken for its host.
fn explain(text: &str, host: &str) -> AdditionProblem {
    let told = format!("`--allow {}`", text.escape_debug());
    let invalid = |what: &str, help: String| {
        AdditionProblem::new("invalid_host", format!("{told}: {what}"), help)
    };
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let meant = match scheme {
            "http" if !authority.contains(':') => format!("{authority}:80"),
            _ => authority.to_owned(),
        };
        return match read_place(&meant) {
            Ok(place) => invalid("a URL, not a host", format!("write `--allow {place}`")),
            Err(_) => invalid("a URL, not a host", "write the host's name only".to_owned()),
        };
    }
    if text.contains('/') {
        return invalid(
            "a path is not part of a host",
            "write the name only; paths are for a file: `allow: [{ paths: […] }]`".to_owned(),
        );
    }
    if text == "*" {
        return invalid(
            "nothing stands for every host",
            "name the hosts, or find out which are needed with `--learn FILE`".to_owned(),
        );
    }
    // Several colons are an address of version 6.
    if HostPattern::parse(host) == Err(NameError::Address)
        || HostPattern::parse(text) == Err(NameError::Address) && text.matches(':').count() > 1
    {
        return AdditionProblem::new(
            "host_is_address",
            format!("{told}: an address, not a host name"),
            "use its name; a file can give it one: `resolver: { hosts: { api.internal.example: <address> } }`",
        );
    }
    let help = if text.contains('*') {
        "a wildcard is `*.` and a name: exactly one label in front of that name"
    } else {
        "write a name such as `api.example.org`"
    };
    invalid("not a host name", help.to_owned())
}

/// Reads `NAME=SOURCE`, the source being `env:VAR` or `file:PATH` (relative to `folder`).
pub(crate) fn read_credential<'t>(
    text: &'t str,
    folder: &Path,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<(&'t str, CredentialSource), AdditionProblem> {
    const FORM: &str = "write `--credential NAME=env:VARIABLE` or `--credential NAME=file:PATH`; never the secret itself";
    let Some((name, source)) = text.split_once('=') else {
        let what = "a `--credential` without `=`: it takes a name and a source";
        return Err(AdditionProblem::new("invalid_source", what, FORM));
    };
    if let Some(path) = source.strip_prefix("file:") {
        if path.is_empty() || path.contains('\0') {
            let what = "a `--credential` whose source `file:` names no file";
            return Err(AdditionProblem::new("invalid_source", what, FORM));
        }
        return Ok((name, CredentialSource::File(folder.join(path))));
    }
    let Some(variable) = source.strip_prefix("env:") else {
        let what = "a `--credential` whose source begins with neither `env:` nor `file:`";
        return Err(AdditionProblem::new("invalid_source", what, FORM));
    };
    if !is_variable_name(variable) {
        return Err(AdditionProblem::new(
            "invalid_env_name",
            "a `--credential` whose `env:` is not followed by the name of an environment variable",
            FORM,
        ));
    }
    if !is_set(variable) {
        return Err(AdditionProblem::new(
            "variable_not_set",
            format!("`--credential …=env:{variable}`: this variable is not set, or empty"),
            format!("export {variable} first, or name another source"),
        ));
    }
    Ok((name, CredentialSource::Env(variable.to_owned())))
}
