//! Decides what one `outgate run` lets out: the file, the flags, and the services whose keys are in the environment,
//! made into one [`Config`]. The file was written with care and wins over what is merely found; a flag that says
//! otherwise than the file is refused, because one of the two was forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use outgate_journey::{
    name::HostPattern,
    policy::{CredentialName, CredentialSource, Port, Posture, Rule},
};

pub use crate::flag::AdditionProblem;
use crate::{
    Config, Problems, Service,
    flag::{Place, read_credential, read_place},
    read::similar,
    service::known_services,
};

/// What the command line and the environment add to the file.
#[derive(Clone, Copy)]
pub struct Additions<'a> {
    /// The values of `--allow`: `HOST[:PORT]`. Port 80 is plain HTTP.
    pub allow: &'a [String],
    /// The values of `--credential`: `NAME=env:VARIABLE` or `NAME=file:PATH`. Never repeated in messages.
    pub credentials: &'a [String],
    /// `--posture`; `None` is `auto`. For what flags and services add, not for the file's destinations.
    pub posture: Option<Posture>,
    /// What relative paths are relative to.
    pub folder: &'a Path,
    /// Whether a variable of the caller's environment is set and not empty.
    pub is_set: &'a dyn Fn(&str) -> bool,
}

/// Without the credentials' texts, one of which may hold a secret by mistake.
impl fmt::Debug for Additions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            allow,
            posture,
            folder,
            ..
        } = self;
        f.debug_struct("Additions")
            .field("allow", allow)
            .field("posture", posture)
            .field("folder", folder)
            .finish_non_exhaustive()
    }
}

/// What a run lets out, and what there is to tell about it.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The configuration, as a gateway takes it.
    pub config: Config,
    /// Every credential in it.
    pub credentials: Vec<CredentialUse>,
    /// What was left out, or was allowed already, and by which rule: a line each.
    pub notes: Vec<String>,
}

/// A credential of a run: where it comes from, where it goes, and which variables are about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUse {
    /// Its name in the configuration.
    pub name: CredentialName,
    /// Where it comes from.
    pub source: CredentialSource,
    /// The service that it is the key of.
    pub service: Option<String>,
    /// Where it is attached: `api.openai.com`, `x.test:8443`.
    pub hosts: Vec<String>,
    /// The variables in which the command finds the session token.
    pub token_variables: Vec<String>,
    /// The variables whose values must not reach the command.
    pub secret_variables: Vec<String>,
}

/// Everything that is wrong with a command line; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdditionProblems(pub Vec<AdditionProblem>);

/// A line each.
impl fmt::Display for AdditionProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for AdditionProblems {}

impl From<Problems> for AdditionProblems {
    fn from(problems: Problems) -> Self {
        let told = AdditionProblem::new(
            "catalog",
            problems.to_string(),
            "this is a fault of outgate",
        );
        Self(vec![told])
    }
}

impl Config {
    /// The configuration of a run: the file's, or [`Config::without_file`], with what was added.
    ///
    /// # Errors
    /// Everything that is wrong with the additions, at once.
    pub fn compose(
        base: Option<Self>,
        additions: &Additions<'_>,
    ) -> Result<Composed, AdditionProblems> {
        let mut base = base.unwrap_or_else(Self::without_file);
        let unused = base.for_a_run()?;
        let mut run = Run::new(base, additions)?;
        run.notes.extend(unused);
        let credentials = run.read_credentials();
        let allowed = run.read_allowed();
        run.check_posture();
        for (target, source) in credentials {
            run.add_credential(target, source);
        }
        for place in allowed {
            run.add_allowed(place);
        }
        run.add_found();
        run.finish()
    }
}

/// What NAME means.
pub(crate) enum Target {
    Configured(CredentialName),
    Service(Service),
    Host(Place),
}

