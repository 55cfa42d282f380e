//! Decides which servers the gateway itself may be told to speak to. What it asks them decides who is let in, and what
//! it sends them are records and passwords: none of it travels in clear.

use super::report::Report;
use crate::{
    WebUrl,
    node::KeyPath,
    url::{Clear, UrlFault},
};

pub(super) fn check_url(
    text: &str,
    clear: Clear,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<WebUrl> {
    let fault = match WebUrl::parse(text, clear) {
        Ok(url) => return Some(url),
        Err(fault) => fault,
    };
    let (code, message, help) = match (fault, clear) {
        (UrlFault::Malformed, _) => (
            "invalid_url",
            "not a URL of a server",
            "write scheme, host and path, as in `https://server.example.org/path`, without spaces and `#`",
        ),
        (UrlFault::UserInfo, _) => (
            "secret_in_url",
            "a URL with a user name or a password",
            "take out what stands before the `@`: secrets do not belong in this file",
        ),
        (UrlFault::Host, _) => (
            "invalid_url",
            "the host is neither a name nor an address",
            "write a name such as `server.example.org`",
        ),
        (UrlFault::NotHttps, Clear::Never) => (
            "not_https",
            "only `https://` is spoken to this server",
            "write `https://…`, with `ca` if the certificate is one of your own",
        ),
        (UrlFault::NotHttps, Clear::ToLoopback) => (
            "not_https",
            "records do not leave this machine in clear",
            "write `https://…`; plain `http://` is for `127.0.0.1` and `[::1]` alone",
        ),
    };
    report.error(code, path, message.to_owned(), help);
    None
}
