//! Preflight with its own probes, in network namespaces that are made for it: the addresses that it tries exist there,
//! and are open, refused or dropped as a cluster would have them.

use std::{
    env, fs,
    net::{TcpListener, UdpSocket},
    process::Command,
};

use outgate_testkit::{CommandOutput, Gateway};

use super::support::{Running, echo, gateway, json_of, preflight, token, ways};

const INSIDE: &str = "OUTGATE_TEST_INSIDE";

/// A command in a network and mounts of its own, as root there.
pub(crate) fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--");
    command
}

/// Runs `test`, whose name is given, in a network of its own, where nothing but loopback is and that is up.
fn in_own_network(name: &str, test: fn()) {
    if env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return test();
    }
    let mut command = unshare();
    command
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("network::{name}"), "--nocapture"])
        .env(INSIDE, "1");
    let output = CommandOutput::of(&mut command);
    let ran = output.code == Some(0) && output.stdout.contains("1 passed");
    assert!(ran, "{}\n{}", output.stdout, output.stderr);
}

fn ip(arguments: &str) {
    let output = CommandOutput::of(Command::new("ip").args(arguments.split(' ')));
    assert_eq!(output.code, Some(0), "ip {arguments}: {output:?}");
}

/// A way out of which nothing ever comes back: a cable whose other end listens to nobody.
fn black_hole() {
    ip("link add out type veth peer name far");
    ip("link set out up");
    ip("link set far up");
    ip("addr add 10.9.0.2/24 dev out");
    ip("neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev out");
    ip("route add default via 10.9.0.1 dev out");
    ip("-6 addr add fd09::2/64 dev out nodad");
    ip("-6 neigh add fd09::1 lladdr 02:00:00:00:00:01 dev out");
    ip("-6 route add default via fd09::1 dev out");
}

fn has(address: &str) {
    if address.contains(':') {
        ip(&format!("-6 addr add {address}/128 dev lo nodad"));
    } else {
        ip(&format!("addr add {address}/32 dev lo"));
    }
}

