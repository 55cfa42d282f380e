//! A way out that `outgate preflight` tries, and how `--probe` writes it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// What a probe does, and what it takes for an open way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WayKind {
    /// Connects: a connection.
    Tcp,
    /// Asks for a name over UDP: any answer.
    Dns,
    /// Begins QUIC in a version that there is not: any answer.
    Quic,
    /// Sends an echo request: its reply.
    Icmp,
}

impl WayKind {
    const ALL: [(&'static str, Self, Option<u16>); 4] = [
        ("tcp", Self::Tcp, None),
        ("dns", Self::Dns, Some(53)),
        ("quic", Self::Quic, Some(443)),
        // It has none; 0 stands for that.
        ("icmp", Self::Icmp, Some(0)),
    ];

    fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, kind, _)| *kind == self);
        known.map_or("", |(name, _, _)| name)
    }
}

/// A way out, past the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) kind: WayKind,
    pub(crate) address: SocketAddr,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            WayKind::Icmp => write!(f, "icmp://{}", bracketed(self.address.ip())),
            kind => write!(f, "{}://{}", kind.name(), self.address),
        }
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            "KIND://ADDRESS:PORT, as in tcp://198.51.100.7:5432; KIND is tcp, dns, quic or icmp, and an IPv6 address \
             stands in brackets"
                .to_owned()
        };
        let (name, address) = text.split_once("://").ok_or_else(form)?;
        let known = WayKind::ALL.iter().find(|(known, _, _)| *known == name);
        let &(_, kind, port) = known.ok_or_else(form)?;
        let address = match (address.parse::<SocketAddr>(), port) {
            (Ok(_), _) if kind == WayKind::Icmp => return Err("icmp has no port".to_owned()),
            (Ok(address), _) if address.port() != 0 => address,
            (Err(_), Some(port)) => {
                let inner = address
                    .strip_prefix('[')
                    .and_then(|it| it.strip_suffix(']'));
                let ip: IpAddr = match inner {
                    Some(inner) => IpAddr::V6(inner.parse().map_err(|_| form())?),
                    None => IpAddr::V4(address.parse().map_err(|_| form())?),
                };
                SocketAddr::new(ip, port)
            }
            _ => return Err(form()),
        };
        Ok(Self { kind, address })
    }
}

/// What a way leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Addresses on the internet that answer everybody.
    Public,
    /// The name servers of `/etc/resolv.conf`.
    Dns,
    /// The clouds' metadata services.
    Metadata,
    /// The API server of the cluster.
    Api,
    /// What `--probe` adds.
    Added,
}

impl Group {
    /// The groups that `--probe` can replace.
    const NAMED: [Self; 4] = [Self::Public, Self::Dns, Self::Metadata, Self::Api];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Dns => "dns",
            Self::Metadata => "metadata",
            Self::Api => "api",
            Self::Added => "added",
        }
    }
}

/// One `--probe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeArgument {
    pub(crate) group: Group,
    /// None with `GROUP=none`.
    pub(crate) way: Option<Way>,
}

impl FromStr for ProbeArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, rest)) = text.split_once('=') else {
            return Ok(Self {
                group: Group::Added,
                way: Some(text.parse()?),
            });
        };
        let group = Group::NAMED.into_iter().find(|group| group.name() == name);
        let group = group.ok_or("the groups are public, dns, metadata and api")?;
        let way = match rest {
            "none" => None,
            rest => Some(rest.parse()?),
        };
        Ok(Self { group, way })
    }
}

/// `10.96.0.7:8080` or `[fd00::7]:8080`.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if text.contains("$(") {
        return Err(
            "a variable in it was not expanded: is the gateway's Service there, and in this namespace?"
                .to_owned(),
        );
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(
            "an address and a port, as in 10.96.0.7:8080 or [fd00::7]:8080; names are not looked up"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_written_as_it_is_shown() {
        for text in [
            "tcp://198.51.100.7:5432",
            "tcp://[2001:db8::1]:443",
            "dns://10.96.0.10:5353",
            "quic://1.1.1.1:443",
            "icmp://1.1.1.1",
            "icmp://[2001:db8::1]",
        ] {
            assert_eq!(text.parse::<Way>().unwrap().to_string(), text);
        }
        let default = |text: &str| text.parse::<Way>().unwrap().to_string();
        assert_eq!(default("dns://10.96.0.10"), "dns://10.96.0.10:53");
        assert_eq!(default("quic://[2001:db8::1]"), "quic://[2001:db8::1]:443");
    }

    #[test]
    fn what_is_no_probe_is_refused() {
        for text in [
            "",
            "198.51.100.7:443",
            "tcp://198.51.100.7",
            "tcp://198.51.100.7:0",
            "tcp://host.example:443",
            "tcp://2001:db8::1:443",
            "dns://2001:db8::1",
            "icmp://1.1.1.1:7",
            "udp://1.1.1.1:7",
            "everything=none",
            "public=",
            "added=none",
        ] {
            assert!(text.parse::<ProbeArgument>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_group_is_replaced_or_left_out() {
        let parse = |text: &str| text.parse::<ProbeArgument>().unwrap();
        assert_eq!(parse("api=none").group, Group::Api);
        assert_eq!(parse("api=none").way, None);
        assert_eq!(parse("dns=dns://10.0.0.1").group, Group::Dns);
        assert_eq!(parse("tcp://10.0.0.1:1").group, Group::Added);
    }

    #[test]
    fn a_gateway_is_an_address_and_a_variable_that_was_not_expanded_is_named() {
        assert!(parse_address("10.96.0.7:8080").is_ok());
        assert!(parse_address("[fd00::7]:8080").is_ok());
        for bad in ["10.96.0.7", "gateway:8080", "fd00::7:8080", "10.96.0.7:0"] {
            assert!(parse_address(bad).unwrap_err().contains("not looked up"));
        }
        let left = parse_address("$(OUTGATE_SERVICE_HOST):8080").unwrap_err();
        assert!(left.contains("not expanded"));
    }
}
