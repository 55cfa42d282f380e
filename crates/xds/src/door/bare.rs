//! Calls that one message asks and one answers, straight on HTTP/2: gRPC's framing, and nothing between it and the method.
//! For what is asked tens of thousands of times a second.
//!
//! A message is held until it is whole and its room is given back only then, so that what waits to be whole is no more
//! than the connection's window, however many calls there are.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::poll_fn;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

/// What may be under way to this side on one call, in bytes.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// The longest message, in bytes: with its prefix it fits the window, which is not widened while it is read.
const MESSAGE_BYTES: usize = 192 * 1024;
/// How long a message may take to come.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// A flag, and the length of what follows.
const PREFIX: usize = 5;

/// The answer, as it goes over the wire.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;
/// What answers the calls of a method, and who makes one.
pub(crate) type Method = dyn Fn(Request<RecvStream>, &Arc<str>) -> Answering + Send + Sync;

/// A call of a method that is asked and answered by one message.
#[derive(Debug)]
pub struct Call<Question> {
    /// Who calls: a name of its certificate that is let in, or [`crate::LOCAL`].
    pub client: Arc<str>,
    /// The fields of its head.
    pub metadata: HeaderMap,
    /// What is asked.
    pub question: Question,
}

/// Makes a method of a function.
pub(crate) fn method<Question, Answer, F, Answered>(answer: F) -> Arc<Method>
where
    Question: Message + Default,
    Answer: Message,
    F: Fn(Call<Question>) -> Answered + Clone + Send + Sync + 'static,
    Answered: Future<Output = Result<Answer, Status>> + Send + 'static,
{
    Arc::new(move |request: Request<RecvStream>, client: &Arc<str>| {
        let (answer, client) = (answer.clone(), Arc::clone(client));
        Box::pin(async move {
            let (head, mut body) = request.into_parts();
            check_encoding(&head.headers)?;
            let message = read_in_time(&mut body).await?;
            drop(body);
            let call = Call {
                client,
                metadata: head.headers,
                question: Question::decode(message)
                    .map_err(|error| Status::internal(error.to_string()))?,
            };
            framed(&answer(call).await?)
        })
    })
}

/// Answers at once where nothing is waited for, and else as soon as it can, unless the peer takes the call back.
pub(super) fn begin(
    mut answering: Answering,
    respond: SendResponse<Bytes>,
    context: &mut Context<'_>,
) {
    // Others' calls go on whatever becomes of this one, as they do where each has its task.
    let looked = catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context)));
    match looked {
        Ok(Poll::Ready(answer)) => send(answer, respond),
        Ok(Poll::Pending) => {
            tokio::spawn(finish(answering, respond));
        }
        // The stream is reset by being given up; what panicked has said so.
        Err(_) => {}
    }
}

async fn finish(mut answering: Answering, mut respond: SendResponse<Bytes>) {
    let answer = poll_fn(|context| match answering.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => respond.poll_reset(context).map(|_| None),
    });
    if let Some(answer) = answer.await {
        send(answer, respond);
    }
}

/// Sends an answer, or says why there is none. Who does not listen any more is not told.
pub(super) fn send(answer: Result<Bytes, Status>, mut respond: SendResponse<Bytes>) {
    let _ = match answer {
        Ok(message) => send_message(message, &mut respond),
        Err(status) => respond
            .send_response(status.into_http::<()>(), true)
            .map(|_| ()),
    };
}

fn send_message(message: Bytes, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert(CONTENT_TYPE, grpc);
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(message, false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// Nothing is offered that a message could be compressed by.
fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => Err(Status::unimplemented(
            "compressed messages are not taken here",
        )),
        _ => Ok(()),
    }
}

async fn read_in_time(body: &mut RecvStream) -> Result<Bytes, Status> {
    let read = timeout(MESSAGE_WITHIN, read(body)).await;
    read.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(
            "the message took too long to come",
        ))
    })
}

/// The one message of a call, without its prefix.
async fn read(body: &mut RecvStream) -> Result<Bytes, Status> {
    let mut coming = Coming::default();
    while let Some(piece) = next(body).await? {
        coming.add(piece)?;
        if body.is_end_stream() {
            break;
        }
    }
    // Nobody else is kept waiting for it.
    let _ = body.flow_control().release_capacity(coming.length());
    coming.whole()
}

/// A message that comes in pieces.
#[derive(Default)]
pub(crate) struct Coming {
    /// Most come in one.
    first: Bytes,
    all: BytesMut,
}

impl Coming {
    /// Takes a piece.
    ///
    /// # Errors
    /// As soon as it cannot become one message that is taken here.
    pub(crate) fn add(&mut self, piece: Bytes) -> Result<(), Status> {
        if self.length() == 0 {
            self.first = piece;
        } else {
            if self.all.is_empty() {
                self.all = BytesMut::from(std::mem::take(&mut self.first));
            }
            self.all.extend_from_slice(&piece);
        }
        match whole_length(self.begun())? {
            Some(length) if length < self.length() => {
                Err(Status::internal("more than one message"))
            }
            _ => Ok(()),
        }
    }

    /// The message, without its prefix.
    pub(crate) fn whole(self) -> Result<Bytes, Status> {
        match whole_length(self.begun())? {
            Some(length) if length == self.length() => {}
            _ if self.length() == 0 => return Err(Status::internal("there is no message")),
            _ => return Err(Status::internal("the message is cut off")),
        }
        let mut whole = if self.all.is_empty() {
            self.first
        } else {
            self.all.freeze()
        };
        whole.advance(PREFIX);
        Ok(whole)
    }

    fn begun(&self) -> &[u8] {
        if self.all.is_empty() {
            &self.first
        } else {
            &self.all
        }
    }

    fn length(&self) -> usize {
        self.begun().len()
    }
}

async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, Status> {
    body.data()
        .await
        .transpose()
        .map_err(|_| Status::cancelled("the call was taken back"))
}

/// How long a message that begins so is with its prefix, once that is there.
fn whole_length(mut begun: &[u8]) -> Result<Option<usize>, Status> {
    if begun.len() < PREFIX {
        return Ok(None);
    }
    match begun.get_u8() {
        0 => {}
        1 => {
            return Err(Status::internal(
                "the message is compressed, and its head names no encoding",
            ));
        }
        _ => return Err(Status::internal("the message's flag is unknown")),
    }
    match usize::try_from(begun.get_u32()) {
        Ok(length) if length <= MESSAGE_BYTES => Ok(Some(length + PREFIX)),
        _ => Err(Status::out_of_range(format!(
            "the message is longer than {MESSAGE_BYTES} bytes"
        ))),
    }
}

/// A message behind its prefix.
fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let told = u32::try_from(length).map_err(|_| Status::out_of_range("the answer is too long"))?;
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    out.put_u32(told);
    message.encode_raw(&mut out);
    Ok(out.freeze())
}