/// What a pod's `/etc/resolv.conf` says.
fn name_server(address: &str) {
    let file = env::temp_dir().join(format!("resolv.conf-{}", std::process::id()));
    fs::write(&file, format!("nameserver {address}\noptions ndots:5\n")).unwrap();
    let output = CommandOutput::of(
        Command::new("mount")
            .arg("--bind")
            .arg(&file)
            .arg("/etc/resolv.conf"),
    );
    fs::remove_file(&file).unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// `outgate preflight` as the manifests start it, in a cluster.
fn in_a_pod(gateway: &Gateway, token: &std::path::Path, within: &str) -> Command {
    let mut command = preflight(gateway.proxy(), token, within);
    command
        .env("KUBERNETES_SERVICE_HOST", "10.96.0.1")
        .env("KUBERNETES_SERVICE_PORT", "443");
    command
}

#[test]
fn a_pod_whose_packets_are_dropped_may_start() {
    in_own_network("a_pod_whose_packets_are_dropped_may_start", || {
        black_hole();
        name_server("10.96.0.10");
        let gateway = gateway();
        let token = token(&gateway);
        let (code, told) = json_of(&mut in_a_pod(&gateway, token.path(), "30s"));
        assert_eq!(code, Some(0), "{told}");
        assert!(told["tried"].as_u64().unwrap() > 25, "{told}");
        assert!(
            told["milliseconds"].as_u64().unwrap() > 4000,
            "silence is waited for: {told}"
        );
        assert!(ways(&told, "not_tried").is_empty(), "{told}");
    });
}

#[test]
fn a_pod_without_any_network_but_the_gateways_may_start() {
    in_own_network(
        "a_pod_without_any_network_but_the_gateways_may_start",
        || {
            name_server("10.96.0.10");
            for kind in ["unreachable", "prohibit", "blackhole"] {
                ip(&format!("route replace {kind} default"));
                ip(&format!("-6 route replace {kind} default"));
                let gateway = gateway();
                let token = token(&gateway);
                let (code, told) = json_of(&mut in_a_pod(&gateway, token.path(), "30s"));
                assert_eq!(code, Some(0), "{kind}: {told}");
            }
            // A machine without IPv6.
            fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
            let gateway = gateway();
            let token = token(&gateway);
            let (code, told) = json_of(&mut in_a_pod(&gateway, token.path(), "30s"));
            assert_eq!(code, Some(0), "{told}");
        },
    );
}

#[test]
fn each_way_around_the_gateway_is_found() {
    in_own_network("each_way_around_the_gateway_is_found", || {
        name_server("10.96.0.10");
        let gateway = gateway();
        let token = token(&gateway);
        let open = || {
            let (code, told) = json_of(&mut in_a_pod(&gateway, token.path(), "3s"));
            assert_eq!(code, Some(1), "{told}");
            ways(&told, "open")
        };
        for (address, port) in [
            ("1.1.1.1", 443),
            ("8.8.8.8", 53),
            ("2606:4700:4700::1111", 443),
            ("169.254.169.254", 80),
            ("fd00:ec2::254", 80),
            ("10.96.0.1", 443),
            ("10.96.0.10", 53),
        ] {
            has(address);
            let place = std::net::SocketAddr::new(address.parse().unwrap(), port);
            let listener = TcpListener::bind(place).unwrap();
            assert_eq!(open(), [format!("tcp://{place}")]);
            drop(listener);
        }
        for (place, kind) in [
            ("10.96.0.10:53", "dns"),
            ("8.8.8.8:53", "dns"),
            ("1.1.1.1:443", "quic"),
            ("[2606:4700:4700::1111]:443", "quic"),
        ] {
            // Answers for as long as this network is there, which is as long as this process is.
            echo(place);
            let found = open();
            assert!(found.contains(&format!("{kind}://{place}")), "{found:?}");
        }
    });
}

#[test]
fn a_policy_that_is_enforced_late_is_waited_for() {
    in_own_network("a_policy_that_is_enforced_late_is_waited_for", || {
        black_hole();
        has("1.1.1.1");
        let listener = TcpListener::bind("1.1.1.1:443").unwrap();
        let gateway = gateway();
        let token = token(&gateway);
        let mut running = Running::start(&mut in_a_pod(&gateway, token.path(), "60s"));
        let first = running.line();
        assert!(
            first.contains("open: tcp://1.1.1.1:443 (public)"),
            "{first}"
        );
        ip("addr del 1.1.1.1/32 dev lo");
        let second = running.line();
        assert!(second.contains("none open"), "{second}");
        assert!(running.line().contains("only way out"));
        assert_eq!(running.end().0, Some(0));
        drop(listener);
    });
}

#[test]
fn a_ping_that_is_answered_is_a_warning() {
    in_own_network("a_ping_that_is_answered_is_a_warning", || {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        has("1.1.1.1");
        has("2606:4700:4700::1111");
        let gateway = gateway();
        let token = token(&gateway);
        let (code, told) = json_of(&mut in_a_pod(&gateway, token.path(), "30s"));
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(
            ways(&told, "warnings"),
            ["icmp://1.1.1.1", "icmp://[2606:4700:4700::1111]"]
        );
        let output = CommandOutput::of(&mut in_a_pod(&gateway, token.path(), "30s"));
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(output.stderr.matches("warning:").count(), 2, "{output:?}");
    });
}

#[test]
fn a_machine_that_cannot_send_a_probe_has_proven_nothing() {
    in_own_network(
        "a_machine_that_cannot_send_a_probe_has_proven_nothing",
        || {
            black_hole();
            let gateway = gateway();
            let token = token(&gateway);
            let inner = in_a_pod(&gateway, token.path(), "4s");
            // Enough descriptors for the gateway's connection and few of the probes.
            let mut limited = Command::new("prlimit");
            limited
                .args(["--nofile=20", "--"])
                .arg(inner.get_program())
                .args(inner.get_args());
            let (code, told) = json_of(&mut limited);
            assert_eq!(code, Some(1), "{told}");
            assert!(!ways(&told, "not_tried").is_empty(), "{told}");
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
        },
    );
}
