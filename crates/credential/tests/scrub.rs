//! The promise: no spelling of the credential comes back, however the bytes are cut, and nothing else changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

use bytes::Bytes;
use http::HeaderValue;
use proptest::prelude::*;
use support::{basic, bearer, credential, holds, scrub, spelled};

const KEY: &[u8] = b"sk-ant-api03-aZ9/+_x\"<&Q7wE5rT";

fn secrets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => "[!-~]{8,60}".prop_map(String::into_bytes),
        1 => "[a-zé/\"<&+ü]{8,30}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(1..=255_u8, 8..40),
        1 => "(ab|a|b){8,20}".prop_map(String::into_bytes),
    ]
    // A file's last line break is not part of its value.
    .prop_filter("no line break at the end", |secret| {
        secret.last() != Some(&b'\n')
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_spelling_never_comes_out_and_the_rest_is_unchanged(
        secret in secrets(),
        pick in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 2),
        sizes in proptest::collection::vec(1..40_usize, 1..6),
    ) {
        let credential = credential(&secret, bearer());
        let all = spelled(&secret);
        let (what, spelling) = &all[pick.index(all.len())];
        // A zero byte is in no spelling, so that text around it is exactly what must stay.
        let near_miss = |cut: &prop::sample::Index| {
            let kept = &spelling[..cut.index(spelling.len())];
            // What is cut short may still hold a shorter spelling, as the bearer value holds the key's own.
            if credential.scrubber().contains(kept) { &[][..] } else { kept }
        };
        let before = [b"text\0", near_miss(&cuts[0]), b"\0"].concat();
        let after = [b"\0", near_miss(&cuts[1]), b"\0 and more"].concat();
        let text = [&before[..], spelling, &after].concat();

        let mut stream = credential.scrubber().stream();
        let out = scrub(&mut stream, &text, &sizes);

        prop_assert_eq!(out.len(), text.len());
        prop_assert!(!holds(&out, spelling), "{} came out", what);
        prop_assert!(out.starts_with(&before), "{}: the text before changed", what);
        prop_assert!(out.ends_with(&after), "{}: the text after changed", what);
        prop_assert!(stream.hits() > 0);
        prop_assert!(credential.scrubber().contains(&text));
        prop_assert!(!credential.scrubber().contains(&out), "{} was masked only in part", what);
    }

    #[test]
    fn a_text_without_the_secret_is_unchanged(
        text in proptest::collection::vec(any::<u8>(), 0..3000),
        sizes in proptest::collection::vec(1..500_usize, 1..6),
    ) {
        let credential = credential(KEY, bearer());
        let mut stream = credential.scrubber().stream();
        prop_assert_eq!(scrub(&mut stream, &text, &sizes), text);
        prop_assert_eq!(stream.hits(), 0);
    }

    #[test]
    fn a_soup_of_fragments_keeps_length_and_loses_every_spelling(
        secret in "(a|b|ab|ba/){8,14}",
        soup in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12),
        sizes in proptest::collection::vec(1..9_usize, 1..4),
    ) {
        let credential = credential(secret.as_bytes(), basic());
        let all = spelled(secret.as_bytes());
        let text: Vec<u8> = soup
            .iter()
            .flat_map(|(which, cut)| {
                let spelling = &all[which.index(all.len())].1;
                spelling[..=cut.index(spelling.len())].to_vec()
            })
            .collect();
        let out = scrub(&mut credential.scrubber().stream(), &text, &sizes);
        prop_assert_eq!(out.len(), text.len());
        prop_assert!(!credential.scrubber().contains(&out));
    }
}

