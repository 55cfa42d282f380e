//! What the origin answers, by path. Unlisted paths get the `/echo` answer, so that any path can be tried.

use std::{io, time::Duration};

use serde_json::json;

use super::exchange::{After, Exchange};
use crate::{codec, websocket};

pub(super) async fn answer(mut exchange: Exchange<'_>) -> io::Result<After> {
    let target = exchange.seen.target.clone();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let param = |name: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(key, value)| (key == name).then(|| value.to_owned()))
    };
    let number = |name: &str| param(name).and_then(|text| text.parse::<u64>().ok());
    match path {
        "/echo-as" => echo_as(&mut exchange, &param).await,
        "/echo-header" => echo_header(&mut exchange).await,
        "/bytes" => bytes(&mut exchange, number("n").unwrap_or(0)).await,
        "/upload" => upload(&mut exchange).await,
        "/sse" => {
            let every = Duration::from_millis(number("every_ms").unwrap_or(10));
            sse(&mut exchange, number("n").unwrap_or(3), every).await
        }
        "/ws" => ws(&mut exchange).await,
        "/redirect" => {
            let to = param("to").unwrap_or_default();
            exchange.reply(302, &[("location", &to)], b"").await
        }
        "/early-hints" => {
            exchange
                .informational(103, &[("link", "</style.css>; rel=preload")])
                .await?;
            exchange.reply(200, &[], b"after the hints").await
        }
        "/flood103" => flood_hints(&mut exchange).await,
        "/kept" => kept(&mut exchange).await,
        "/trailers" => {
            exchange.drain().await?;
            exchange
                .head(
                    200,
                    &[
                        ("content-type", "application/grpc"),
                        ("trailer", "grpc-status, grpc-message"),
                    ],
                )
                .await?;
            exchange.send(b"body").await?;
            exchange
                .finish(&[("grpc-status", "0"), ("grpc-message", "fine")])
                .await
        }
        "/hang" => Ok(exchange.hang().await),
        "/reset" => Ok(exchange.abort()),
        "/garbage" => exchange.garbage(b"\x00\x01 this is not HTTP\r\n\r\n").await,
        "/lie" => {
            let claimed = number("cl").unwrap_or(100).to_string();
            exchange.drain().await?;
            exchange.head(200, &[("content-length", &claimed)]).await?;
            exchange.send(b"short").await?;
            // A reset would overtake what is still queued.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(exchange.abort())
        }
        "/rogue-101" => {
            exchange.drain().await?;
            let fields = [("upgrade", "websocket"), ("connection", "Upgrade")];
            exchange.head(101, &fields).await?;
            if let Some(stream) = exchange.upgraded() {
                stream.write(b"a tunnel that nobody asked for").await?;
            }
            Ok(exchange.hang().await)
        }
        "/huge-head" => {
            let huge = "h".repeat(1_000_000);
            exchange.reply(200, &[("x-huge", &huge)], b"").await
        }
        "/fields" => {
            let fields: Vec<_> = (0..number("n").unwrap_or(0))
                .map(|_| ("x-field", "1"))
                .collect();
            exchange.reply(200, &fields, b"").await
        }
        "/bomb" => {
            exchange.drain().await?;
            let enc = param("enc").unwrap_or_else(|| "gzip".into());
            let zeros = vec![0; usize::try_from(number("mb").unwrap_or(1)).unwrap_or(1) << 20];
            let (bytes, coding) = codec::encode(&enc, &zeros).await;
            let fields = [("content-encoding", coding.unwrap_or("identity"))];
            exchange.reply(200, &fields, &bytes).await
        }
        "/coding" => {
            let name = param("name").unwrap_or_default();
            exchange
                .reply(200, &[("content-encoding", &name)], b"\x01\x02\x03")
                .await
        }
        "/alt-svc" => {
            let fields = [("alt-svc", "h3=\":443\"; ma=86400"), ("x-kept", "yes")];
            exchange.reply(200, &fields, b"quic, anyone?").await
        }
        "/requires-key" => requires_key(&mut exchange).await,
        "/echo.Echo/Unary" => grpc_echo(&mut exchange).await,
        _ => match path.strip_prefix("/status/").map(str::parse::<u16>) {
            Some(Ok(status)) => exchange.reply(status, &[], b"").await,
            _ => echo(&mut exchange).await,
        },
    }
}

