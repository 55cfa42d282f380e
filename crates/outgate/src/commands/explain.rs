//! `outgate explain`: walks one request through the journey's own stages, in the journey's order, and says what each
//! one says. Nothing is sent; the name is looked up if a rule allows it, as the gateway would.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use outgate_config::Config;
use outgate_control::sessions::{SessionRules, Sessions};
use outgate_journey::{
    authorize::authorize,
    denial::{Denial, DenyCode},
    destination::{Destination, Transport, identify_absolute_form, identify_connect},
    policy::{
        AllowedDestination, CredentialSource, InjectionForm, Policy, Posture, Rate, Rule,
        TokenDemand,
    },
    resolve::resolve,
    session::{
        Denylist, PolicyName, SessionEnd, SessionId, Terms, TokenClaims, TokenOrigin, UnixSeconds,
    },
};
use outgate_plane::{clock, resolver::GatewayResolver};
use outgate_store::{SessionStore, SqliteStore};
use owo_colors::OwoColorize;
use serde_json::json;

use super::{block_on, load, state};
use crate::{cli::Explain, style::say};

pub(crate) fn run(explain: &Explain, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let config = load(&explain.file)?;
    let request = Request::parse(explain)?;
    let known = match &explain.session {
        Some(id) => {
            let id = SessionId::parse(id).with_context(|| format!("{id} is not a session id"))?;
            let path = state(state_dir, Some(&config))?.database();
            block_on(Known::look_up(&path, id))?
        }
        None => Known::default(),
    };
    let mut told = Told { stages: Vec::new() };
    let verdict =
        block_on(async { Ok(walk(&config, explain, &request, &known, &mut told).await) })?;
    if explain.file.json {
        told.print_json(&verdict);
    } else {
        told.print(&verdict);
    }
    Ok(if verdict.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

/// What the gateway's database says of the session that is asked for.
#[derive(Default)]
struct Known {
    end: Option<SessionEnd>,
    policy: Option<PolicyName>,
}

impl Known {
    /// Looks a session up, also while the gateway runs; changes nothing.
    async fn look_up(database: &Path, id: SessionId) -> Result<Self> {
        let store = SqliteStore::open_read_only(database).await?;
        let clock = clock::machine();
        clock.not_before(store.clock_floor());
        let sessions = Sessions::open(Arc::new(store), SessionRules::default(), clock).await?;
        let view = sessions.view(&id);
        let claims = TokenClaims {
            session: id,
            token_id: "".into(),
            expires: UnixSeconds(u64::MAX),
            terms: Terms::default(),
            origin: TokenOrigin::Own,
        };
        let policy = view.and_then(|view| PolicyName::parse(&view.policy?));
        Ok(Self {
            end: sessions.standing(&claims).err(),
            policy,
        })
    }
}

struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Request {
    fn parse(explain: &Explain) -> Result<Self> {
        let uri: Uri = explain
            .url
            .parse()
            .with_context(|| format!("{} is not a URL", explain.url))?;
        if uri.authority().is_none()
            || !matches!(uri.scheme_str(), Some("http" | "https" | "ws" | "wss"))
        {
            bail!(
                "{}: give a whole URL, as in https://api.example.org/v1/things",
                explain.url
            );
        }
        let mut headers = HeaderMap::new();
        for field in &explain.header {
            let (name, value) = field
                .split_once(':')
                .with_context(|| format!("{field}: NAME: VALUE"))?;
            headers.append(
                HeaderName::try_from(name.trim())?,
                HeaderValue::try_from(value.trim())?,
            );
        }
        let method = Method::from_bytes(explain.method.as_bytes()).context("not a method")?;
        Ok(Self {
            method,
            uri,
            headers,
        })
    }

    fn identify(&self) -> Result<Destination, Denial> {
        let authority = self
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .unwrap_or_default();
        if matches!(self.uri.scheme_str(), Some("https" | "wss")) {
            let has_port = self.uri.port().is_some();
            return identify_connect(&if has_port {
                authority.to_owned()
            } else {
                format!("{authority}:443")
            });
        }
        let path = self
            .uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        let target = format!("http://{authority}{path}")
            .parse()
            .map_err(|_| DenyCode::MalformedRequest)?;
        identify_absolute_form(&target, &HeaderMap::new())
    }
}

/// What the stages said.
struct Told {
    stages: Vec<(&'static str, String)>,
}

impl Told {
    fn say(&mut self, stage: &'static str, text: impl Into<String>) {
        self.stages.push((stage, text.into()));
    }

    fn print(&self, verdict: &Result<(), Denial>) {
        for (stage, text) in &self.stages {
            say!("{:<18} {text}", stage.dimmed());
        }
        match verdict {
            Ok(()) => say!("{:<18} {}", "verdict".dimmed(), "allowed".green().bold()),
            Err(denial) => {
                let code = denial.code();
                say!(
                    "{:<18} {} {code}",
                    "verdict".dimmed(),
                    "denied".red().bold()
                );
                say!("{:<18} {}", "", code.message());
                if !denial.detail().is_empty() {
                    say!("{:<18} {}", "", denial.detail());
                }
                say!("{:<18} {}", "what to do".dimmed(), code.remedy());
            }
        }
    }

    fn print_json(&self, verdict: &Result<(), Denial>) {
        let stages: Vec<_> = self
            .stages
            .iter()
            .map(|(stage, text)| json!({ "stage": stage, "result": text }))
            .collect();
        let denial = verdict.as_ref().err();
        say!(
            "{}",
            json!({
                "allowed": verdict.is_ok(),
                "code": denial.map(|denial| denial.code().as_str()),
                "rule": denial.and_then(Denial::rule).map(outgate_journey::policy::RuleId::as_str),
                "detail": denial.map(Denial::detail).filter(|detail| !detail.is_empty()),
                "stages": stages,
            })
        );
    }
}

async fn walk(
    config: &Config,
    explain: &Explain,
    request: &Request,
    known: &Known,
    told: &mut Told,
) -> Result<(), Denial> {
    let listen = &config.listen;
    let doors = [
        listen.operator.as_ref().map(|door| door.address),
        listen.control.as_ref().map(|door| door.address),
    ];
    let own: Vec<_> = listen
        .proxy
        .iter()
        .copied()
        .chain(doors.into_iter().flatten())
        .collect();
    let policy = config.policy.clone().for_listeners(own.into());
    let destination = request.identify()?;
    told.say(
        "identify",
        format!("{destination}, {}", spoken(&destination)),
    );

    let token = tell_session(explain, known.end, told)?;
    let allowed = policy.allow(destination)?;
    let rule = Arc::clone(allowed.rule());
    told.say("destination rule", rule.id.as_str());
    if let Some(name) = &known.policy {
        policy.confine_to(name, &rule)?;
        told.say("session's policy", format!("{name} has the destination"));
    }
    if token == Token::Missing && rule.token == TokenDemand::Required {
        return Err(Denial::new(DenyCode::TokenMissing).by(&rule.id));
    }
    tell_addresses(config, explain, &policy, &allowed, told).await?;
    let is_seen = tell_treatment(&allowed, told);
    if is_seen {
        authorize(
            allowed,
            &request.method,
            request.uri.path(),
            &request.headers,
        )?;
        told.say("authorize", tell_requests(&rule));
    } else {
        told.say(
            "authorize",
            "not seen: method and path are inside the client's own TLS",
        );
    }
    told.say("limit", tell_limits(&policy, &rule));
    tell_injection(&config.credentials, &rule, token, told)
}

fn spoken(destination: &Destination) -> &'static str {
    match destination.transport() {
        Transport::Tunnel => "TLS",
        Transport::Plain => "plain HTTP",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Presented,
    Missing,
}

fn tell_session(
    explain: &Explain,
    end: Option<SessionEnd>,
    told: &mut Told,
) -> Result<Token, Denial> {
    if explain.without_token {
        told.say("authenticate", "no session token is presented");
        return Ok(Token::Missing);
    }
    match &explain.session {
        None => told.say(
            "authenticate",
            "a good session token is presented (assumed; --session asks for one)",
        ),
        Some(id) => {
            told.say(
                "authenticate",
                format!("a good token of session {id} is presented (assumed)"),
            );
            if let Some(end) = end {
                return Err(Denial::new(end.code()).because(end.as_str()));
            }
            told.say("denylist", "the session was not ended");
        }
    }
    Ok(Token::Presented)
}

async fn tell_addresses(
    config: &Config,
    explain: &Explain,
    policy: &Policy,
    allowed: &AllowedDestination,
    told: &mut Told,
) -> Result<(), Denial> {
    if explain.offline {
        told.say("resolve", "not looked up (--offline)");
        return Ok(());
    }
    let resolver = GatewayResolver::new(&config.resolver)
        .map_err(|error| Denial::new(DenyCode::NameNotResolved).because(error.to_string()))?;
    let resolved = resolve(&resolver, policy, allowed.clone()).await?;
    let addresses: Vec<_> = resolved
        .addresses()
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    told.say("resolve", addresses.join(", "));
    Ok(())
}

/// Says how the destination is served; whether the gateway sees its requests.
fn tell_treatment(allowed: &AllowedDestination, told: &mut Told) -> bool {
    if allowed.destination().transport() == Transport::Plain {
        told.say("treatment", "plain HTTP, every request is judged");
        return true;
    }
    let posture = allowed.rule().posture;
    told.say("treatment", posture.as_str());
    posture == Posture::Bump
}

fn tell_requests(rule: &Rule) -> String {
    if rule.requests.is_unrestricted() {
        "every method and path".to_owned()
    } else {
        format!(
            "covered by {} allow and no deny entries",
            rule.requests.allow.len()
        )
    }
}

fn tell_limits(policy: &Policy, rule: &Rule) -> String {
    let rate = |rate: Rate| rate.to_string();
    let mut limits = Vec::new();
    limits.extend(
        rule.limits
            .requests
            .map(|requests| format!("{} to this destination", rate(requests))),
    );
    limits.extend(
        policy
            .session_limits()
            .requests
            .map(|requests| format!("{} in all", rate(requests))),
    );
    if limits.is_empty() {
        "none".to_owned()
    } else {
        format!("{} for each session", limits.join(", "))
    }
}

fn tell_injection(
    credentials: &BTreeMap<outgate_journey::policy::CredentialName, CredentialSource>,
    rule: &Rule,
    token: Token,
    told: &mut Told,
) -> Result<(), Denial> {
    let Some(injection) = &rule.injection else {
        told.say("inject", "nothing");
        return Ok(());
    };
    if token == Token::Missing {
        told.say("inject", "nothing: no token is presented");
        return Ok(());
    }
    let form = match &injection.form {
        InjectionForm::Header { name, .. } => format!("header {name}"),
        InjectionForm::Basic { username } => format!("Basic, user {username:?}"),
        InjectionForm::Query { parameter } => format!("query parameter {parameter}"),
    };
    let (place, is_there) = match credentials.get(&injection.credential) {
        Some(CredentialSource::Env(name)) => {
            (format!("variable {name}"), std::env::var_os(name).is_some())
        }
        Some(CredentialSource::File(path)) => (path.display().to_string(), path.exists()),
        // Asking would be a use; the gateway alone knows what it was told.
        Some(CredentialSource::Sds(sds)) => (format!("{} of {}", sds.name, sds.address), true),
        None => ("nowhere".to_owned(), false),
    };
    told.say(
        "inject",
        format!("{} from {place}, {form}", injection.credential),
    );
    if is_there {
        return Ok(());
    }
    let why = format!("{place} is not there, as seen from this shell");
    Err(Denial::new(DenyCode::CredentialUnavailable)
        .because(why)
        .by(&rule.id))
}