#[test]
fn base64_is_found_at_every_alignment_of_a_longer_text() {
    use base64::{Engine, engine::general_purpose as b64};
    let credential = credential(KEY, bearer());
    for before in 0..7 {
        for after in 0..4 {
            let whole = [&b"AbCdEfG"[..before], KEY, &b"hIjK"[..after]].concat();
            for text in [b64::STANDARD.encode(&whole), b64::URL_SAFE.encode(&whole)] {
                let out = scrub(&mut credential.scrubber().stream(), text.as_bytes(), &[1]);
                let masked = out
                    .iter()
                    .zip(text.as_bytes())
                    .filter(|(out, text)| out != text)
                    .count();
                // All characters that the secret alone decides, but for three that may have been sent.
                assert!(
                    masked >= (KEY.len() * 8 - 8) / 6 - 3 - 1,
                    "offset {before}, {after} behind: {out:?}"
                );
            }
        }
    }
}

#[test]
fn the_whole_basic_value_is_masked() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let credential = credential(KEY, basic());
    let text = STANDARD.encode([b"user:", KEY].concat());
    let out = scrub(
        &mut credential.scrubber().stream(),
        text.as_bytes(),
        &[1000],
    );
    assert!(out.starts_with(b"[scrubbed]**"));
    assert!(
        out[b"[scrubbed]".len()..]
            .iter()
            .filter(|byte| **byte != b'=')
            .all(|byte| *byte == b'*')
    );
}

#[test]
fn overlapping_occurrences_leave_nothing() {
    let credential = credential(b"abcabcabcabc", bearer());
    for size in 1..20 {
        let out = scrub(
            &mut credential.scrubber().stream(),
            b"<abcabcabcabcabcabcab>",
            &[size],
        );
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.len(), 22);
        assert!(!text.contains("abcabc"), "{text} in chunks of {size}");
    }
}

#[test]
fn at_most_three_bytes_of_the_secret_get_out_in_one_byte_chunks() {
    let credential = credential(KEY, bearer());
    let out = scrub(
        &mut credential.scrubber().stream(),
        &[b"key: ", KEY, b"."].concat(),
        &[1],
    );
    assert_eq!(&out[..8], b"key: sk-");
    assert!(
        out[8..out.len() - 1].iter().all(|byte| *byte == b'*'),
        "{out:?}"
    );
    assert_eq!(out.last(), Some(&b'.'));
}

#[test]
fn less_of_a_short_secret_gets_out() {
    for (secret, lead) in [(&b"hunter2"[..], 1), (b"hunt", 1), (b"abc", 0)] {
        let credential = credential(secret, bearer());
        let out = scrub(
            &mut credential.scrubber().stream(),
            &[b"<", secret, b">"].concat(),
            &[1],
        );
        let kept = out[1..out.len() - 1]
            .iter()
            .zip(secret)
            .take_while(|(out, secret)| out == secret)
            .count();
        assert_eq!(kept, lead, "{out:?}");
        assert!(!holds(&out, secret));
    }
}

#[test]
fn a_message_that_ends_like_the_secret_begins_is_sent_at_once() {
    let credential = credential(KEY, bearer());
    let mut stream = credential.scrubber().stream();
    let sent: usize = stream
        .push(Bytes::from_static(b"data: sk-"))
        .map(|piece| piece.len())
        .sum();
    assert_eq!((sent, stream.held_back()), (9, 0));
    let rest = [&KEY[3..], b"!"].concat();
    let out: Vec<u8> = stream.push(Bytes::from(rest)).flatten().collect();
    assert_eq!(out, [vec![b'*'; KEY.len() - 3], b"!".to_vec()].concat());
}

#[test]
fn only_the_beginning_of_the_secret_is_held_back_and_it_is_sent_in_order() {
    let credential = credential(KEY, bearer());
    let mut stream = credential.scrubber().stream();
    let first: Vec<u8> = stream
        .push(Bytes::from_static(b"data: sk-ant"))
        .flatten()
        .collect();
    assert_eq!(first, b"data: ");
    assert_eq!(stream.held_back(), 6);
    let second: Vec<u8> = stream
        .push(Bytes::from_static(b"hropic"))
        .flatten()
        .collect();
    assert_eq!(second, b"sk-anthropic");
    assert_eq!(stream.held_back(), 0);
    assert_eq!(
        stream
            .push(Bytes::from_static(b"..sk-ant-"))
            .flatten()
            .count(),
        2
    );
    assert_eq!(stream.finish().as_deref(), Some(&b"sk-ant-"[..]));
}

