//! Requests to responses. No path of a request ever reaches the file system.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

use super::flow::{BOUNDARY, Flow};
use super::hub::{Hello, Hub, Shown};
use super::metrics;
use super::token::Token;

const PAGE: &str = include_str!("page.html");
/// Everything the page needs is in it, and nothing may be fetched from elsewhere.
const POLICY: &str = "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// How long a snapshot is waited for.
const SNAPSHOT: Duration = Duration::from_secs(3);

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Who may see the preview.
pub(super) struct Access {
    token: Option<Token>,
    /// Only this machine can connect, without a token.
    own: bool,
}

impl Access {
    pub(super) fn new(local: SocketAddr, token: Option<Token>) -> Self {
        Self {
            own: local.ip().is_loopback() && token.is_none(),
            token,
        }
    }

    /// How a request is refused that has not what it takes.
    fn refusal<B>(&self, request: &Request<B>) -> Option<Reply> {
        if self.own && !names_this_machine(request) {
            return Some(text(
                StatusCode::MISDIRECTED_REQUEST,
                "this preview is of this machine only: open it as localhost, or start it with --preview 0.0.0.0\n",
            ));
        }
        match &self.token {
            Some(token) if !given(request).any(|given| token.is(given)) => {
                let mut reply = text(
                    StatusCode::UNAUTHORIZED,
                    "a token is needed: open the address that vitlet printed, with its ?token=\n",
                );
                let bearer = HeaderValue::from_static("Bearer");
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
                Some(reply)
            }
            _ => None,
        }
    }
}

/// Whether the browser asked for this machine by a name that cannot be another's. A page from elsewhere may have a name of its own that
/// leads here (DNS rebinding), and would then be allowed to read everything.
fn names_this_machine<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST);
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        // HTTP/1.0, which no browser speaks.
        return host.is_none();
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "[::1]") || name.starts_with("127.")
}

/// The tokens that a request brings: in its address, or as Prometheus sends it.
fn given<B>(request: &Request<B>) -> impl Iterator<Item = &str> {
    let query = request.uri().query().unwrap_or("");
    let in_query = query
        .split('&')
        .filter_map(|field| field.strip_prefix("token="));
    let authorization = request.headers().get(header::AUTHORIZATION);
    let bearer = authorization
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    in_query.chain(bearer)
}

/// The response to a request.
pub(super) async fn respond<B>(request: Request<B>, access: &Access, hub: &Arc<Hub>) -> Reply {
    let mut reply = match access.refusal(&request) {
        Some(refusal) => refusal,
        None if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is understood\n");
            let allow = HeaderValue::from_static("GET, HEAD");
            reply.headers_mut().insert(header::ALLOW, allow);
            reply
        }
        None => route(request.uri().path(), hub).await,
    };
    let headers = reply.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The token is in the address.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // No page of another origin may show what is seen here.
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    reply
}

async fn route(path: &str, hub: &Arc<Hub>) -> Reply {
    match path {
        "/" | "/index.html" => of(StatusCode::OK, HTML, PAGE),
        "/stream.mjpg" => {
            let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
            reply(StatusCode::OK, &kind, Flow::pictures(hub))
        }
        "/events" => reply(StatusCode::OK, "text/event-stream", Flow::events(hub)),
        "/snapshot.jpg" => snapshot(hub).await,
        "/status.json" => of(StatusCode::OK, "application/json", status(hub)),
        "/metrics" => of(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::text(hub),
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "not here; there are / /stream.mjpg /snapshot.jpg /events /status.json /metrics\n",
        ),
    }
}

async fn snapshot(hub: &Arc<Hub>) -> Reply {
    let mut pictures = hub.pictures();
    match timeout(SNAPSHOT, hub.next_picture(&mut pictures)).await {
        Ok(Some(picture)) => of(StatusCode::OK, "image/jpeg", picture.jpeg),
        _ => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no frame within 3 s: is the camera connected?\n",
        ),
    }
}

#[derive(Serialize)]
struct Status<'a> {
    hello: &'a Hello,
    result: Option<&'a Shown>,
}

fn status(hub: &Hub) -> String {
    let result = hub.result();
    let status = Status {
        hello: &hub.hello,
        result: result.as_deref(),
    };
    serde_json::to_string(&status).unwrap_or_default()
}

fn text(status: StatusCode, text: &'static str) -> Reply {
    of(status, TEXT, text)
}

fn of(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Reply {
    reply(status, kind, Full::new(body.into()))
}

fn reply(
    status: StatusCode,
    kind: &str,
    body: impl Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
) -> Reply {
    let mut reply = Response::new(body.boxed());
    *reply.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    reply
}
