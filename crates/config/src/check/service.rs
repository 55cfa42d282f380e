//! Decides what a service's entry means, in a file or in the built-in catalog: as strict as for destinations, whose
//! checks these are. A variable's name is never repeated in a message: it may be the key itself.

use std::collections::HashSet;

use super::{
    credential::{is_simple_name, is_variable_name},
    destination::{Taken, check_host, check_ports, check_taken, token_demand},
    inject::{Form, check_form},
    report::Report,
    request::check_requests,
};
use crate::{
    Service, ServiceDestination, Services,
    file::{FileService, FileServiceDestination, FileServices},
    node::KeyPath,
};

pub(super) fn check_services(services: Option<&FileServices>, report: &mut Report<'_>) -> Services {
    let Some(services) = services else {
        return Services::default();
    };
    let path = KeyPath::of("services").key("extra");
    Services {
        known: services.known,
        extra: check_list(&services.extra, &path, report),
    }
}

/// No name, variable or host and port belongs to two services of one list.
pub(super) fn check_list(
    written: &[FileService],
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<Service> {
    let mut taken = Taken::new();
    let (mut names, mut variables) = (HashSet::new(), HashSet::new());
    let mut services = Vec::new();
    for (path, service) in report.places(base, written) {
        check_name(&service.name, &mut names, &path.key("name"), report);
        services.push(Service {
            name: service.name.clone(),
            variables: check_variables(service, &mut variables, &path.key("variables"), report),
            destinations: check_destinations(service, &mut taken, &path, report),
        });
    }
    services
}

fn check_name<'f>(
    name: &'f str,
    names: &mut HashSet<&'f str>,
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    if !is_simple_name(name) {
        report.error(
            "invalid_service_name",
            path,
            "not a name for a service".to_owned(),
            "use 1 to 64 letters, digits, `.`, `_` and `-`",
        );
    } else if !names.insert(name) {
        report.error(
            "duplicate_service",
            path,
            format!("another service is called `{name}` too"),
            "give it another name, or merge the two",
        );
    }
}

fn check_variables<'f>(
    service: &'f FileService,
    known: &mut HashSet<&'f str>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<String> {
    let texts = &service.variables.0;
    report.refuse_empty(texts, path);
    let mut variables = Vec::new();
    for (path, name) in report.places(path, texts) {
        if !is_variable_name(name) {
            report.error(
                "invalid_env_name",
                &path,
                "not the name of an environment variable".to_owned(),
                "write the variable's name, as in `ANTHROPIC_API_KEY`; never the secret itself",
            );
        } else if known.insert(name) {
            variables.push(name.clone());
        } else {
            report.error(
                "duplicate_value",
                &path,
                "this variable is already in a list of variables".to_owned(),
                "keep one of them",
            );
        }
    }
    variables
}

fn check_destinations(
    service: &FileService,
    taken: &mut Taken,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<ServiceDestination> {
    let path = base.key("destinations");
    report.refuse_empty(&service.destinations, &path);
    let injects = service.destinations.iter().any(|it| it.inject.is_some());
    if !injects && !service.destinations.is_empty() && !report.touched(&path) {
        report.error(
            "service_without_inject",
            &path,
            "the service's key is attached nowhere".to_owned(),
            "add `inject: { header: authorization }` to a destination, or name the hosts under `destinations` of the file",
        );
    }
    let mut checked = Vec::new();
    for (path, written) in report.places(&path, &service.destinations) {
        let Some(destination) = check_destination(written, &path, report) else {
            continue;
        };
        check_taken(&destination.host, &destination.ports, &path, taken, report);
        checked.push(destination);
    }
    checked
}

fn check_destination(
    written: &FileServiceDestination,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<ServiceDestination> {
    let host = check_host(&written.host, &path.key("host"), report);
    let ports = check_ports(written.ports.as_ref(), false, path, report);
    let (allow, deny) = (written.allow.as_deref(), written.deny.as_deref());
    let requests = check_requests(allow, deny, path, report);
    let judged = allow.map(|_| "allow").or_else(|| deny.map(|_| "deny"));
    if let (None, Some(key)) = (&written.inject, judged)
        && !report.touched(path)
    {
        report.error(
            "rules_need_bump",
            &path.key(key),
            "requests can only be judged when TLS is terminated".to_owned(),
            "add `inject`, or name the host under `destinations` of the file with `posture: bump`",
        );
    }
    let form = match &written.inject {
        None => None,
        Some(inject) => {
            let form = Form {
                header: inject.header.as_deref(),
                template: inject.template.as_deref(),
                basic: inject.basic.as_deref(),
                query: inject.query.as_deref(),
            };
            Some(check_form(&form, &path.key("inject"), report)?)
        }
    };
    Some(ServiceDestination {
        host: host?,
        ports,
        token: token_demand(written.token),
        form,
        requests,
    })
}