#[test]
fn a_masked_end_is_not_held_back() {
    // The secret ends as it begins: its last bytes could begin another one.
    let credential = credential(b"abcdeXYZabcde", bearer());
    let mut stream = credential.scrubber().stream();
    let out: Vec<u8> = stream
        .push(Bytes::from_static(b"<abcdeXYZabcde"))
        .flatten()
        .collect();
    assert_eq!(out.len(), 14);
    let more: Vec<u8> = stream
        .push(Bytes::from_static(b"XYZabcde>"))
        .flatten()
        .collect();
    assert_eq!(more, b"********>");
}

#[test]
fn what_is_masked_inside_held_bytes_is_counted_once() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let form = outgate_journey::policy::InjectionForm::Header {
        name: http::header::AUTHORIZATION,
        prefix: "Bearer ".into(),
        suffix: "; and a long suffix".into(),
    };
    let credential = credential(KEY, form);
    let value = [b"Bearer ", KEY, b"; and a long suffix"].concat();
    let text = STANDARD.encode(value);
    let mut stream = credential.scrubber().stream();
    let out = scrub(&mut stream, text.as_bytes(), &[1]);
    assert!(!credential.scrubber().contains(&out));
    // The key's own spelling when it is complete, the whole value when that is.
    assert_eq!(stream.hits(), 2);
}

#[test]
fn a_chunk_without_a_hit_is_passed_on_without_a_copy() {
    let credential = credential(KEY, bearer());
    let chunk = Bytes::from(vec![b'.'; 10_000]);
    let out = credential
        .scrubber()
        .stream()
        .push(chunk.clone())
        .next()
        .unwrap();
    assert_eq!(out.as_ptr(), chunk.as_ptr());
}

#[test]
fn a_secret_that_looks_like_a_mask_is_still_masked() {
    for secret in [
        &b"********"[..],
        b"[scrubbed]",
        b"*[scrubbed]#x-",
        b"scrubbed",
    ] {
        let credential = credential(secret, bearer());
        let out = scrub(
            &mut credential.scrubber().stream(),
            &[b"a", secret, secret, b"b"].concat(),
            &[5],
        );
        assert!(
            !credential.scrubber().contains(&out),
            "{}",
            String::from_utf8_lossy(&out)
        );
    }
}

#[test]
fn encodings_of_a_tiny_secret_are_not_looked_for() {
    let credential = credential(b"ab", bearer());
    let scrubber = credential.scrubber();
    assert!(scrubber.contains(b"-ab-"));
    assert!(!scrubber.contains(b"6162"));
    assert!(!scrubber.contains(b"YWI"));
    assert!(scrubber.contains(b"%61%62"), "six bytes are looked for");
}

#[test]
fn a_header_value_keeps_its_length_and_its_mark() {
    let credential = credential(KEY, bearer());
    let scrubber = credential.scrubber();
    assert_eq!(
        scrubber.header_value(&HeaderValue::from_static("text/plain")),
        None
    );
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", KEY].concat()).unwrap();
    value.set_sensitive(true);
    let masked = scrubber.header_value(&value).unwrap();
    assert!(masked.as_bytes().starts_with(b"Bearer [scrubbed]***"));
    assert_eq!(masked.len(), value.len());
    assert!(masked.is_sensitive());
}

#[test]
fn nothing_that_holds_the_secret_prints_it() {
    let credential = credential(KEY, bearer());
    let mut stream = credential.scrubber().stream();
    let _ = stream.push(Bytes::copy_from_slice(&KEY[..12]));
    let printed = format!("{credential:?} {:?} {stream:?}", credential.scrubber());
    assert!(!printed.contains("sk-ant"), "{printed}");
}
