//! As much WebSocket (RFC 6455) as an echo needs, at either end: the handshake's hash, unfragmented frames.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BufMut, BytesMut};

/// A client's key whose answer is in the RFC. It only shows that the other end speaks the protocol.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What is longer than this is not an echo of ours.
const LONGEST: usize = 1 << 20;

/// The opcode of a message of text.
pub(crate) const TEXT: u8 = 1;
/// The last frame of an end.
pub(crate) const CLOSE: u8 = 8;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2).
pub(crate) fn accept_for(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    STANDARD.encode(aws_lc_rs::digest::digest(algorithm, text.as_bytes()))
}

/// Writes one frame. A client gives its mask (section 5.3); a server has none.
pub(crate) fn write(out: &mut BytesMut, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.reserve(payload.len() + 14);
    out.put_u8(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.put_u8(masked | short),
        (_, Ok(middle)) => {
            out.put_u8(masked | 126);
            out.put_u16(middle);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(payload.len() as u64);
        }
    }
    match mask {
        None => out.put_slice(payload),
        Some(mask) => {
            out.put_slice(&mask);
            out.extend(
                payload
                    .iter()
                    .zip(mask.iter().cycle())
                    .map(|(byte, key)| byte ^ key),
            );
        }
    }
}

/// Takes one whole frame off the front of `buffer`, unmasked: its opcode and payload. `None` when more has to come.
///
/// # Errors
/// A fragment, or a frame over 1 MiB: neither is sent by either end of the kit.
pub(crate) fn read(buffer: &mut BytesMut) -> io::Result<Option<(u8, BytesMut)>> {
    let mut head: &[u8] = buffer;
    let (Ok(first), Ok(second)) = (head.try_get_u8(), head.try_get_u8()) else {
        return Ok(None);
    };
    let length = match second & 0x7f {
        126 => head.try_get_u16().map(u64::from),
        127 => head.try_get_u64(),
        short => Ok(u64::from(short)),
    };
    let Ok(length) = length else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if first & 0x80 == 0 || length > LONGEST {
        return Err(io::Error::other("a fragment, or a frame that is too long"));
    }
    let mask = if second & 0x80 == 0 {
        [0; 4]
    } else if let Ok(mask) = head.try_get_u32() {
        mask.to_be_bytes()
    } else {
        return Ok(None);
    };
    if head.len() < length {
        return Ok(None);
    }
    let head_length = buffer.len() - head.len();
    buffer.advance(head_length);
    let mut payload = buffer.split_to(length);
    if mask != [0; 4] {
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
    Ok(Some((first & 0x0f, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_the_one_in_the_rfc() {
        assert_eq!(accept_for(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_frame_of_any_length_reads_as_it_was_written_and_not_before_its_end() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload = vec![b'x'; length];
                let mut wire = BytesMut::new();
                write(&mut wire, TEXT, &payload, mask);
                let mut part = BytesMut::from(&wire[..wire.len() - 1]);
                assert!(read(&mut part).unwrap().is_none());
                let (opcode, read_back) = read(&mut wire).unwrap().unwrap();
                assert_eq!((opcode, &read_back[..]), (TEXT, &payload[..]));
                assert!(wire.is_empty());
            }
        }
    }

    #[test]
    fn fragments_and_giants_are_refused() {
        assert!(read(&mut BytesMut::from(&[0x01, 0x00][..])).is_err());
        let giant = [0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(read(&mut BytesMut::from(&giant[..])).is_err());
    }
}
