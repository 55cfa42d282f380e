//! gRPC's framing of a question, which comes in pieces.

/// However a message is cut, it is read or refused alike; and what is read is what stands behind its prefix.
pub fn message(input: &[u8]) {
    let whole = outgate_xds::fuzz::message(&[input]);
    for size in [1, 2, 5, 7, 1000] {
        let pieces: Vec<_> = input.chunks(size).collect();
        assert_eq!(
            outgate_xds::fuzz::message(&pieces),
            whole,
            "pieces of {size}"
        );
    }
    let halves: [&[u8]; 3] = [&[], &input[..input.len() / 2], &input[input.len() / 2..]];
    assert_eq!(outgate_xds::fuzz::message(&halves), whole);
    let Ok(message) = whole else {
        return;
    };
    let (prefix, rest) = input.split_at(5);
    assert_eq!(message, rest);
    assert_eq!(prefix[0], 0, "compressed");
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    assert_eq!(usize::try_from(length), Ok(rest.len()));
    assert!(rest.len() <= 192 * 1024);
}
