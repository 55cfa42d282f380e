//! Installing: all of it or nothing, again and again, for both families.

use outgate_capture::{CaptureError, TABLE, install};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::{
    ways::{EVERY_WAY, answer_everything, open_ways},
    world::{AGENT, GATEWAY, Network, OUTSIDE, addresses, pod, rules},
};

#[test]
fn nft_reads_what_was_meant() {
    let network = Network::new();
    network.capture(Some(15001));
    let expected = format!(
        "table inet {TABLE} {{
\tchain output {{
\t\ttype filter hook output priority filter; policy drop;
\t\tmeta skuid != 65532 fib saddr type != local drop
\t\toif \"lo\" accept
\t\tip daddr 127.0.0.1 tcp dport 15001 accept
\t\tip6 daddr ::1 tcp dport 15001 accept
\t\tmeta skuid 65532 accept
\t\tmeta l4proto tcp ct state established ct direction reply accept
\t\tmeta skuid != 65532 drop
\t\tct state established,related accept
\t\ticmpv6 type 131-136 accept
\t\ticmpv6 type mld2-listener-report accept
\t}}

\tchain redirect {{
\t\ttype nat hook output priority -100; policy accept;
\t\toif != \"lo\" meta skuid != 65532 meta l4proto tcp redirect to :15001
\t}}

\tchain loopback {{
\t\ttype filter hook postrouting priority filter; policy accept;
\t\toif != \"lo\" ip daddr 127.0.0.1 drop
\t\toif != \"lo\" ip6 daddr ::1 drop
\t}}
}}
"
    );
    assert_eq!(network.rules(), expected);
}

#[test]
fn a_second_run_leaves_the_same_rules_and_another_one_replaces_them() {
    let network = Network::new();
    network.program("nft", "add table inet other");
    network.capture(None);
    let once = network.rules();
    network.capture(None);
    assert_eq!(network.rules(), once);
    network.capture(Some(15001));
    assert!(network.rules().contains("redirect to :15001"));
    network.capture(None);
    assert_eq!(network.rules(), once);
    assert!(once.contains("table inet other"));
}

#[test]
fn without_the_right_nothing_is_changed() {
    let network = Network::new();
    let attempt = || {
        network.run(|| {
            std::thread::spawn(|| {
                let mut held = capabilities(None).unwrap();
                held.effective.remove(CapabilitySet::NET_ADMIN);
                held.permitted.remove(CapabilitySet::NET_ADMIN);
                set_capabilities(None, held).unwrap();
                install(&rules(AGENT, None))
            })
            .join()
            .unwrap()
        })
    };
    let refused = |outcome| {
        let error: CaptureError = Result::unwrap_err(outcome);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    };
    refused(attempt());
    assert_eq!(network.rules(), "");
    network.capture(Some(15001));
    let before = network.rules();
    refused(attempt());
    assert_eq!(network.rules(), before);
}

#[test]
fn one_right_is_enough() {
    let network = Network::new();
    let installed = network.run(|| {
        std::thread::spawn(|| {
            let mut held = capabilities(None).unwrap();
            held.effective = CapabilitySet::NET_ADMIN;
            held.permitted = CapabilitySet::NET_ADMIN;
            held.inheritable = CapabilitySet::empty();
            set_capabilities(None, held).unwrap();
            install(&rules(GATEWAY, Some(15001)))
        })
        .join()
        .unwrap()
    });
    installed.unwrap();
}

/// It may be switched on later.
#[test]
fn ipv6_that_is_switched_off_is_closed_all_the_same() {
    let (pod, outside) = pod();
    answer_everything(&outside);
    let switch = |value: &'static str| {
        pod.run(move || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", value))
            .unwrap();
    };
    switch("1");
    pod.capture(None);
    switch("0");
    pod.ip("addr add 2001:db8::1/64 dev eth0 nodad");
    pod.ip("-6 route add default via 2001:db8::2");
    for to in addresses(OUTSIDE) {
        assert_eq!(open_ways(&pod, AGENT, to), [], "{to}");
        assert_eq!(open_ways(&pod, GATEWAY, to), EVERY_WAY, "{to}");
    }
}
