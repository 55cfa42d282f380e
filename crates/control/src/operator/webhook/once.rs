//! Acts on an id once.

use std::sync::Arc;

use outgate_journey::session::UnixSeconds;

use super::{Remembered, Verified};
use crate::operator::call::{Done, Outcome};

/// Carries a webhook's call out, unless its id was before: then it gets the answer of then.
pub(crate) async fn once(
    verified: &Verified,
    now: UnixSeconds,
    act: impl Future<Output = Outcome>,
) -> Outcome {
    let place = verified.seen.place(&verified.id, verified.at, now)?;
    let mut first = None;
    let remembered = place
        .get_or_try_init(|| async {
            match act.await {
                Ok(mut done) => {
                    done.remembered = Some((Arc::clone(&verified.seen), verified.id.clone()));
                    let (status, body) = (done.status, done.body.clone());
                    first = Some(Ok(done));
                    Ok(Remembered::Done { status, body })
                }
                // What may go better the next time is tried again when it is repeated.
                Err(refusal) if refusal.code.status() >= 500 || refusal.code.status() == 429 => {
                    Err(refusal)
                }
                Err(refusal) => {
                    first = Some(Err(refusal.clone()));
                    Ok(Remembered::Refused(refusal))
                }
            }
        })
        .await?
        .clone();
    let repeated = format!("repeats {}", verified.id);
    match (first, remembered) {
        (Some(outcome), _) => outcome,
        (None, Remembered::Done { status, body }) => Ok(Done {
            status,
            body,
            ..Done::default()
        }
        .noting(repeated)),
        (None, Remembered::Refused(refusal)) => Err(refusal.because(repeated)),
    }
}
