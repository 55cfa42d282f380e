//! The first bytes of a tunnel.

use std::net::IpAddr;

use outgate_wire::client_hello::{MAX_HELLO, Opening, read_opening};
use rustls::server::Acceptor;

/// A verdict does not change when more bytes arrive, it comes in time, and rustls reads the same name.
pub fn client_hello(input: &[u8]) {
    let verdict = read_opening(input);
    for cut in 1..=16 {
        let early = read_opening(&input[..input.len() * cut / 16]);
        assert!(
            early == Opening::Incomplete || early == verdict,
            "{early:?} became {verdict:?}"
        );
    }
    assert!(
        verdict != Opening::Incomplete || input.len() < MAX_HELLO,
        "undecided after the largest ClientHello"
    );
    if let (Opening::Hello(hello), Some((name, offers_h2))) = (&verdict, as_rustls_reads(input)) {
        // rustls hides a name that it does not take for one.
        if let Some(name) = name {
            let ours = hello.server_name.as_deref().unwrap_or_default();
            assert!(
                ours.eq_ignore_ascii_case(&name),
                "{ours:?} here, {name:?} in rustls"
            );
        } else if let Some(ours) = &hello.server_name {
            assert!(
                rustls::pki_types::DnsName::try_from(ours.as_str()).is_err()
                    || ours.parse::<IpAddr>().is_ok()
            );
        }
        assert_eq!(hello.offers_h2, offers_h2);
    }
}

/// The server name, and whether ALPN offers `h2`, if rustls accepts the bytes as a ClientHello.
fn as_rustls_reads(mut input: &[u8]) -> Option<(Option<String>, bool)> {
    let mut acceptor = Acceptor::default();
    loop {
        if acceptor.read_tls(&mut input).ok()? == 0 {
            return None;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let offers_h2 = hello
                .alpn()
                .is_some_and(|mut protocols| protocols.any(|protocol| protocol == b"h2"));
            return Some((hello.server_name().map(str::to_owned), offers_h2));
        }
    }
}
