//! The body of an answer to a client: the gateway's own words, or another's on their way.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use outgate_journey::denial::DenyCode;
use pin_project_lite::pin_project;

/// Any error of a body: whatever it is, the stream is cut.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The stream was ended by the gateway.
#[derive(Debug, thiserror::Error)]
#[error("cut by the gateway: {0}")]
pub struct CutError(pub DenyCode);

pin_project! {
    /// What a client gets.
    #[expect(missing_docs, reason = "the macro takes no words on fields; the variants say it")]
    #[project = Projection]
    pub enum AnswerBody<B> {
        /// The gateway's own words, at once; never empty.
        Own { bytes: Option<Bytes> },
        /// The body that came from the other side.
        Passed { #[pin] body: B },
    }
}

impl<B> AnswerBody<B> {
    /// The gateway's own words; none are no body.
    pub fn own(bytes: Bytes) -> Self {
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self::Own { bytes }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError>> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            Projection::Own { bytes } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            Projection::Passed { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { bytes } => bytes.is_none(),
            Self::Passed { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Passed { body } => body.size_hint(),
        }
    }
}
