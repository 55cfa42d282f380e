//! One HTTP/1.1 connection of a client.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, UpgradeableConnection},
    service::{HttpService, Service},
};
use hyper_util::rt::TokioIo;
use outgate_wire::http1::MAX_HEAD;
use tokio::io::{AsyncRead, AsyncWrite};

use super::note_end;
use crate::{
    answer::{AnswerBody, BoxError},
    guard::{GuardState, Guarded},
};

/// One HTTP/1.1 connection. While nothing is asked it holds neither the HTTP library's buffers nor its state: many
/// clients keep more connections open than they use.
pub(super) enum Http1<T, S: HttpService<Incoming>> {
    Serving {
        guard: Arc<GuardState>,
        connection: Box<UpgradeableConnection<TokioIo<Guarded<T>>, S>>,
    },
    AtRest(Guarded<T>, S),
    Closing(Guarded<T>),
    Over,
}

impl<T, S, B> Http1<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<AnswerBody<B>>, Error = Infallible>,
    B: Body<Data = Bytes, Error = BoxError> + 'static,
{
    pub(super) fn new(io: Guarded<T>, service: S) -> Self {
        // How many fields a head has was judged before; a number given here costs a table on the heap for each head.
        let guard = Arc::clone(io.state());
        let connection = Builder::new()
            .max_buf_size(MAX_HEAD * 2)
            .preserve_header_case(true)
            .auto_date_header(false)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        Self::Serving {
            guard,
            connection: Box::new(connection),
        }
    }

    /// Serves until the connection ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::Serving { guard, connection } => match Pin::new(&mut **connection).poll(cx) {
                    Poll::Ready(result) => {
                        note_end(result);
                        return Poll::Ready(());
                    }
                    Poll::Pending if guard.came_to_rest() => self.rest(),
                    Poll::Pending => return Poll::Pending,
                },
                Self::AtRest(io, _) => match ready!(io.poll_judged(cx)) {
                    Ok(true) => self.serve(),
                    Ok(false) => self.finish(),
                    Err(error) => {
                        tracing::debug!(%error, "a client's connection ended");
                        return Poll::Ready(());
                    }
                },
                Self::Closing(io) => return Pin::new(io).poll_shutdown(cx).map(drop),
                Self::Over => return Poll::Ready(()),
            }
        }
    }

    fn rest(&mut self) {
        if let Self::Serving { connection, .. } = self.take()
            && let Some(parts) = connection.into_parts()
        {
            let mut io = parts.io.into_inner();
            io.put_back(&parts.read_buf);
            *self = Self::AtRest(io, parts.service);
        }
    }

    fn serve(&mut self) {
        if let Self::AtRest(io, service) = self.take() {
            *self = Self::new(io, service);
        }
    }

    /// Ends the connection after the exchange that is going on.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Serving { connection, .. } => Pin::new(&mut **connection).graceful_shutdown(),
            Self::AtRest(..) => {
                if let Self::AtRest(io, _) = self.take() {
                    *self = Self::Closing(io);
                }
            }
            Self::Closing(_) | Self::Over => {}
        }
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Over)
    }
}

#[cfg(test)]
mod tests;
