//! Stage *identify*: a `CONNECT` target, and an absolute-form target with its `Host` fields.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Uri, header::HOST};
use outgate_journey::destination::{
    Destination, Transport, agree_with_destination, agree_with_server_name, identify_absolute_form,
    identify_connect,
};

/// A `CONNECT` target that is accepted has one canonical spelling, and is no address.
pub fn connect(input: &[u8]) {
    let Ok(target) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(destination) = identify_connect(target) else {
        return;
    };
    assert_eq!(destination.transport(), Transport::Tunnel);
    assert_canonical(&destination);
    for spelling in [
        destination.to_string(),
        target.to_ascii_uppercase(),
        target.to_ascii_lowercase(),
    ] {
        assert_eq!(
            identify_connect(&spelling).as_ref(),
            Ok(&destination),
            "{target:?} as {spelling:?}"
        );
    }
}

/// Lines: the target, then `Host` values. A request that is accepted agrees with the destination that it was read
/// as, and with no other.
pub fn absolute_form(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Some(Ok(target)) = lines.next().map(Uri::try_from) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines.take(3) {
        let Ok(value) = HeaderValue::from_bytes(line) else {
            return;
        };
        headers.append(HOST, value);
    }
    let Ok(destination) = identify_absolute_form(&target, &headers) else {
        return;
    };
    assert_eq!(destination.transport(), Transport::Plain);
    assert_canonical(&destination);
    assert!(headers.len() <= 1, "more than one Host was accepted");
    assert_eq!(
        agree_with_destination(&destination, &target, &headers),
        Ok(()),
        "{target:?} {headers:?}"
    );

    let tunnel = identify_connect(&destination.to_string()).expect("a canonical name and port");
    assert!(
        agree_with_destination(&tunnel, &target, &headers).is_err(),
        "http agreed with a TLS tunnel"
    );
    let longer = format!("fronted.{}", destination.host());
    for other in [&longer, "127.0.0.1", ""] {
        let value = HeaderValue::from_str(other).expect("a name is a field value");
        headers.insert(HOST, value);
        assert!(
            identify_absolute_form(&target, &headers).is_err(),
            "{target:?} agreed with Host {other:?}"
        );
    }
}

fn assert_canonical(destination: &Destination) {
    let host = destination.host().as_str();
    assert!(!host.is_empty() && host.len() <= 253, "{host:?}");
    assert!(
        host.bytes().all(|b| b.is_ascii_graphic()
            && !b.is_ascii_uppercase()
            && !b"%/\\@:[]?#".contains(&b)),
        "{host:?}"
    );
    assert!(
        !host.starts_with('.') && !host.ends_with('.') && !host.contains(".."),
        "{host:?}"
    );
    assert!(
        host.parse::<IpAddr>().is_err(),
        "an address was accepted: {host:?}"
    );
    assert_eq!(agree_with_server_name(destination, host), Ok(()));
}
