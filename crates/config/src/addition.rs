//! Decides what each flag and each service that is found adds to a run, and whether something else rules that place
//! already.

use http::header::AUTHORIZATION;
use outgate_journey::{
    name::HostPattern,
    policy::{
        CredentialName, CredentialSource, DestinationLimits, Injection, InjectionForm, Port,
        Posture, RequestRules, Rule, RuleId, TokenDemand, TunnelProtocol,
    },
};

use crate::{
    CredentialUse, Service,
    compose::{Run, Target, variable_of},
    flag::{AdditionProblem, Place},
    service::FoundService,
};

impl Run<'_> {
    pub(crate) fn add_credential(&mut self, target: Target, source: CredentialSource) {
        match target {
            Target::Configured(name) => {
                if let Some(used) = self.uses.get_mut(&name) {
                    // The file's own variable may still hold a key.
                    let before = std::mem::replace(&mut used.source, source.clone());
                    used.token_variables = union(&variable_of(&source), &variable_of(&before));
                    used.secret_variables.clone_from(&used.token_variables);
                }
                self.base.credentials.insert(name, source);
            }
            Target::Service(service) => self.add_named_service(&service, source),
            Target::Host(place) => self.add_host_credential(place, source),
        }
    }

    fn add_named_service(&mut self, service: &Service, source: CredentialSource) {
        let flag = format!("--credential {}", service.name);
        let mut rules = Vec::new();
        for mut rule in self.service_rules(service) {
            let injects = rule.injection.is_some();
            for port in std::mem::take(&mut rule.ports) {
                let place = Place {
                    host: rule.host.clone(),
                    port,
                };
                match self.ruled_by_file(&place).cloned() {
                    Some(by) if injects => self.contradicts_file(&flag, &place, &by),
                    Some(_) => {}
                    None => match self.ruled_by_addition(&place).map(|by| by.id.clone()) {
                        Some(by) if injects => self.contradict(&flag, &place, &by),
                        Some(_) => {}
                        None => rule.ports.push(port),
                    },
                }
            }
            rules.push(rule);
        }
        self.use_service(service, source, rules);
    }

    fn add_host_credential(&mut self, place: Place, source: CredentialSource) {
        let flag = format!("--credential {place}");
        if let Some(by) = self.ruled_by_file(&place).cloned() {
            return self.contradicts_file(&flag, &place, &by);
        }
        if let Some(by) = self.ruled_by_addition(&place).map(|by| by.id.clone()) {
            return self.contradict(&flag, &place, &by);
        }
        let knows = |it: &&Service| {
            it.destinations
                .iter()
                .any(|at| at.host == place.host && at.form.is_some())
        };
        if let Some(service) = self.services.iter().find(knows) {
            self.notes.push(format!(
                "{place} is a host of the service {0}; `--credential {0}=…` attaches its key as that service wants it",
                service.name
            ));
        }
        let name = CredentialName::new(place.to_string());
        let mut rule = open_rule(RuleId::new(flag), &place, Posture::Bump);
        rule.injection = Some(Injection {
            credential: name.clone(),
            form: InjectionForm::Header {
                name: AUTHORIZATION,
                prefix: "Bearer ".to_owned(),
                suffix: String::new(),
            },
            over_plaintext: false,
        });
        self.use_credential(name, source, None, vec![rule]);
    }

    pub(crate) fn add_allowed(&mut self, place: Place) {
        if self.additions.posture == Some(Posture::DenyAll) {
            return;
        }
        let flag = format!("--allow {place}");
        if let Some(by) = self.ruled_by_file(&place).cloned() {
            let shut = by.posture == Posture::DenyAll
                || !by.requests.is_unrestricted()
                || (place.port == Port::HTTP && !by.plaintext);
            if shut {
                self.contradicts_file(&flag, &place, &by);
            } else {
                self.notes
                    .push(format!("{flag}: already allowed by {}", by.id));
            }
            return;
        }
        if self.ruled_by_addition(&place).is_none() {
            let posture = self.plain_posture();
            self.added
                .push(open_rule(RuleId::new(flag), &place, posture));
        }
    }

    /// Services with a key in the environment, that no flag named.
    pub(crate) fn add_found(&mut self) {
        let counts =
            |it: &&Service| self.base.services.known || self.base.services.extra.contains(it);
        let found: Vec<_> = self
            .services
            .iter()
            .filter(counts)
            .filter_map(|it| FoundService::of(it.clone(), self.additions.is_set))
            .collect();
        for found in found {
            let (service, name) = (&found.service, &found.service.name);
            let is_named = |used: &CredentialUse| used.service.as_ref() == Some(name);
            if self.uses.values().any(is_named) {
                continue;
            }
            if let Some(posture @ (Posture::DenyAll | Posture::PassThrough)) =
                self.additions.posture
            {
                self.notes.push(format!(
                    "service {name}: left out, nothing is attached with posture {}",
                    posture.as_str()
                ));
                continue;
            }
            let rules = self.left_to_found(service);
            let attaches = |rule: &Rule| rule.injection.is_some() && !rule.ports.is_empty();
            if rules.iter().any(attaches) {
                // A plain `--allow` of a host that the service injects at says no more than the service does.
                self.added.retain(|rule| {
                    rule.injection.is_some() || !rules.iter().any(|it| overlap(it, rule))
                });
                let source = CredentialSource::Env(found.variable.clone());
                self.use_service(service, source, rules);
            }
        }
    }

    /// A service's rules, on the ports that neither the file nor a flag rules.
    fn left_to_found(&mut self, service: &Service) -> Vec<Rule> {
        let mut rules = self.service_rules(service);
        for rule in &mut rules {
            let injects = rule.injection.is_some();
            for port in std::mem::take(&mut rule.ports) {
                let place = Place {
                    host: rule.host.clone(),
                    port,
                };
                let flag = self.ruled_by_addition(&place);
                let flag = flag.filter(|by| !injects || by.injection.is_some());
                match self.ruled_by_file(&place).or(flag).map(|by| by.id.clone()) {
                    None => rule.ports.push(port),
                    Some(by) if injects => {
                        let name = &service.name;
                        self.notes
                            .push(format!("service {name}: {place} is left to {by}"));
                    }
                    Some(_) => {}
                }
            }
        }
        rules
    }

    fn service_rules(&self, service: &Service) -> Vec<Rule> {
        let credential = self.credential_of(service);
        let destinations = service.destinations.iter();
        destinations
            .map(|it| it.rule(&service.name, &credential, self.plain_posture()))
            .collect()
    }

    fn use_service(&mut self, service: &Service, source: CredentialSource, mut rules: Vec<Rule>) {
        rules.retain(|rule| !rule.ports.is_empty());
        self.use_credential(self.credential_of(service), source, Some(service), rules);
    }

    fn use_credential(
        &mut self,
        name: CredentialName,
        source: CredentialSource,
        service: Option<&Service>,
        rules: Vec<Rule>,
    ) {
        let variables = service.map_or(&[][..], |it| &it.variables);
        let (first, is_set) = (variables.first(), self.additions.is_set);
        let set: Vec<String> = variables
            .iter()
            .filter(|name| is_set(name))
            .cloned()
            .collect();
        let own = variable_of(&source);
        let used = CredentialUse {
            name: name.clone(),
            source: source.clone(),
            service: service.map(|it| it.name.clone()),
            hosts: Vec::new(),
            // A program that finds no key under the service's own name does not even try.
            token_variables: union(
                first.map(std::slice::from_ref).unwrap_or_default(),
                &union(&set, &own),
            ),
            secret_variables: union(&set, &own),
        };
        self.uses.insert(name.clone(), used);
        self.base.credentials.insert(name, source);
        self.added.extend(rules);
    }

    /// The service's name, unless the file has a credential that is called so.
    fn credential_of(&self, service: &Service) -> CredentialName {
        let name = CredentialName::new(service.name.as_str());
        let is_other = |used: &CredentialUse| used.service.as_ref() != Some(&service.name);
        if self.uses.get(&name).is_some_and(is_other) {
            CredentialName::new(format!("service {}", service.name))
        } else {
            name
        }
    }

    /// Where nothing is injected.
    const fn plain_posture(&self) -> Posture {
        match self.additions.posture {
            Some(posture) => posture,
            None => Posture::PassThrough,
        }
    }

    /// The file's rule for a place, by the policy's own order: an exact name before a wildcard, no falling through.
    fn ruled_by_file(&self, place: &Place) -> Option<&Rule> {
        let covering = |rule: &&Rule| rule.host == place.host;
        if self.file.iter().any(|rule| rule.host == place.host) {
            return self
                .file
                .iter()
                .filter(covering)
                .find(|rule| rule.ports.contains(&place.port));
        }
        let HostPattern::Exact(name) = &place.host else {
            return None;
        };
        let mut wildcards = self.file.iter().filter(|rule| rule.host.covers(name));
        wildcards.find(|rule| rule.ports.contains(&place.port))
    }

    fn ruled_by_addition(&self, place: &Place) -> Option<&Rule> {
        let mut same = self.added.iter().filter(|rule| rule.host == place.host);
        same.find(|rule| rule.ports.contains(&place.port))
    }

    fn contradicts_file(&mut self, flag: &str, place: &Place, by: &Rule) {
        let help = match &by.injection {
            Some(injection) => format!(
                "take the flag out; `--credential {}=…` gives that rule another key",
                injection.credential
            ),
            None => format!("take the flag out, or change `{}` in the file", by.id),
        };
        self.problems.push(AdditionProblem::new(
            "flag_contradicts_file",
            format!(
                "`{flag}` is about {place}, which the file rules otherwise in `{}`",
                by.id
            ),
            help,
        ));
    }

    fn contradict(&mut self, flag: &str, place: &Place, by: &RuleId) {
        self.problems.push(AdditionProblem::new(
            "contradicting_flags",
            format!("`{flag}` and `{by}` are both about {place}"),
            "keep one of the two",
        ));
    }
}

/// Lets out every request to one place. Port 80 is plain HTTP there.
fn open_rule(id: RuleId, place: &Place, posture: Posture) -> Rule {
    Rule {
        id,
        host: place.host.clone(),
        ports: vec![place.port],
        posture,
        protocol: TunnelProtocol::Tls,
        plaintext: place.port == Port::HTTP,
        encrypted_client_hello: false,
        token: TokenDemand::Required,
        requests: RequestRules::default(),
        injection: None,
        limits: DestinationLimits::default(),
        addresses: Default::default(),
    }
}

/// The first list, then what only the second has.
fn union(one: &[String], other: &[String]) -> Vec<String> {
    let mut all = one.to_vec();
    all.extend(other.iter().filter(|name| !one.contains(name)).cloned());
    all
}

fn overlap(one: &Rule, other: &Rule) -> bool {
    one.host == other.host && one.ports.iter().any(|port| other.ports.contains(port))
}
