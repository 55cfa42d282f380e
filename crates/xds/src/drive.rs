//! One stream, driven: reads what the client says and what changes, looks names up, and sends responses when the client
//! has room for them. What a client does not read is never made; one that reads nothing for too long is given up.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, Stream, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{broadcast, mpsc},
    time::{sleep_until, timeout},
};
use tonic::{Status, Streaming};

use crate::{
    clean::clean,
    source::{BoxFuture, Change, Lookup},
    talk::{Asked, Host, NODE_BYTES, Talk},
};

/// How long one look-up may take.
const LOOKUP: Duration = Duration::from_secs(10);
/// When a look-up that led to nothing is repeated.
const AGAIN: Duration = Duration::from_secs(1);
/// How much is taken in before the client is looked after again.
const TOGETHER: usize = 1024;

/// What a client is sent.
pub(crate) struct Responses<T>(pub(crate) mpsc::Receiver<Result<T, Status>>);

impl<T> Stream for Responses<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// One stream.
pub(crate) struct Drive<T: Talk> {
    pub(crate) talk: T,
    pub(crate) host: Arc<Host>,
    pub(crate) inbound: Streaming<T::Request>,
    pub(crate) changes: broadcast::Receiver<Change>,
    pub(crate) out: mpsc::Sender<Result<T::Response, Status>>,
}

/// What is under way on it.
struct Work<'a, Response> {
    lookups: FuturesUnordered<BoxFuture<'a, (Asked, Lookup)>>,
    /// Look-ups to repeat, the first due first.
    again: VecDeque<(Instant, Asked)>,
    /// A response that waits for room, and since when.
    ready: Option<(Response, Instant)>,
    /// Look-ups have ended, and others can begin.
    busy: bool,
    /// When it was last looked whether there is one.
    looked: Instant,
    /// The client says nothing more.
    heard_out: bool,
}

impl<T: Talk> Drive<T> {
    /// Until either side ends it.
    pub(crate) async fn run(mut self) {
        let ended = self.serve().await;
        if self.host.node.is_some() {
            self.host.source.gone(&self.host.node());
        }
        if let Err(status) = ended {
            tracing::info!(client = %self.host.client.name, code = ?status.code(), reason = status.message(), "a discovery stream ended");
            // To who reads; to others it is of no use.
            let _ = self.out.try_send(Err(status));
        }
    }

    async fn serve(&mut self) -> Result<(), Status> {
        // The first request says who it is.
        let closing = self.host.client.closing().clone();
        let first = tokio::select! {
            () = closing.cancelled() => return Ok(()),
            first = self.inbound.message() => first?,
        };
        let Some(first) = first else { return Ok(()) };
        let node = T::node(&first).map_or("", |node| &node.id);
        let node = clean(node, NODE_BYTES);
        let Some(host) = Arc::get_mut(&mut self.host) else {
            return Err(Status::internal("the stream is shared"));
        };
        host.node = Some(node);
        let host = Arc::clone(&self.host);
        host.source.connected(&host.node());
        self.talk.take(first, &host)?;
        let mut work = Work {
            lookups: FuturesUnordered::new(),
            again: VecDeque::new(),
            ready: None,
            busy: false,
            looked: Instant::now(),
            heard_out: false,
        };
        while !self.prepare(&mut work, &host) {
            if !self.wait(&mut work, &host).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Starts what can be started; whether there is nothing left to do.
    fn prepare<'a>(&mut self, work: &mut Work<'a, T::Response>, host: &'a Arc<Host>) -> bool {
        let now = Instant::now();
        self.hear_all();
        while work.again.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, asked)) = work.again.pop_front() {
                self.talk.ask_again(&asked);
            }
        }
        while work.lookups.len() < host.limits.lookups
            && let Some(asked) = self.talk.next_question()
        {
            work.lookups.push(Box::pin(look_up(host, asked)));
        }
        // What is at hand is answered together; others have their turn before more is looked up.
        work.busy = false;
        while let Some(Some((asked, lookup))) = work.lookups.next().now_or_never() {
            work.busy = true;
            answered(&mut self.talk, work, asked, lookup);
        }
        if work.ready.is_none() {
            work.looked = now;
            let response = self.talk.next_response(host, now);
            work.ready = response.map(|response| (response, now));
        }
        work.heard_out
            && !work.busy
            && work.ready.is_none()
            && work.lookups.is_empty()
            && work.again.is_empty()
    }

    /// Changes that are known already: what belongs together is then served in order.
    fn hear_all(&mut self) {
        for _ in 0..TOGETHER {
            match self.changes.try_recv() {
                Ok(change) => self.talk.changed(&change),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.talk.changed_unseen(),
                Err(_) => return,
            }
        }
    }

    /// Until something happens; `false` where the stream ends.
    async fn wait(
        &mut self,
        work: &mut Work<'_, T::Response>,
        host: &Host,
    ) -> Result<bool, Status> {
        let wake = [
            work.ready
                .as_ref()
                .map(|(_, since)| *since + host.limits.reading),
            self.talk
                .wake_at(host, work.looked)
                .filter(|_| work.ready.is_none()),
            work.again.front().map(|(due, _)| *due),
        ];
        let wake = wake.into_iter().flatten().min();
        let alarm = async {
            match wake {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = host.client.closing().cancelled() => return Ok(false),
            () = self.out.closed() => return Ok(false),
            permit = self.out.reserve(), if work.ready.is_some() => {
                let Ok(permit) = permit else { return Ok(false) };
                if let Some((response, _)) = work.ready.take() {
                    permit.send(Ok(response));
                }
            }
            Some((asked, lookup)) = work.lookups.next(), if !work.lookups.is_empty() => {
                answered(&mut self.talk, work, asked, lookup);
            }
            request = self.inbound.message(), if !work.heard_out => match request? {
                Some(request) => self.talk.take(request, host)?,
                None => work.heard_out = true,
            },
            change = self.changes.recv() => match change {
                Ok(change) => self.talk.changed(&change),
                Err(broadcast::error::RecvError::Lagged(_)) => self.talk.changed_unseen(),
                // The source has ended, and with it what there is to serve.
                Err(broadcast::error::RecvError::Closed) => return Ok(false),
            },
            () = tokio::task::yield_now(), if work.busy => {}
            () = alarm => {
                let now = Instant::now();
                let slow = work
                    .ready
                    .as_ref()
                    .is_some_and(|(_, since)| now >= *since + host.limits.reading);
                if slow {
                    return Err(Status::resource_exhausted("the client does not read what it is sent"));
                }
            }
        }
        Ok(true)
    }
}

fn answered<T: Talk>(talk: &mut T, work: &mut Work<'_, T::Response>, asked: Asked, lookup: Lookup) {
    let later = matches!(lookup, Lookup::Later);
    talk.answered(&asked, lookup);
    if later {
        work.again.push_back((Instant::now() + AGAIN, asked));
    }
}

async fn look_up(host: &Arc<Host>, asked: Asked) -> (Asked, Lookup) {
    let found = host.source.one(&host.client, &asked.type_url, &asked.name);
    let lookup = timeout(LOOKUP, found).await.unwrap_or(Lookup::Later);
    (asked, lookup)
}
