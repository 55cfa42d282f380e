//! What one run lets out: a configuration file or none, the known services whose keys are in the environment, and the
//! flags. And with it, which of the environment's values are secrets.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use outgate_config::{Additions, Composed, Config, CredentialUse};
use outgate_credential::value_in_file;
use outgate_journey::{
    name::HostPattern,
    policy::{
        CredentialSource, DestinationLimits, Port, Posture, RequestRules, Rule, RuleId,
        TokenDemand, TunnelProtocol,
    },
};
use outgate_native::state::StatePaths;
use outgate_sandbox::environment::Secret;
use owo_colors::OwoColorize;
use zeroize::Zeroizing;

use super::{absolute, say};
use crate::{
    cli::{Run, RunIsolation, RunPosture},
    style::warn,
};

/// Where people put keys, in their home folder and beside their work.
const HOME_FILES: [&str; 10] = [
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".env",
];
const PROJECT_FILES: [&str; 4] = [".env", ".env.local", ".envrc", ".npmrc"];
/// Larger files are not searched, in bytes.
const MOST_SEARCHED: u64 = 1 << 20;
/// Connections at once of one command, where no file says otherwise.
const MOST_CONNECTIONS: usize = 1000;
/// How many hosts that no rule names a learning run may reach.
const MOST_LEARNT: u32 = 200;

/// What one run lets out.
pub(super) struct RunPolicy {
    pub(super) config: Config,
    credentials: Vec<CredentialUse>,
    notes: Vec<String>,
    /// The values of the credentials as they are at start.
    values: Vec<Zeroizing<Vec<u8>>>,
    isolation: RunIsolation,
    learns: bool,
}

impl RunPolicy {
    pub(super) fn of(run: &Run) -> Result<Self> {
        let base = match &run.config {
            Some(path) if path.exists() => Some(Config::load(path)?),
            Some(path) => bail!("there is no configuration file {}", path.display()),
            None => None,
        };
        let has_file = base.is_some();
        let Composed {
            mut config,
            credentials,
            notes,
        } = Config::compose(
            base,
            &Additions {
                allow: &run.allow,
                credentials: &run.credential,
                posture: run.posture.and_then(posture),
                folder: &std::env::current_dir().context("the working directory")?,
                is_set: &|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()),
            },
        )?;
        if !has_file {
            config.listen.max_connections = MOST_CONNECTIONS;
        }
        if run.learn.is_some() {
            config.policy = config.policy.open_to_all(open_rule()?, MOST_LEARNT);
        }
        let values: Vec<_> = credentials.iter().flat_map(values).collect();
        let token = std::env::var_os("OUTGATE_SESSION_TOKEN").map(OsString::into_vec);
        if token.is_some_and(|token| values.iter().any(|value| **value == token)) {
            bail!(
                "the environment holds session tokens in place of keys: it is that of a sandbox, or of `outgate env`; \
                 start this where the keys are"
            );
        }
        Ok(Self {
            config,
            credentials,
            notes,
            values,
            isolation: run.isolation,
            learns: run.learn.is_some(),
        })
    }

    /// Says in a few lines what was decided; with `--quiet`, only what is less than people expect.
    pub(super) fn announce(&self, run: &Run) {
        if !run.quiet {
            self.explain();
        }
        self.warn(&run.hide);
    }

    fn explain(&self) {
        for (source, hosts) in self.keys() {
            say(&format!(
                "{}  goes to {} alone; the command sees a session token",
                source.bold(),
                hosts.join(", ")
            ));
        }
        let mut hosts: Vec<_> = self
            .config
            .policy
            .rules()
            .filter(|rule| rule.injection.is_none() && rule.posture != Posture::DenyAll)
            .map(|rule| rule.host.to_string())
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.retain(|host| *host != LEARNING);
        if !hosts.is_empty() {
            say(&format!("allowed  {}", hosts.join(", ")));
        }
        if self.config.policy.is_empty() && !self.learns {
            say("nothing is let out: no key of a known service is set; see --allow and --config");
        }
        self.notes.iter().for_each(|note| say(note));
        for warning in &self.config.warnings {
            warn(&format!(
                "{} (line {}): {}; {}",
                warning.key, warning.line, warning.message, warning.help
            ));
        }
    }

    /// Each key by its source, with every host that it goes to.
    fn keys(&self) -> BTreeMap<String, Vec<&str>> {
        let mut keys: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for used in &self.credentials {
            let source = match &used.source {
                CredentialSource::Env(name) => name.clone(),
                CredentialSource::File(path) => path.display().to_string(),
                CredentialSource::Sds(sds) => format!("{} of {}", sds.name, sds.address),
            };
            let hosts = keys.entry(source).or_default();
            hosts.extend(used.hosts.iter().map(String::as_str));
        }
        keys
    }

    fn warn(&self, hidden: &[PathBuf]) {
        for path in self.files_with_secrets() {
            let is_hidden = hidden.iter().any(|hidden| path.starts_with(hidden));
            if !is_hidden || self.isolation == RunIsolation::ProxyOnly {
                let path = path.display();
                warn(&format!(
                    "a key also stands in {path}, which the command can read: keep keys elsewhere, or --hide {path}"
                ));
            }
        }
        if self.learns {
            warn(&format!(
                "OPEN while learning: any public host, ports 443 and 80, at most {MOST_LEARNT} hosts; \
                 private addresses stay closed"
            ));
        }
        if self.isolation == RunIsolation::ProxyOnly {
            warn(
                "proxy-only: the command is asked to use the gateway and can ignore it; it also reads what this user \
                 reads, this machine's processes and sockets among it",
            );
        }
    }

    /// The names under which the command sees the token.
    pub(super) fn token_variables(&self) -> Vec<String> {
        let names = self.credentials.iter().flat_map(|it| &it.token_variables);
        names.cloned().collect()
    }

    /// The variables whose values the command must not see.
    pub(super) fn secret_variables(&self) -> Vec<String> {
        let names = self.credentials.iter().flat_map(|it| &it.secret_variables);
        names.cloned().collect()
    }

    /// The values that the command must not see, wherever they stand.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.values
            .iter()
            .map(|value| Secret::new(value.as_slice()))
            .collect()
    }

    /// The files among those in which people put keys that hold one of these.
    fn files_with_secrets(&self) -> Vec<PathBuf> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let in_home = home
            .iter()
            .flat_map(|home| HOME_FILES.map(|name| home.join(name)));
        let here = std::env::current_dir().ok();
        let in_project = here
            .iter()
            .flat_map(|here| PROJECT_FILES.map(|name| here.join(name)));
        let mut found: Vec<_> = in_home
            .chain(in_project)
            .filter(|path| self.holds_secret(path))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn holds_secret(&self, path: &Path) -> bool {
        let is_small = path
            .metadata()
            .is_ok_and(|file| file.is_file() && file.len() <= MOST_SEARCHED);
        let text = if is_small {
            std::fs::read(path).ok()
        } else {
            None
        };
        text.is_some_and(|text| {
            let holds = |value: &Zeroizing<Vec<u8>>| {
                text.windows(value.len())
                    .any(|part| part == value.as_slice())
            };
            self.values.iter().any(holds)
        })
    }

    /// What the command must not read: this and other gateways' state, the files of the credentials, and what the
    /// flags say. All of it absolute.
    pub(super) fn hidden(&self, state: &StatePaths, flags: &[PathBuf]) -> Result<Vec<PathBuf>> {
        // A misspelt one would leave open what its user believes hidden.
        if let Some(path) = flags.iter().find(|path| !path.exists()) {
            bail!("--hide {}: there is nothing of this name", path.display());
        }
        let files = self
            .credentials
            .iter()
            .filter_map(|used| match &used.source {
                CredentialSource::File(path) => Some(path.clone()),
                // Its socket or its key is one of the configuration's secret files.
                CredentialSource::Env(_) | CredentialSource::Sds(_) => None,
            });
        let all = [state.folder().to_owned()]
            .into_iter()
            .chain(crate::commands::platform_state_dir().ok())
            .chain(self.config.audit_dir.clone())
            .chain(self.config.secret_files())
            .chain(files)
            .chain(flags.iter().cloned());
        absolute(all)
    }
}