/// JSON of everything that came.
async fn echo(exchange: &mut Exchange<'_>) -> io::Result<After> {
    let body = exchange.drain().await?;
    let seen = exchange.seen.clone();
    let text = json!({
        "method": seen.method,
        "target": seen.target,
        "authority": seen.authority,
        "version": seen.version,
        "headers": seen.headers.0,
        "body": String::from_utf8_lossy(&body),
    })
    .to_string();
    let fields = [("content-type", "application/json")];
    exchange.reply(200, &fields, text.as_bytes()).await
}

/// The value of the field that `from` names, in the spelling that `enc` names, in pieces of `chunk` bytes. With
/// `x-echo-prefix` bytes before it, so that base64 can be tried at every alignment.
async fn echo_as(
    exchange: &mut Exchange<'_>,
    param: &impl Fn(&str) -> Option<String>,
) -> io::Result<After> {
    exchange.drain().await?;
    let field = param("from").unwrap_or_else(|| "x-api-key".into());
    let value = exchange.seen.headers.get(&field).unwrap_or("").to_owned();
    let shift = param("shift")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let plain = format!("{}{value} end", "x".repeat(shift));
    let (bytes, coding) = codec::encode(
        &param("enc").unwrap_or_else(|| "plain".into()),
        plain.as_bytes(),
    )
    .await;
    let (bytes, mut fields) = declare(bytes, coding, param("declare").as_deref());
    let size = param("chunk")
        .and_then(|text| text.parse().ok())
        .unwrap_or(bytes.len());
    let length = bytes.len().to_string();
    if param("sized").is_some() {
        fields.push(("content-length", &length));
    }
    exchange.head(200, &fields).await?;
    for piece in bytes.chunks(size.max(1)) {
        exchange.send(piece).await?;
        tokio::task::yield_now().await;
    }
    exchange.finish(&[]).await
}

/// How the answer says that its body is coded: as it should (`Content-Encoding`), as a transfer coding (HTTP/1.1
/// only), with the field named as hop-by-hop (HTTP/1.1 only), as a compressed gRPC message, or not at all.
fn declare(
    bytes: Vec<u8>,
    coding: Option<&'static str>,
    how: Option<&str>,
) -> (Vec<u8>, Vec<(&'static str, &'static str)>) {
    let text = ("content-type", "text/plain");
    match (coding, how) {
        (None, _) => (bytes, vec![text]),
        (Some("gzip"), Some("te")) => (bytes, vec![text, ("transfer-encoding", "gzip, chunked")]),
        (Some(coding), Some("hop")) => {
            let fields = [
                ("content-encoding", coding),
                ("connection", "content-encoding"),
            ];
            (bytes, [&[text][..], &fields].concat())
        }
        (Some(coding), Some("grpc")) => {
            let mut message = vec![1];
            message.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            message.extend(bytes);
            let fields = [
                ("content-type", "application/grpc"),
                ("grpc-encoding", coding),
            ];
            (message, fields.to_vec())
        }
        (Some(coding), _) => (bytes, vec![text, ("content-encoding", coding)]),
    }
}

/// The credential fields back in response fields and in a trailer.
async fn echo_header(exchange: &mut Exchange<'_>) -> io::Result<After> {
    exchange.drain().await?;
    let value = ["x-api-key", "authorization"]
        .iter()
        .find_map(|name| exchange.seen.headers.get(name))
        .unwrap_or("")
        .to_owned();
    let cookie = format!("k={value}; Path=/");
    exchange
        .head(200, &[("x-echo", value.as_str()), ("set-cookie", &cookie)])
        .await?;
    exchange.send(b"see the fields").await?;
    exchange.finish(&[("x-echo-trailer", &value)]).await
}

