//! Decides what a command finds in its environment. The caller's own is the starting point, so that the command works
//! as it does outside; what must not come in is taken out: real secrets, under their names and wherever else they
//! occur, handles to programs outside, proxies and roots that would lead around the gateway.
//!
//! Pure: nothing is read from this process and nothing is set in it. Values are bytes: what is no text passes through
//! as it is.

mod names;
mod secret;
mod tables;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

pub use secret::Secret;
pub use tables::gateway_variables;

use names::{is_agent, is_proxy, looks_secret};
use secret::Replacer;

/// What keeps the command from going around the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Namespaces: every connection meets the gateway, whether the program knows of it or not.
    Full,
    /// The environment alone: a program that ignores it goes where it likes.
    ProxyOnly,
}

/// The files by which programs come to trust the gateway's CA. Where nothing is bumped there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The CA alone, PEM.
    pub ca: PathBuf,
    /// The system's roots and the CA, PEM.
    pub bundle: PathBuf,
    /// The same for Java, JKS.
    pub truststore: Option<PathBuf>,
}

/// What the environment is made from, beside the caller's own.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the explicit proxy is, as the command sees it: `127.0.0.1:8080`.
    pub proxy: String,
    /// The session token.
    pub token: Secret,
    /// The variables that hold the token in place of a key.
    pub token_variables: Vec<String>,
    /// The real secrets, which become the token wherever they occur.
    pub secrets: Vec<Secret>,
    /// The variables that hold real secrets: they do not come in, unless they hold the token then.
    pub secret_variables: Vec<String>,
    /// The CA, where there is one.
    pub trust: Option<Trust>,
    /// What else keeps the command in.
    pub isolation: Isolation,
    /// Variables that the user wants to pass on although they look like secrets or handles (`--keep-env`).
    pub keep: Vec<String>,
}

/// A command's environment, and what there is to tell about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Sorted by name; no name twice.
    pub variables: Vec<(OsString, OsString)>,
    /// What was left out or changed.
    pub notes: Notes,
}

/// What was left out or changed: names alone, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Left out: their names look like those of secrets.
    pub withheld: Vec<OsString>,
    /// Left out: they reach programs outside.
    pub agents: Vec<OsString>,
    /// A real secret in them became the token.
    pub replaced: Vec<OsString>,
}

impl Notes {
    /// A line for each kind that there is.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let told = [
            (
                &self.withheld,
                "withheld, named like secrets (--keep-env NAME passes one on)",
            ),
            (
                &self.agents,
                "withheld, handles to programs outside (--keep-env NAME passes one on)",
            ),
            (&self.replaced, "held a real secret, hold the session token"),
        ];
        let lines = told.into_iter().filter(|(names, _)| !names.is_empty());
        lines
            .map(|(names, what)| {
                let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
                format!("environment: {}: {what}", names.join(", "))
            })
            .collect()
    }
}

impl Plan {
    /// The command's environment, from the caller's.
    pub fn environment(
        &self,
        caller: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Environment {
        let replacer = Replacer::new(&self.secrets, &self.token);
        let mut notes = Notes::default();
        let mut variables = BTreeMap::new();
        let caller: BTreeMap<OsString, OsString> = caller.into_iter().collect();
        for (name, value) in caller {
            if self.is_replaced(&name) {
                continue;
            }
            if !self.is_kept(&name) && !value.is_empty() {
                if is_agent(&name) {
                    notes.agents.push(name);
                    continue;
                }
                if looks_secret(&name) {
                    notes.withheld.push(name);
                    continue;
                }
            }
            let value = match replacer.replace(value.as_bytes()) {
                None => value,
                Some(clean) => {
                    notes.replaced.push(name.clone());
                    OsString::from_vec(clean)
                }
            };
            variables.insert(name, value);
        }
        self.set_own(&mut variables);
        Environment {
            variables: variables.into_iter().collect(),
            notes,
        }
    }

    /// The command's arguments, with the token for every real secret, and how many were changed.
    pub fn arguments(
        &self,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> (Vec<OsString>, usize) {
        let replacer = Replacer::new(&self.secrets, &self.token);
        let mut changed = 0;
        let clean =
            arguments
                .into_iter()
                .map(|argument| match replacer.replace(argument.as_bytes()) {
                    None => argument,
                    Some(clean) => {
                        changed += 1;
                        OsString::from_vec(clean)
                    }
                });
        (clean.collect(), changed)
    }

    /// What never comes in as the caller has it, whatever the user wants kept.
    fn is_replaced(&self, name: &OsStr) -> bool {
        let listed = |list: &[String]| list.iter().any(|known| name == known.as_str());
        listed(&self.token_variables)
            || listed(&self.secret_variables)
            // The launcher's own settings lead to the gateway's state.
            || name.as_bytes().starts_with(b"OUTGATE_")
            // Another proxy is another way out, in whatever letter case it is spelt.
            || is_proxy(name)
            || (self.trust.is_some() && tables::is_trust(name))
    }

    fn is_kept(&self, name: &OsStr) -> bool {
        self.keep.iter().any(|kept| name == kept.as_str())
    }

    fn set_own(&self, variables: &mut BTreeMap<OsString, OsString>) {
        let token = self.token.as_os_string();
        for name in &self.token_variables {
            variables.insert(name.into(), token.clone());
        }
        for (name, value) in gateway_variables(&self.proxy, &token, self.trust.as_ref()) {
            variables.insert(name.into(), value);
        }
        let options = self.java_options();
        if !options.is_empty() {
            let own = variables.entry("JAVA_TOOL_OPTIONS".into()).or_default();
            if !own.is_empty() {
                own.push(" ");
            }
            // Of two values for one property Java takes the last.
            own.push(options);
        }
    }

    /// Java reads neither the proxy variables nor a file of roots in PEM.
    fn java_options(&self) -> OsString {
        let mut options = OsString::new();
        let mut add = |option: &OsStr| {
            if !options.is_empty() {
                options.push(" ");
            }
            options.push(option);
        };
        if let Some(truststore) = self.trust.as_ref().and_then(|it| it.truststore.as_ref()) {
            add(&java_quoted("-Djavax.net.ssl.trustStore=", truststore));
            add("-Djavax.net.ssl.trustStorePassword=changeit".as_ref());
            add("-Djavax.net.ssl.trustStoreType=JKS".as_ref());
        }
        // In namespaces the proxy is in the way by itself.
        if self.isolation == Isolation::ProxyOnly
            && let Some((host, port)) = self.proxy.rsplit_once(':')
        {
            for scheme in ["http", "https"] {
                add(format!("-D{scheme}.proxyHost={host}").as_ref());
                add(format!("-D{scheme}.proxyPort={port}").as_ref());
            }
            add("-Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1]".as_ref());
        }
        options
    }
}

/// The launcher splits the variable at blanks that are not in quotes (JVM TI specification, `JAVA_TOOL_OPTIONS`).
fn java_quoted(option: &str, path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let quote = match bytes {
        bytes if bytes.contains(&b'"') => "'",
        bytes if bytes.iter().any(u8::is_ascii_whitespace) || bytes.contains(&b'\'') => "\"",
        _ => "",
    };
    let mut quoted = OsString::from(quote);
    quoted.push(option);
    quoted.push(path);
    quoted.push(quote);
    quoted
}