pub(crate) struct Run<'a> {
    pub(crate) base: Config,
    pub(crate) file: Vec<Rule>,
    pub(crate) added: Vec<Rule>,
    pub(crate) additions: &'a Additions<'a>,
    /// Every service that a flag can name.
    pub(crate) services: Vec<Service>,
    pub(crate) uses: BTreeMap<CredentialName, CredentialUse>,
    pub(crate) problems: Vec<AdditionProblem>,
    pub(crate) notes: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(base: Config, additions: &'a Additions<'a>) -> Result<Self, Problems> {
        let mut services = base.services.extra.clone();
        for known in known_services()? {
            if services.iter().all(|it| it.name != known.name) {
                services.push(known);
            }
        }
        let mut file: Vec<Rule> = base.policy.rules().map(|rule| (**rule).clone()).collect();
        file.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
        let uses = base.credentials.iter().map(|(name, source)| {
            let used = CredentialUse {
                name: name.clone(),
                source: source.clone(),
                service: None,
                hosts: Vec::new(),
                token_variables: variable_of(source),
                secret_variables: variable_of(source),
            };
            (name.clone(), used)
        });
        Ok(Self {
            uses: uses.collect(),
            base,
            file,
            added: Vec::new(),
            additions,
            services,
            problems: Vec::new(),
            notes: Vec::new(),
        })
    }

    fn read_credentials(&mut self) -> Vec<(Target, CredentialSource)> {
        let mut read = Vec::new();
        let mut names = BTreeSet::new();
        for text in self.additions.credentials {
            match read_credential(text, self.additions.folder, self.additions.is_set) {
                Err(problem) => self.problems.push(problem),
                Ok((name, source)) => match self.target(name) {
                    Err(problem) => self.problems.push(problem),
                    Ok(_) if !names.insert(name) => self.problems.push(AdditionProblem::new(
                        "contradicting_flags",
                        format!("`--credential {name}=…` is given twice"),
                        "keep one of the two",
                    )),
                    Ok(target) => read.push((target, source)),
                },
            }
        }
        read
    }

    /// A credential of the file, a service, or a host, in this order.
    fn target(&self, name: &str) -> Result<Target, AdditionProblem> {
        let configured = CredentialName::new(name);
        if self.base.credentials.contains_key(&configured) {
            return Ok(Target::Configured(configured));
        }
        if let Some(service) = self.services.iter().find(|it| it.name == name) {
            return Ok(Target::Service(service.clone()));
        }
        // A single label would be a misspelt service far more often than a host.
        if name.contains('.')
            && let Ok(place) = read_place(name)
        {
            return Ok(Target::Host(place));
        }
        let configured = self.base.credentials.keys().map(CredentialName::as_str);
        let known: Vec<&str> = configured
            .chain(self.services.iter().map(|it| it.name.as_str()))
            .collect();
        // What was written is not repeated: it may be the beginning of a secret.
        Err(AdditionProblem::new(
            "unknown_credential",
            "a `--credential` whose name is no known service, no credential of the file and no host",
            match similar(name, &known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!(
                    "the names are {}; or write a host: it gets the secret as `Authorization: Bearer`",
                    known.join(", ")
                ),
            },
        ))
    }

    fn read_allowed(&mut self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for text in self.additions.allow {
            match read_place(text) {
                Ok(place) if places.contains(&place) => {}
                Ok(place) => places.push(place),
                Err(problem) => self.problems.push(problem),
            }
        }
        places
    }

    fn check_posture(&mut self) {
        let (code, message) = match self.additions.posture {
            Some(Posture::DenyAll) if !self.additions.allow.is_empty() => (
                "contradicting_flags",
                "`--allow` lets out what `--posture deny-all` keeps in",
            ),
            Some(Posture::DenyAll | Posture::PassThrough)
                if !self.additions.credentials.is_empty() =>
            {
                (
                    "inject_needs_bump",
                    "`--credential` attaches nothing with this `--posture`: TLS is not terminated",
                )
            }
            _ => return,
        };
        let help = "take one of the two out; `--posture auto` is the default";
        self.problems
            .push(AdditionProblem::new(code, message, help));
    }

    fn finish(mut self) -> Result<Composed, AdditionProblems> {
        if !self.problems.is_empty() {
            return Err(AdditionProblems(self.problems));
        }
        let carried = self.carried_over();
        let mut rules = self.file;
        rules.append(&mut self.added);
        rules.extend(carried);
        for rule in &rules {
            let used = rule
                .injection
                .as_ref()
                .and_then(|it| self.uses.get_mut(&it.credential));
            if let Some(used) = used {
                let places = rule.ports.iter().map(|port| Place {
                    host: rule.host.clone(),
                    port: *port,
                });
                used.hosts.extend(places.map(|place| place.to_string()));
            }
        }
        let policy = std::mem::take(&mut self.base.policy).with_rules(rules);
        let mut warnings = std::mem::take(&mut self.base.warnings);
        // A run opens sockets of its own, and what the file does not let out something else may.
        let is_idle = |code| match code {
            "listens_beyond_loopback" => true,
            "nothing_allowed" => !policy.is_empty(),
            _ => false,
        };
        warnings.retain(|warning| !is_idle(warning.code));
        Ok(Composed {
            config: Config {
                policy,
                warnings,
                ..self.base
            },
            credentials: self.uses.into_values().collect(),
            notes: self.notes,
        })
    }

    /// An exact name hides its wildcard on every port. What a wildcard let out before an exact name was added, it still
    /// lets out: its rules are repeated for that name, on the ports that the name's own rules leave.
    fn carried_over(&self) -> Vec<Rule> {
        let mut own: Vec<(&HostPattern, Vec<Port>)> = Vec::new();
        for rule in &self.added {
            match own.iter_mut().find(|(host, _)| **host == rule.host) {
                Some((_, ports)) => ports.extend(&rule.ports),
                None => own.push((&rule.host, rule.ports.clone())),
            }
        }
        let mut carried = Vec::new();
        for (host, ports) in own {
            let HostPattern::Exact(name) = host else {
                continue;
            };
            if self.file.iter().any(|rule| rule.host == *host) {
                continue;
            }
            let wildcards = self.file.iter().chain(&self.added);
            for wildcard in wildcards.filter(|rule| rule.host != *host && rule.host.covers(name)) {
                let mut rule = Rule {
                    host: host.clone(),
                    ..wildcard.clone()
                };
                rule.ports.retain(|port| !ports.contains(port));
                if !rule.ports.is_empty() {
                    carried.push(rule);
                }
            }
        }
        carried
    }
}

pub(crate) fn variable_of(source: &CredentialSource) -> Vec<String> {
    match source {
        CredentialSource::Env(variable) => vec![variable.clone()],
        CredentialSource::File(_) | CredentialSource::Sds(_) => Vec::new(),
    }
}