async fn bytes(exchange: &mut Exchange<'_>, count: u64) -> io::Result<After> {
    exchange.drain().await?;
    exchange
        .head(200, &[("content-length", &count.to_string())])
        .await?;
    let piece = [b'z'; 65_536];
    let mut left = count;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        exchange.send(&piece[..take]).await?;
        left -= take as u64;
    }
    exchange.finish(&[]).await
}

async fn upload(exchange: &mut Exchange<'_>) -> io::Result<After> {
    let mut count = 0u64;
    while let Some(piece) = exchange.read().await? {
        count += piece.len() as u64;
    }
    exchange.reply(200, &[], count.to_string().as_bytes()).await
}

async fn sse(exchange: &mut Exchange<'_>, count: u64, every: Duration) -> io::Result<After> {
    exchange.drain().await?;
    exchange
        .head(200, &[("content-type", "text/event-stream")])
        .await?;
    for index in 0..count {
        exchange
            .send(format!("data: {index}\n\n").as_bytes())
            .await?;
        tokio::time::sleep(every).await;
    }
    exchange.finish(&[]).await
}

async fn ws(exchange: &mut Exchange<'_>) -> io::Result<After> {
    let key = exchange
        .seen
        .headers
        .get("sec-websocket-key")
        .unwrap_or("")
        .to_owned();
    if key.is_empty() {
        return exchange.reply(426, &[("upgrade", "websocket")], b"").await;
    }
    let accept = websocket::accept_for(&key);
    let fields = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", accept.as_str()),
    ];
    exchange.head(101, &fields).await?;
    let Some(stream) = exchange.upgraded() else {
        return Ok(After::Close);
    };
    loop {
        let (opcode, payload) = websocket::read_frame(stream).await?;
        stream
            .write(&websocket::frame(opcode, &payload, false))
            .await?;
        if opcode == 8 {
            return Ok(After::Close);
        }
    }
}

async fn requires_key(exchange: &mut Exchange<'_>) -> io::Result<After> {
    let key = exchange
        .shared
        .key
        .lock()
        .expect("no panic holds it")
        .clone();
    let (field, value) = key.unwrap_or_default();
    if exchange.seen.headers.get(&field) == Some(&value) {
        exchange.reply(200, &[], b"the right key").await
    } else {
        exchange.reply(401, &[], b"the wrong key").await
    }
}

/// One length-prefixed message back, and its status in the trailers.
async fn grpc_echo(exchange: &mut Exchange<'_>) -> io::Result<After> {
    let message = exchange.drain().await?;
    exchange
        .head(200, &[("content-type", "application/grpc")])
        .await?;
    exchange.send(&message).await?;
    exchange.finish(&[("grpc-status", "0")]).await
}

/// Interim answers of 64 KB for as long as anybody takes them; HTTP/1.1 only.
async fn flood_hints(exchange: &mut Exchange<'_>) -> io::Result<After> {
    exchange.drain().await?;
    let field = format!("x-hint: {}\r\n", "h".repeat(8000)).repeat(8);
    let hint = format!("HTTP/1.1 103 Early Hints\r\n{field}\r\n");
    while let Some(stream) = exchange.upgraded() {
        stream.write(hint.as_bytes()).await?;
    }
    Ok(exchange.abort())
}

/// The last credential that any request brought: what a cache may have kept.
async fn kept(exchange: &mut Exchange<'_>) -> io::Result<After> {
    let value = {
        let seen = exchange.shared.seen.lock().expect("no panic holds it");
        let mut keys = seen
            .iter()
            .rev()
            .filter_map(|one| one.headers.get("x-api-key"));
        keys.next().unwrap_or("").to_owned()
    };
    let body = format!("kept: {value}");
    exchange
        .reply(200, &[("x-kept", &value)], body.as_bytes())
        .await
}
