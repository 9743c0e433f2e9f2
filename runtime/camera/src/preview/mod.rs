//! The preview: a page with the picture, the classes and the times, for any number of browsers.
//!
//! | module | says |
//! |---|---|
//! | `address` | where it listens |
//! | `token` | who may see it |
//! | `hub` | what there is to see: written by the pipeline, read by the server |
//! | `jpeg` | frames to pictures, by a thread of their own |
//! | `server` | connections, and their limits |
//! | `routes` | requests to responses |
//! | `flow` | responses without end: pictures, events |
//! | `metrics` | Prometheus' text format |
//! | `page.html` | the page |
//!
//! The pipeline never waits for a viewer. It leaves the newest result in the hub, and a frame only when a viewer has asked for one since
//! the last; every viewer takes the newest picture when it is ready for one. A slow viewer loses pictures, and costs no memory.

mod address;
mod flow;
mod hub;
pub(crate) mod jpeg;
mod metrics;
mod routes;
mod server;
mod token;

use std::sync::Arc;
use std::thread::JoinHandle;

pub use address::PreviewAddress;
pub use hub::Hello;

use crate::preview::hub::Hub;
use crate::preview::server::Server;
use crate::preview::token::Token;
use crate::{CameraError, CameraFrame, Classified, Notice};

/// A preview that is being served. It ends when it is dropped.
#[derive(Debug)]
pub struct Preview {
    hub: Arc<Hub>,
    server: Server,
    encoder: Option<JoinHandle<()>>,
    url: String,
}

impl Preview {
    /// Listens and serves. `token` is what viewers have to know; without one, one is made unless the address is this machine's own.
    ///
    /// # Errors
    /// If the address cannot be used, the token is too short, or a thread cannot be started.
    pub fn start(
        address: &PreviewAddress,
        token: Option<&str>,
        hello: Hello,
    ) -> Result<Self, CameraError> {
        let listener = address.listen()?;
        let local = listener
            .local_addr()
            .map_err(|error| address.error(error))?;
        let token = match token {
            Some(token) => Some(Token::given(token)?),
            None if local.ip().is_loopback() => None,
            None => Some(Token::random()?),
        };
        let url = address::url(local, token.as_ref());
        let hub = Arc::new(Hub::new(hello));
        let encoder = jpeg::start(&hub)?;
        let server = Server::start(listener, &hub, routes::Access::new(local, token))?;
        Ok(Self {
            hub,
            server,
            encoder: Some(encoder),
            url,
        })
    }

    /// The page's address, with the token if there is one.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Shows a frame. Returns one whose memory can be used again, unless a viewer is to see this one.
    pub fn frame(&self, classified: &Classified<'_>, frame: CameraFrame) -> Option<CameraFrame> {
        self.hub.frame(classified, frame)
    }

    /// Shows that the camera has gone or is back.
    pub fn notice(&self, notice: &Notice) {
        self.hub.notice(notice);
    }

    /// Tells the viewers that this is the end, and why.
    pub fn end(&self, reason: &str) {
        self.hub.end(reason);
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        self.hub.end("stopped");
        self.server.stop();
        if let Some(encoder) = self.encoder.take() {
            // It has nothing to report; a panic of it was printed.
            let _ = encoder.join();
        }
    }
}
