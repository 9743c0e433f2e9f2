//! Connections, and their limits. All of them are served by one thread.
//!
//! | against | limit |
//! |---|---|
//! | a thousand connections | [`CONNECTIONS`] at a time; the rest is closed at once |
//! | slowloris: headers that never end, or come byte by byte | [`HEADERS`] for a request's head, also for the next one of a connection |
//! | huge headers | [`BUFFER`] bytes and [`FIELDS`] fields of a head; more is answered by 431 |
//! | viewers that take nothing | [`STALL`], and until then one chunk and the system's buffer |

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_io_timeout::TimeoutStream;

use super::hub::Hub;
use super::routes::{Access, respond};
use crate::CameraError;

/// Connections at a time. A browser has two or three.
const CONNECTIONS: usize = 64;
/// Time for a request's head.
const HEADERS: Duration = Duration::from_secs(5);
/// Bytes of a head, and of what is written ahead.
const BUFFER: usize = 16 * 1024;
/// Fields of a head.
const FIELDS: usize = 64;
/// How long a viewer may take nothing.
const STALL: Duration = Duration::from_secs(10);
/// What viewers are given at the end to read the last event.
const FAREWELL: Duration = Duration::from_millis(200);

/// The server's thread.
#[derive(Debug)]
pub(super) struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(
        listener: TcpListener,
        hub: &Arc<Hub>,
        access: Access,
    ) -> Result<Self, CameraError> {
        let failed = |error| CameraError::Preview { error };
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed)?;
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let (stop, stopped) = watch::channel(false);
        let (hub, access) = (Arc::clone(hub), Arc::new(access));
        let thread = thread::Builder::new()
            .name("preview".to_owned())
            .spawn(move || runtime.block_on(serve(listener, hub, access, stopped)))
            .map_err(failed)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Lets the viewers read the last event, and ends.
    pub(super) fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It has nothing to report; a panic of it was printed.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    hub: Arc<Hub>,
    access: Arc<Access>,
    mut stopped: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Without a permit the stream is dropped, and so closed.
                    if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                        let (hub, access) = (Arc::clone(&hub), Arc::clone(&access));
                        tokio::spawn(async move {
                            connection(stream, hub, access).await;
                            drop(permit);
                        });
                    }
                }
                // Out of file descriptors, say: accepting again at once would fail again.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    if permits.available_permits() < CONNECTIONS {
        sleep(FAREWELL).await;
    }
}

/// Serves a connection until it ends. What goes wrong with it is the viewer's business.
async fn connection(stream: TcpStream, hub: Arc<Hub>, access: Arc<Access>) {
    // Pictures are to be seen when they are sent, and not when a packet is full.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL));
    let service = service_fn(move |request| {
        let (hub, access) = (Arc::clone(&hub), Arc::clone(&access));
        async move { Ok::<_, io::Error>(respond(request, &access, &hub).await) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
}
