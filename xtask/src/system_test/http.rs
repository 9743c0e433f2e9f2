//! A client that fetches one page or the start of an endless one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a server answered.
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// As it came: parts of chunked bodies still have their lengths before them.
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Fetches a path of this host's port until the body is `enough`, or has ended.
pub(crate) fn get(
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
    enough: impl Fn(&[u8]) -> bool,
) -> Result<Response> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let more: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{more}\r\n"
    )?;
    let mut reader = BufReader::new(stream);
    let mut response = head(&mut reader)?;
    let mut buffer = [0; 4096];
    while !enough(&response.body) {
        match reader.read(&mut buffer)? {
            0 => break,
            read => response.body.extend(&buffer[..read]),
        }
        if started.elapsed() > PATIENCE {
            bail!(
                "not enough in {PATIENCE:?}: {}",
                String::from_utf8_lossy(&response.body)
            );
        }
    }
    Ok(response)
}

/// Reads the status and the headers.
fn head(reader: &mut impl std::io::BufRead) -> Result<Response> {
    let mut lines = reader.by_ref().lines();
    let first = lines.next().context("no answer")??;
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .with_context(|| format!("no HTTP: {first}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("no header: {line}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Response {
        status,
        headers,
        body: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_and_the_body_left() -> Result<()> {
        let mut answer = &b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/plain\r\n\r\nno"[..];
        let response = head(&mut answer)?;
        assert_eq!(response.status, 401);
        assert_eq!(response.header("content-type"), Some("text/plain"));
        assert_eq!(answer, b"no");
        assert!(head(&mut &b"SSH-2.0\r\n"[..]).is_err());
        Ok(())
    }
}
