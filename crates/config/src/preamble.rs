//! Decides what a draft says above its destinations: what a run needs to reach the same servers in the same way.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use ipnet::IpNet;

use crate::{
    Config, PlaneAddress, Roots, SdsSource, TlsFloor,
    scalar::duration_text,
    write::{list, scalar},
};

/// Everything above the destinations: what a run needs to reach the same servers.
pub(crate) fn head(config: &Config) -> String {
    let mut text = "# Written by `outgate run --learn` from what a command was seen to do. Read it before you rely on it.\n\
        version: 1\n"
        .to_owned();
    if !config.listen.proxy.is_empty() {
        let listeners = quoted_list(&config.listen.proxy);
        let _ = writeln!(text, "listen: {{ proxy: {listeners} }}");
    }
    let headers = config.policy.token_headers();
    if !headers.is_empty() {
        let _ = writeln!(text, "sessions: {{ token_headers: {} }}", list(headers));
    }
    let resolver = &config.resolver;
    let mut keys = Vec::new();
    if !resolver.servers.is_empty() {
        keys.push(format!("servers: {}", quoted_list(&resolver.servers)));
    }
    if !resolver.hosts.is_empty() {
        let hosts: BTreeMap<_, _> = resolver.hosts.iter().collect();
        let hosts: Vec<String> = hosts
            .iter()
            .map(|(host, addresses)| {
                format!("{}: {}", scalar(host.as_str()), quoted_list(addresses))
            })
            .collect();
        keys.push(format!("hosts: {{ {} }}", hosts.join(", ")));
    }
    for (key, nets) in [
        ("allow", &resolver.exceptions.allow),
        ("deny", &resolver.exceptions.deny),
    ] {
        if !nets.is_empty() {
            keys.push(format!("{key}: {}", ranges(nets)));
        }
    }
    if !keys.is_empty() {
        let _ = writeln!(text, "resolver: {{ {} }}", keys.join(", "));
    }
    text + &upstream_text(config)
}

fn upstream_text(config: &Config) -> String {
    let upstream = &config.upstream;
    let mut keys = Vec::new();
    match upstream.roots {
        Roots::System => {}
        Roots::Bundled => keys.push("roots: bundled".to_owned()),
        Roots::None => keys.push("roots: none".to_owned()),
    }
    if !upstream.extra_roots.is_empty() {
        let files: Vec<String> = upstream
            .extra_roots
            .iter()
            .map(|path| path_text(path))
            .collect();
        keys.push(format!("extra_roots: [{}]", files.join(", ")));
    }
    if upstream.min_tls == TlsFloor::Tls13 {
        keys.push("min_tls: \"1.3\"".to_owned());
    }
    if keys.is_empty() {
        return String::new();
    }
    format!("upstream: {{ {} }}\n", keys.join(", "))
}

/// Absolute: the draft may be put into another folder than the file that it came from.
pub(crate) fn path_text(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    scalar(&absolute.to_string_lossy()).into_owned()
}

/// `{ socket: /run/vault/sds.sock, name: forge }`.
pub(crate) fn sds_text(sds: &SdsSource) -> String {
    let mut keys = match &sds.address {
        PlaneAddress::Socket(path) => vec![("socket", path_text(path))],
        PlaneAddress::Tcp {
            ca,
            identity,
            server_name,
            ..
        } => {
            let mut keys = vec![
                ("address", scalar(&sds.address.to_string()).into_owned()),
                ("ca", path_text(ca)),
                ("certificate", path_text(&identity.certificate)),
                ("key", path_text(&identity.key)),
            ];
            let name = server_name.as_deref();
            keys.extend(name.map(|name| ("server_name", scalar(name).into_owned())));
            keys
        }
    };
    keys.push(("name", scalar(&sds.name).into_owned()));
    keys.extend(sds.max_age.map(|age| ("max_age", duration_text(age))));
    let keys: Vec<String> = keys
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    format!("{{ {} }}", keys.join(", "))
}

pub(crate) fn ranges(nets: &[IpNet]) -> String {
    quoted_list(nets)
}

fn quoted_list<T: ToString>(items: &[T]) -> String {
    let quoted: Vec<String> = items
        .iter()
        .map(|item| format!("\"{}\"", item.to_string()))
        .collect();
    format!("[{}]", quoted.join(", "))
}
