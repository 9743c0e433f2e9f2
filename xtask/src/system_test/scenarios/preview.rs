//! The preview, as a browser on another machine fetches it.

use anyhow::{Context as _, Result, ensure};

use super::super::http::{Response, get};
use super::super::outputs::{Outputs, text};

const POLICY: &str = "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const JPEG: &[u8] = b"\xff\xd8\xff";

/// Every page, with the token of the record of the start and without it.
pub(super) fn visit(start: &str, port: u16) -> Result<()> {
    let start: serde_json::Value = serde_json::from_str(start)?;
    let address = text(&start, "preview")?;
    let (_, token) = address
        .split_once("/?token=")
        .with_context(|| format!("no token in {address}"))?;
    ensure!(
        token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "not a token: {token}"
    );
    let server = Server { port, token };
    server.refuses_strangers()?;
    server.page()?;
    server.snapshot()?;
    server.stream()?;
    server.events()?;
    server.status()?;
    server.metrics()
}

/// It ended as any other run does.
pub(super) fn ended(outputs: &Outputs) -> Result<()> {
    let session = outputs.session("camera")?;
    ensure!(
        session.end["reason"] == "signal",
        "ended by itself: {}",
        session.end
    );
    Ok(())
}

struct Server<'a> {
    port: u16,
    token: &'a str,
}

impl Server<'_> {
    /// Fetches a path with the token, until `enough`.
    fn get(&self, path: &str, enough: impl Fn(&[u8]) -> bool) -> Result<Response> {
        let address = format!("{path}?token={}", self.token);
        let response = get(self.port, &address, &[], enough).with_context(|| path.to_owned())?;
        ensure!(
            response.status == 200,
            "{path}: status {}: {}",
            response.status,
            response.text()
        );
        Ok(response)
    }

    fn refuses_strangers(&self) -> Result<()> {
        let wrong = "0".repeat(self.token.len());
        let paths = [
            "/",
            "/stream.mjpg",
            "/snapshot.jpg",
            "/events",
            "/status.json",
            "/metrics",
        ];
        for path in paths {
            for address in [path.to_owned(), format!("{path}?token={wrong}")] {
                let response = get(self.port, &address, &[], |_| false)?;
                ensure!(
                    response.status == 401,
                    "{address}: status {}, not 401",
                    response.status
                );
            }
        }
        let bearer = format!("Bearer {}", self.token);
        let headers = [("Authorization", bearer.as_str())];
        let response = get(self.port, "/metrics", &headers, |_| false)?;
        ensure!(
            response.status == 200,
            "the token as a header: status {}",
            response.status
        );
        Ok(())
    }

    fn page(&self) -> Result<()> {
        let page = self.get("/", |_| false)?;
        let policy = page.header("content-security-policy");
        ensure!(policy == Some(POLICY), "the page's policy is {policy:?}");
        let html = page.text().to_ascii_lowercase();
        ensure!(
            html.contains("<!doctype html>") && html.contains("</html>"),
            "no whole page: {html}"
        );
        Ok(())
    }

    fn snapshot(&self) -> Result<()> {
        let picture = self.get("/snapshot.jpg", |_| false)?;
        let kind = picture.header("content-type");
        ensure!(
            kind == Some("image/jpeg")
                && picture.body.starts_with(JPEG)
                && picture.body.ends_with(b"\xff\xd9"),
            "no JPEG: {kind:?}, {} bytes",
            picture.body.len()
        );
        Ok(())
    }

    fn stream(&self) -> Result<()> {
        let pictures = |body: &[u8]| body.windows(JPEG.len()).filter(|&at| at == JPEG).count();
        let stream = self.get("/stream.mjpg", |body| pictures(body) >= 3)?;
        let kind = stream.header("content-type").unwrap_or_default();
        ensure!(
            kind.starts_with("multipart/x-mixed-replace") && pictures(&stream.body) >= 3,
            "{} pictures of {kind}",
            pictures(&stream.body)
        );
        Ok(())
    }

    fn events(&self) -> Result<()> {
        let whole = |body: &[u8]| {
            let text = String::from_utf8_lossy(body);
            text.matches("event: result").count() >= 3
        };
        let events = self.get("/events", whole)?;
        let kind = events.header("content-type").unwrap_or_default();
        let text = events.text();
        ensure!(
            kind.starts_with("text/event-stream")
                && text.contains("event: hello")
                && whole(&events.body),
            "no events of {kind}: {text}"
        );
        Ok(())
    }

    fn status(&self) -> Result<()> {
        let status = self.get("/status.json", |_| false)?;
        let status: serde_json::Value = serde_json::from_slice(&status.body)?;
        ensure!(
            status["hello"]["source"] == "/dev/video0" && status["result"]["state"] == "live",
            "a camera that is not live: {status}"
        );
        Ok(())
    }

    fn metrics(&self) -> Result<()> {
        let metrics = self.get("/metrics", |_| false)?.text();
        let is_sample = |line: &str| {
            let value = line
                .rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok());
            (line.starts_with("vitlet_") || line.starts_with("process_")) && value.is_some()
        };
        let mut samples = metrics.lines().filter(|line| !line.starts_with('#'));
        ensure!(
            metrics.lines().count() > 5 && samples.all(is_sample),
            "not Prometheus' format: {metrics}"
        );
        Ok(())
    }
}
