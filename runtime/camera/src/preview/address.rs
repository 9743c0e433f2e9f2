//! Where the preview listens.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use crate::CameraError;
use crate::preview::token::Token;

/// A host and a port. Without a host it is this machine alone, without a port 8080.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewAddress {
    host: String,
    port: u16,
}

impl Default for PreviewAddress {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
        }
    }
}

impl FromStr for PreviewAddress {
    type Err = String;

    /// `HOST:PORT`, `HOST`, `PORT`, `:PORT`, `[IPv6]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no HOST:PORT (as 127.0.0.1:8080, 0.0.0.0:8080 for every network, or 8080); \
                 the source is given before --preview"
            )
        };
        let default = Self::default();
        if let Ok(port) = text.parse() {
            return Ok(Self { port, ..default });
        }
        // A bare IPv6 address has colons of its own.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if text.parse::<IpAddr>().is_err() => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (text, default.port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if text.is_empty() || !host.chars().all(usual) {
            return Err(wrong());
        }
        Ok(Self {
            host: if host.is_empty() {
                default.host
            } else {
                host.to_owned()
            },
            port,
        })
    }
}

impl fmt::Display for PreviewAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl PreviewAddress {
    pub(super) fn listen(&self) -> Result<TcpListener, CameraError> {
        TcpListener::bind((self.host.as_str(), self.port)).map_err(|error| self.error(error))
    }

    pub(super) fn error(&self, error: io::Error) -> CameraError {
        CameraError::Address {
            address: self.to_string(),
            error,
        }
    }
}

/// What a browser is given to open.
pub(super) fn url(local: SocketAddr, token: Option<&Token>) -> String {
    let shown = SocketAddr::new(reachable(local.ip()), local.port());
    let query = token.map_or_else(String::new, |token| format!("?token={token}"));
    format!("http://{shown}/{query}")
}

/// An address by which others reach this machine, if it listens on all.
fn reachable(ip: IpAddr) -> IpAddr {
    if !ip.is_unspecified() {
        return ip;
    }
    // Nothing is sent: this only asks which of our addresses a packet would have. (192.0.2.1 is for documentation, RFC 5737.)
    let outward = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    outward.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("0.0.0.0:9000", "0.0.0.0:9000"),
            ("9000", "127.0.0.1:9000"),
            (":9000", "127.0.0.1:9000"),
            ("board.local", "board.local:8080"),
            ("::1", "[::1]:8080"),
            ("[::1]:9000", "[::1]:9000"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            let address: PreviewAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
        }
        for text in ["", "/dev/video0", "host:port", "host:99999", "a b:1"] {
            let refused = text.parse::<PreviewAddress>();
            assert!(refused.unwrap_err().contains("HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn addresses_are_reachable() {
        let any: SocketAddr = "0.0.0.0:80".parse().unwrap();
        assert!(!url(any, None).contains("0.0.0.0"));
        let own: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(url(own, None), "http://127.0.0.1:80/");
        let token = Token::given("0123456789abcdef").unwrap();
        assert_eq!(
            url(own, Some(&token)),
            "http://127.0.0.1:80/?token=0123456789abcdef"
        );
    }

    #[test]
    fn a_taken_port_is_an_error_that_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: PreviewAddress = taken.local_addr().unwrap().to_string().parse().unwrap();
        let error = address.listen().unwrap_err().to_string();
        assert!(
            error.contains("in use") && error.contains("port 0"),
            "{error}"
        );
    }
}
