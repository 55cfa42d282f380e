//! Names made from hashes, in the alphabet of our own ids (Crockford's base 32, lower case).

use aws_lc_rs::digest;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;

/// SHA-256 of a token: what caches know it by, so that no cache holds one.
pub(crate) type TokenHash = [u8; 32];

pub(crate) fn hash(bytes: &[u8]) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The prefix and the first 130 bits of the hash, in 26 characters.
pub(crate) fn name_of(prefix: &str, hash: &TokenHash) -> String {
    let mut name = String::with_capacity(prefix.len() + LENGTH);
    name.push_str(prefix);
    let (mut bits, mut held) = (0u32, 0u32);
    let mut bytes = hash.iter();
    for _ in 0..LENGTH {
        if held < 5 {
            bits = (bits << 8 | u32::from(*bytes.next().unwrap_or(&0))) & 0xffff;
            held += 8;
        }
        held -= 5;
        let five = usize::try_from(bits >> held & 31).unwrap_or_default();
        name.push(ALPHABET.get(five).copied().map_or('0', char::from));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_130_bits_of_the_hash() {
        assert_eq!(name_of("x_", &[0; 32]), format!("x_{}", "0".repeat(26)));
        assert_eq!(name_of("x_", &[0xff; 32]), format!("x_{}", "z".repeat(26)));
        let mut hash = [0; 32];
        // 00001 00010 00011 00100 00101 ... : 1 2 3 4 5 6 7 8 in groups of five bits.
        hash[..5].copy_from_slice(&[
            0b0000_1000,
            0b1000_0110,
            0b0100_0010,
            0b1001_1000,
            0b1110_1000,
        ]);
        assert_eq!(name_of("", &hash), format!("12345678{}", "0".repeat(18)));
        // Bits beyond the 130th do not show.
        hash[17] = 1;
        assert_eq!(name_of("", &hash), format!("12345678{}", "0".repeat(18)));
        hash[16] = 0b0100_0000;
        assert_eq!(name_of("", &hash), format!("12345678{}1", "0".repeat(17)));
    }

    #[test]
    fn a_hash_is_sha_256() {
        // FIPS 180-4's example.
        assert_eq!(hash(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
