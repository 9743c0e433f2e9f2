//! Responses that do not end: pictures for `<img>`, and events for `EventSource`.
//!
//! The server asks for the next bytes when the connection can take some, and only then the newest picture or result is fetched: what
//! came between is never queued anywhere.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::hub::{Hub, Picture, Shown};

/// Between two pictures' parts (RFC 2046, 5.1).
pub(super) const BOUNDARY: &str = "frame";
/// Events follow each other at this interval at least: nobody reads faster.
const INTERVAL: Duration = Duration::from_millis(100);
/// Without results, a comment is sent after so long: it shows whether the viewer is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A body made of chunks that are there when they are there.
pub(super) struct Flow {
    next: Pin<Box<dyn Future<Output = Step> + Send + Sync>>,
}

/// A chunk, and what gives the one after it; `None` at the end.
type Step = Option<(Bytes, Feed)>;

/// Where the chunks come from.
enum Feed {
    Pictures {
        hub: Arc<Hub>,
        pictures: watch::Receiver<Option<Picture>>,
        ended: watch::Receiver<Option<Arc<str>>>,
        started: bool,
    },
    Events {
        hub: Arc<Hub>,
        results: watch::Receiver<Option<Arc<Shown>>>,
        ended: watch::Receiver<Option<Arc<str>>>,
        stage: Stage,
    },
}

/// What an event stream sends next.
enum Stage {
    Hello,
    Results,
    Nothing,
}

impl Flow {
    /// Pictures as `multipart/x-mixed-replace`.
    pub(super) fn pictures(hub: &Arc<Hub>) -> Self {
        Self::of(Feed::Pictures {
            pictures: hub.pictures(),
            ended: hub.ended(),
            hub: Arc::clone(hub),
            started: false,
        })
    }

    /// Server-sent events (WHATWG HTML, 9.2).
    pub(super) fn events(hub: &Arc<Hub>) -> Self {
        Self::of(Feed::Events {
            results: hub.results(),
            ended: hub.ended(),
            hub: Arc::clone(hub),
            stage: Stage::Hello,
        })
    }

    fn of(feed: Feed) -> Self {
        Self {
            next: Box::pin(feed.next()),
        }
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match ready!(self.next.as_mut().poll(context)) {
            Some((bytes, feed)) => {
                self.next = Box::pin(feed.next());
                Some(Ok(Frame::data(bytes)))
            }
            None => {
                self.next = Box::pin(std::future::pending());
                None
            }
        })
    }
}

impl Feed {
    async fn next(self) -> Step {
        match self {
            Self::Pictures {
                hub,
                mut pictures,
                mut ended,
                started,
            } => {
                let bytes = if started {
                    tokio::select! {
                        picture = hub.next_picture(&mut pictures) => picture?.part,
                        _ = ended.wait_for(Option::is_some) => return None,
                    }
                } else {
                    Bytes::from(format!("--{BOUNDARY}\r\n"))
                };
                let feed = Self::Pictures {
                    hub,
                    pictures,
                    ended,
                    started: true,
                };
                Some((bytes, feed))
            }
            Self::Events {
                hub,
                mut results,
                mut ended,
                stage,
            } => {
                let (bytes, stage) = match stage {
                    Stage::Hello => (event("hello", &hub.hello), Stage::Results),
                    Stage::Results => result_or_end(&mut results, &mut ended).await,
                    Stage::Nothing => return None,
                };
                let feed = Self::Events {
                    hub,
                    results,
                    ended,
                    stage,
                };
                Some((bytes, feed))
            }
        }
    }
}

/// The newest result when there is a new one; the end when that comes; a comment when nothing does.
async fn result_or_end(
    results: &mut watch::Receiver<Option<Arc<Shown>>>,
    ended: &mut watch::Receiver<Option<Arc<str>>>,
) -> (Bytes, Stage) {
    tokio::select! {
        biased;
        reason = async { ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()) } => {
            let reason = reason.as_deref().unwrap_or("stopped");
            (event("end", &End { reason }), Stage::Nothing)
        }
        shown = next_result(results) => match shown {
            Some(shown) => (event("result", &*shown), Stage::Results),
            None => (Bytes::new(), Stage::Nothing),
        },
        () = sleep(HEARTBEAT) => (Bytes::from_static(b": still here\n\n"), Stage::Results),
    }
}

async fn next_result(results: &mut watch::Receiver<Option<Arc<Shown>>>) -> Option<Arc<Shown>> {
    sleep(INTERVAL).await;
    loop {
        results.changed().await.ok()?;
        if let Some(shown) = results.borrow_and_update().clone() {
            return Some(shown);
        }
    }
}

#[derive(Serialize)]
struct End<'a> {
    reason: &'a str,
}

/// An event. JSON has no line breaks, so it is one line of data.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// A picture as a part of a stream. The boundary after it is sent with it: browsers show a picture when they have seen its end.
pub(super) fn part(jpeg: &[u8]) -> Bytes {
    let head = format!(
        "Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        jpeg.len()
    );
    let tail = format!("\r\n--{BOUNDARY}\r\n");
    [head.as_bytes(), jpeg, tail.as_bytes()].concat().into()
}
