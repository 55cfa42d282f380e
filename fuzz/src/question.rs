//! The name in a question to the name server: what the DNS library reads is what the journey judges.

use hickory_proto::op::{Message, Query};
use outgate_journey::destination::identify_name;

/// A name that is accepted has the labels that were asked for, one for one, however they are spelt on the wire; an
/// answer repeats the question as it came.
pub fn question(input: &[u8]) {
    let Ok(message) = Message::from_vec(input) else {
        return;
    };
    if let (Some(query), Some(labels)) = (message.queries.first(), first_labels(input)) {
        assert_eq!(labels_of(query), labels, "the library reads another name");
    }
    for query in &message.queries {
        let written = query.name().to_ascii();
        let Ok(host) = identify_name(&written) else {
            continue;
        };
        let judged: Vec<_> = host.as_str().split('.').map(str::as_bytes).collect();
        let mut asked = labels_of(query);
        asked
            .iter_mut()
            .for_each(|label| label.make_ascii_lowercase());
        assert_eq!(asked, judged, "{written:?}");
        assert_eq!(identify_name(host.as_str()).as_ref(), Ok(&host));

        let mut answer = Message::response(message.metadata.id, message.metadata.op_code);
        answer.add_query(query.clone());
        let bytes = answer
            .to_vec()
            .expect("a question that was read can be written");
        let repeated = Message::from_vec(&bytes).expect("what was written can be read");
        let [repeated] = repeated.queries.as_slice() else {
            panic!("another number of questions");
        };
        assert_eq!(
            labels_of(repeated),
            labels_of(query),
            "another name, or another letter case"
        );
        assert_eq!(
            (repeated.query_type(), repeated.query_class()),
            (query.query_type(), query.query_class())
        );
    }
}

fn labels_of(query: &Query) -> Vec<Vec<u8>> {
    query.name().iter().map(<[u8]>::to_vec).collect()
}

/// The labels of the first question, where its name is written out (RFC 1035 section 4.1.2).
fn first_labels(input: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = input.get(12..)?;
    let mut labels = Vec::new();
    loop {
        let (length, after) = rest.split_first()?;
        match length {
            0 => return Some(labels),
            1..=63 => {
                let (label, after) = after.split_at_checked((*length).into())?;
                labels.push(label.to_vec());
                rest = after;
            }
            _ => return None,
        }
    }
}
