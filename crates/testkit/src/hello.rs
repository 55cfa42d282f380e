//! ClientHellos built by hand (RFC 8446 section 4.1.2), for what a TLS library would never send.

/// What the hello contains.
#[derive(Debug, Clone, Default)]
pub struct Hello<'a> {
    /// The server name, as raw bytes; none: no SNI extension.
    pub server_name: Option<&'a [u8]>,
    /// A second server name in the same extension.
    pub second_server_name: Option<&'a [u8]>,
    /// Whether to add an `encrypted_client_hello` extension of the outer kind.
    pub encrypted_client_hello: bool,
    /// Bytes of padding extension, to push the hello over one segment or one record.
    pub padding: usize,
    /// Split the handshake message over records of this size; 0: one record.
    pub record_size: usize,
}

/// The record layer bytes of the hello.
#[must_use]
pub fn client_hello(hello: &Hello<'_>) -> Vec<u8> {
    let mut extensions = Vec::new();
    // supported_versions: TLS 1.3; signature_algorithms: ecdsa_secp256r1_sha256; supported_groups: x25519.
    extension(&mut extensions, 43, &[2, 3, 4]);
    extension(&mut extensions, 13, &[0, 2, 4, 3]);
    extension(&mut extensions, 10, &[0, 2, 0, 29]);
    let mut share = vec![0, 36, 0, 29, 0, 32];
    share.extend_from_slice(&[9; 32]);
    extension(&mut extensions, 51, &share);
    if hello.padding > 0 {
        extension(&mut extensions, 21, &vec![0; hello.padding]);
    }
    if hello.encrypted_client_hello {
        // outer, HKDF-SHA256 with AES-128-GCM, config id, a 32-byte enc, a 64-byte payload.
        let mut ech = vec![0, 0, 1, 0, 1, 42, 0, 32];
        ech.extend_from_slice(&[7; 32]);
        ech.extend_from_slice(&[0, 64]);
        ech.extend_from_slice(&[8; 64]);
        extension(&mut extensions, 0xfe0d, &ech);
    }
    if let Some(name) = hello.server_name {
        let mut list = Vec::new();
        for name in std::iter::once(name).chain(hello.second_server_name) {
            list.push(0);
            list.extend_from_slice(&(name.len() as u16).to_be_bytes());
            list.extend_from_slice(name);
        }
        let mut data = (list.len() as u16).to_be_bytes().to_vec();
        data.extend(list);
        extension(&mut extensions, 0, &data);
    }
    let mut body = vec![3, 3];
    body.extend_from_slice(&[5; 32]);
    body.push(32);
    body.extend_from_slice(&[6; 32]);
    // TLS_AES_128_GCM_SHA256; no compression.
    body.extend_from_slice(&[0, 2, 0x13, 1, 1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1];
    message.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    let size = if hello.record_size == 0 {
        16_384
    } else {
        hello.record_size
    };
    message
        .chunks(size)
        .flat_map(|piece| {
            let mut record = vec![22, 3, 1];
            record.extend_from_slice(&(piece.len() as u16).to_be_bytes());
            record.extend_from_slice(piece);
            record
        })
        .collect()
}

fn extension(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_library_reads_the_server_name_out_of_it() {
        for (padding, record_size) in [(0, 0), (2000, 0), (0, 50)] {
            let bytes = client_hello(&Hello {
                server_name: Some(b"a.test"),
                encrypted_client_hello: true,
                padding,
                record_size,
                ..Hello::default()
            });
            let mut acceptor = rustls::server::Acceptor::default();
            let mut reader = &bytes[..];
            while !reader.is_empty() {
                acceptor.read_tls(&mut reader).unwrap();
            }
            let accepted = acceptor.accept().ok().flatten().expect("a whole hello");
            assert_eq!(accepted.client_hello().server_name(), Some("a.test"));
        }
    }
}
