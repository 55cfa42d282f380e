//! What an OTLP receiver answers (`ExportLogsServiceResponse`, `google.rpc.Status`, both as JSON). Refuses to read an
//! acknowledgement out of what is not such an answer.

use serde::Deserialize;

/// What a 2xx answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Everything was taken; possibly with a word of advice.
    Complete {
        /// The collector's words.
        advice: Option<String>,
    },
    /// Some records were refused for good.
    Partial {
        /// How many.
        rejected: u64,
        /// The collector's words.
        why: String,
    },
    /// No answer of a collector: a login page, say, which has kept nothing.
    Foreign,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    partial_success: Option<PartialSuccess>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialSuccess {
    rejected_log_records: Option<Count>,
    error_message: Option<String>,
}

/// A 64-bit number: a string as a rule, a number from those who do not care.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Text(String),
    Number(u64),
}

impl Count {
    fn value(&self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(*number),
        }
    }
}

/// Reads the body of a 2xx answer. An empty one is a complete success.
pub(crate) fn read_answer(body: &[u8]) -> Answer {
    if body.trim_ascii().is_empty() {
        return Answer::Complete { advice: None };
    }
    let Ok(response) = serde_json::from_slice::<Response>(body) else {
        return Answer::Foreign;
    };
    let partial = response.partial_success.unwrap_or_default();
    let words = partial.error_message.filter(|words| !words.is_empty());
    let rejected = partial.rejected_log_records.as_ref();
    match rejected.map_or(Some(0), Count::value) {
        Some(0) => Answer::Complete { advice: words },
        Some(rejected) => Answer::Partial {
            rejected,
            why: words.unwrap_or_default(),
        },
        None => Answer::Foreign,
    }
}

/// The words of an error answer: the `message` of a `google.rpc.Status`.
pub(crate) fn words_of_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    serde_json::from_slice::<Status>(body)
        .ok()
        .map(|status| status.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collectors_answer_is_read_and_another_servers_is_not_believed() {
        let complete = Answer::Complete { advice: None };
        let partial = |rejected, why: &str| Answer::Partial {
            rejected,
            why: why.to_owned(),
        };
        for (body, wanted) in [
            ("", complete.clone()),
            ("{}", complete.clone()),
            (r#"{"partialSuccess":null}"#, complete.clone()),
            (r#"{"partialSuccess":{}}"#, complete.clone()),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":"0"},"x":1}"#,
                complete,
            ),
            (
                r#"{"partialSuccess":{"errorMessage":"use gzip"}}"#,
                Answer::Complete {
                    advice: Some("use gzip".to_owned()),
                },
            ),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too old"}}"#,
                partial(3, "too old"),
            ),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":2}}"#,
                partial(2, ""),
            ),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":"many"}}"#,
                Answer::Foreign,
            ),
            ("<html>log in</html>", Answer::Foreign),
            ("[]", Answer::Foreign),
            ("\"ok\"", Answer::Foreign),
        ] {
            assert_eq!(read_answer(body.as_bytes()), wanted, "{body}");
        }
    }
}
