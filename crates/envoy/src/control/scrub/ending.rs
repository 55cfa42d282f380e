//! How a stream ends that Envoy did not end. The gRPC library ends a stream whose answers stop with status OK, and Envoy
//! takes that as leave to go on alone: what is left of the answer would pass unread. So the last thing that is said is an
//! error, whatever made the stream stop, a panic included; its place among the answers is reserved beforehand.

use outgate_envoy_proto::envoy::service::ext_proc::v3::ProcessingResponse;
use tokio::sync::mpsc::{OwnedPermit, Sender};
use tonic::Status;

/// What goes back to Envoy.
pub(in crate::control) type Answers = Sender<Result<ProcessingResponse, Status>>;

/// Ends a stream with an error unless it is told that Envoy was first.
pub(in crate::control) struct Ending(Option<OwnedPermit<Result<ProcessingResponse, Status>>>);

impl Ending {
    /// Takes one of the channel's places. `None`: nobody listens any more.
    pub(in crate::control) async fn reserve(answers: &Answers) -> Option<Self> {
        let permit = answers.clone().reserve_owned().await.ok()?;
        Some(Self(Some(permit)))
    }

    /// Envoy ended the stream: there is nobody to tell.
    pub(in crate::control) fn by_envoy(mut self) {
        self.0 = None;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            drop(permit.send(Err(Status::aborted("this stream was not over"))));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_stream_that_just_stops_ends_with_an_error_even_if_its_answers_are_not_taken() {
        let (answers, mut taken) = mpsc::channel(2);
        let task = tokio::spawn(async move {
            let _ending = Ending::reserve(&answers).await.unwrap();
            answers
                .send(Ok(ProcessingResponse::default()))
                .await
                .unwrap();
            panic!("on purpose");
        });
        assert!(task.await.is_err());
        assert!(taken.recv().await.unwrap().is_ok());
        assert!(taken.recv().await.unwrap().is_err());
        assert!(taken.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_envoy_ended_is_not_answered() {
        let (answers, mut taken) = mpsc::channel(2);
        Ending::reserve(&answers).await.unwrap().by_envoy();
        drop(answers);
        assert!(taken.recv().await.is_none());
    }

    #[tokio::test]
    async fn without_a_listener_there_is_no_stream() {
        let (answers, taken) = mpsc::channel(2);
        drop(taken);
        assert!(Ending::reserve(&answers).await.is_none());
    }
}
