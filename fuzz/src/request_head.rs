//! The guard in front of the HTTP/1 library.

use outgate_wire::http1::{Framing, MAX_FIELDS, Release, RequestStream, read_head};

/// A head that is let on is the head that httparse reads, it is complete, and the framing is the one that its fields
/// give. However the bytes are cut, the same ones are let on.
pub fn http1_head(input: &[u8]) {
    if let Ok(Some(head)) = read_head(input) {
        let bytes = &input[..head.length];
        assert!(bytes.ends_with(b"\r\n\r\n"));
        assert_eq!(
            read_head(bytes),
            Ok(Some(head)),
            "what follows a head changed its meaning"
        );
        for cut in 1..8 {
            assert_eq!(
                read_head(&bytes[..bytes.len() * cut / 8]),
                Ok(None),
                "a part of a head was judged as a whole"
            );
        }
        assert_httparse_agrees(bytes, head.framing, head.is_connect);
    }
    assert_eq!(
        released(input, input.len().max(1)),
        released(input, 1),
        "the cut of the bytes made a difference"
    );
}

fn assert_httparse_agrees(bytes: &[u8], framing: Framing, is_connect: bool) {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes);
    assert_eq!(
        parsed,
        Ok(httparse::Status::Complete(bytes.len())),
        "httparse reads another head"
    );
    assert_eq!(request.method == Some("CONNECT"), is_connect);
    let values = |name: &str| -> Vec<&[u8]> {
        request
            .headers
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
            .collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "two framings");
    assert!(values("host").len() <= 1, "two Host fields");
    match framing {
        Framing::Length(length) => {
            let told: Vec<u64> = lengths
                .iter()
                .filter_map(|value| std::str::from_utf8(value).ok()?.trim().parse().ok())
                .collect();
            assert_eq!(told, [length]);
        }
        Framing::Chunked => assert!(codings[0].trim_ascii().eq_ignore_ascii_case(b"chunked")),
        Framing::Empty => assert!(codings.is_empty()),
        Framing::Opaque => assert!(is_connect || !values("upgrade").is_empty()),
    }
}

/// How many bytes are let on, and whether a fault stopped it, when they arrive `step` at a time.
fn released(input: &[u8], step: usize) -> (usize, bool) {
    let mut stream = RequestStream::default();
    let (mut done, mut arrived) = (0, 0);
    while arrived < input.len() {
        arrived = (arrived + step).min(input.len());
        loop {
            match stream.advance(&input[done..arrived]) {
                Ok(Release::NeedMore) => break,
                Ok(Release::Bytes(count)) => {
                    assert!(
                        count >= 1 && done + count <= arrived,
                        "{count} bytes let on of {}",
                        arrived - done
                    );
                    done += count;
                }
                Err(_) => return (done, true),
            }
        }
    }
    (done, false)
}
