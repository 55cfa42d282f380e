//! As much WebSocket (RFC 6455) as an echo needs: the handshake's hash and small unfragmented frames.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::h1::H1;

/// A client's key whose answer is in the RFC.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2).
#[must_use]
pub fn accept_for(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        text.as_bytes(),
    );
    STANDARD.encode(digest)
}

/// A frame with this opcode (1 text, 2 binary, 8 close). A client masks (section 5.3).
///
/// # Panics
/// On payloads over 65,535 bytes.
#[must_use]
pub fn frame(opcode: u8, payload: &[u8], from_client: bool) -> Vec<u8> {
    let mask_bit = if from_client { 0x80 } else { 0 };
    let mut out = vec![0x80 | opcode];
    if payload.len() < 126 {
        out.push(mask_bit | payload.len() as u8);
    } else {
        let length = u16::try_from(payload.len()).expect("a small frame");
        out.push(mask_bit | 126);
        out.extend_from_slice(&length.to_be_bytes());
    }
    let mask = if from_client { [1, 2, 3, 4] } else { [0; 4] };
    if from_client {
        out.extend_from_slice(&mask);
    }
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// The next frame: opcode and unmasked payload.
///
/// # Errors
/// The stream's, or its end.
pub async fn read_frame(stream: &mut H1) -> io::Result<(u8, Vec<u8>)> {
    let head = stream.read_exact(2).await?;
    let length = match head[1] & 0x7f {
        126 => {
            let more = stream.read_exact(2).await?;
            usize::from(u16::from_be_bytes([more[0], more[1]]))
        }
        127 => return Err(io::Error::other("a large frame")),
        short => usize::from(short),
    };
    let mask = if head[1] & 0x80 == 0 {
        [0; 4]
    } else {
        let mask = stream.read_exact(4).await?;
        [mask[0], mask[1], mask[2], mask[3]]
    };
    let payload = stream.read_exact(length).await?;
    let payload = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(b, m)| b ^ m)
        .collect();
    Ok((head[0] & 0x0f, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_the_one_in_the_rfc() {
        assert_eq!(accept_for(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
