//! A guest of the real-client tests: rustls with the system's roots as `rustls-native-certs` finds them, and no word
//! about proxies. GET of a URL, with the bearer token in the variable KEY if one is named.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on both"
)]

use std::{
    env,
    error::Error,
    io::{Read, Write},
    net::TcpStream,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let answer = match arguments.as_slice() {
        [url] => get(url, None),
        [url, key] => get(url, Some(key)),
        _ => Err("arguments: URL [KEY]".into()),
    };
    match answer {
        Ok(body) => {
            print!("{body}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn get(url: &str, key: Option<&str>) -> Result<String, Box<dyn Error>> {
    let place = url.strip_prefix("https://").ok_or("https:// only")?;
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from(host.to_owned())?;
    let tcp = TcpStream::connect((host, port.parse::<u16>()?))?;
    tcp.set_read_timeout(Some(LIMIT))?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = StreamOwned::new(connection, tcp);
    let token = key.map(env::var).transpose()?;
    let proof = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nhost: {authority}\r\n{proof}connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no whole head")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(head.to_owned().into()),
    }
}