const LEARNING: &str = "learning.invalid";

/// Serves what no rule names while learning.
fn open_rule() -> Result<Rule> {
    Ok(Rule {
        id: RuleId::new("--learn"),
        host: HostPattern::parse(LEARNING).map_err(|error| anyhow::anyhow!("{error:?}"))?,
        ports: vec![Port::HTTPS, Port::HTTP],
        posture: Posture::Bump,
        protocol: TunnelProtocol::Tls,
        plaintext: true,
        encrypted_client_hello: false,
        token: TokenDemand::Required,
        requests: RequestRules::default(),
        injection: None,
        limits: DestinationLimits::default(),
        addresses: Default::default(),
    })
}

const fn posture(flag: RunPosture) -> Option<Posture> {
    match flag {
        RunPosture::DenyAll => Some(Posture::DenyAll),
        RunPosture::PassThrough => Some(Posture::PassThrough),
        RunPosture::Bump => Some(Posture::Bump),
        RunPosture::Auto => None,
    }
}

/// Every value of a credential that stands in the environment or in its file.
fn values(used: &CredentialUse) -> Vec<Zeroizing<Vec<u8>>> {
    let mut names = used.secret_variables.clone();
    if let CredentialSource::Env(name) = &used.source {
        names.push(name.clone());
    }
    let mut values: Vec<_> = names
        .iter()
        .filter_map(|name| {
            std::env::var_os(name)
                .map(OsString::into_vec)
                .map(Zeroizing::new)
        })
        .collect();
    if let CredentialSource::File(path) = &used.source
        && let Ok(text) = std::fs::read(path).map(Zeroizing::new)
    {
        values.push(Zeroizing::new(value_in_file(&text).to_vec()));
    }
    values.retain(|value| !value.is_empty());
    values
}
