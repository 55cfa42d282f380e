//! Batches as webhooks, signed as Standard Webhooks 1.0 asks (<https://www.standardwebhooks.com>): HMAC-SHA-256 over
//! `<id>.<timestamp>.<body>`.
//!
//! The id names the range of records, so it is the same at every attempt; the timestamp is the attempt's.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header::InvalidHeaderValue};

use crate::batch::Batch;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The request's body: the lines of the trail, as they stand.
pub(crate) fn encode(log_id: &str, batch: &Batch) -> Vec<u8> {
    let (first, last) = (batch.first_seq(), batch.last_seq());
    let mut body = format!(
        r#"{{"type":"audit.records","log_id":"{log_id}","first_seq":{first},"last_seq":{last},"records":["#
    )
    .into_bytes();
    for (index, line) in batch.raw().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line.as_bytes());
    }
    body.extend_from_slice(b"]}");
    body
}

/// The same for the same records: what a receiver deduplicates by. Without a full stop, which separates what is signed.
pub(crate) fn id(log_id: &str, batch: &Batch) -> String {
    format!("{log_id}-{}-{}", batch.first_seq(), batch.last_seq())
}

/// Adds the three header fields.
pub(crate) fn sign(
    headers: &mut HeaderMap,
    keys: &[hmac::Key],
    id: &str,
    unix_seconds: u64,
    body: &[u8],
) -> Result<(), InvalidHeaderValue> {
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{unix_seconds}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        })
        .collect();
    headers.insert(ID, HeaderValue::from_str(id)?);
    headers.insert(TIMESTAMP, HeaderValue::from(unix_seconds));
    headers.insert(SIGNATURE, HeaderValue::from_str(&signatures.join(" "))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{Bounds, Supply},
        trail::test_trail::{LOG_ID, TestTrail, line},
    };

    #[test]
    fn the_body_holds_the_lines_as_they_stand() {
        let mut supply = Supply::new(TestTrail::new(3..5));
        supply.open(Some(2)).unwrap();
        let bounds = Bounds {
            records: 9,
            bytes: 9999,
            until: None,
        };
        let batch = supply.batch(bounds).unwrap().unwrap();
        let body = String::from_utf8(encode(LOG_ID, &batch)).unwrap();
        assert!(body.contains(&format!("[{},{}]", line(3, ""), line(4, ""))));
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&value["first_seq"], &value["last_seq"]),
            (&3.into(), &4.into())
        );
        assert_eq!(value["log_id"], LOG_ID);
        assert_eq!(value["records"][1]["seq"], 4);
        assert_eq!(id(LOG_ID, &batch), format!("{LOG_ID}-3-4"));
    }

    /// The specification's reference libraries use this example.
    #[test]
    fn the_signature_is_the_standards() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let mut headers = HeaderMap::new();
        let keys = [key.clone(), key];
        let body = br#"{"test": 2432232314}"#;
        sign(
            &mut headers,
            &keys,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            body,
        )
        .unwrap();
        let one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(headers[SIGNATURE], format!("{one} {one}"));
        assert_eq!(headers[ID], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers[TIMESTAMP], "1614265330");
    }
}
