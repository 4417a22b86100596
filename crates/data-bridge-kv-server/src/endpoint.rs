//! Where the server listens and who is at the other end: an address of TCP, or a Unix socket by its path.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What names a Unix socket among addresses.
const UNIX: &str = "unix:";
/// Longest path of one that the system takes: what `sockaddr_un` has room for, with a zero behind it.
const UNIX_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// One end of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket; whoever connects to it has no address of its own.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `127.0.0.1:7379`, `[::1]:7379`, `localhost:7379` or `unix:/path`; an error says what is expected.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return match path.len() {
                long if long > UNIX_BYTES => {
                    Err(format!("unix:/path of at most {UNIX_BYTES} bytes, not {long}"))
                }
                _ if Path::new(path).is_absolute() => Ok(Endpoint::Unix(path.into())),
                _ => Err("unix:/path".to_owned()),
            };
        }
        text.replacen("localhost:", "127.0.0.1:", 1).parse().map(Endpoint::Tcp).map_err(|_| {
            "an IP address and a port, such as 127.0.0.1:7379 or [::1]:7379, or unix:/path".to_owned()
        })
    }

    /// Whether other machines may reach it.
    pub fn is_public(&self) -> bool {
        !self.ip().is_loopback()
    }

    /// What limits of one address count by: a Unix socket serves this machine, as 127.0.0.1 does.
    pub fn ip(&self) -> IpAddr {
        match self {
            Endpoint::Tcp(address) => address.ip(),
            Endpoint::Unix(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    /// Its address, where it is one of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_they_are_shown() {
        for text in ["127.0.0.1:7379", "[::1]:7379", "unix:/run/kv.sock"] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.is_public()), (text, false));
        }
        assert!(Endpoint::parse("0.0.0.0:1").unwrap().is_public());
        assert_eq!(Endpoint::parse("localhost:1").unwrap().to_string(), "127.0.0.1:1");
        let path = |bytes: usize| format!("unix:/{}", "x".repeat(bytes - 1));
        let longest = path(UNIX_BYTES);
        assert_eq!(Endpoint::parse(&longest).unwrap().to_string(), longest);
        std::os::unix::net::SocketAddr::from_pathname(&longest[UNIX.len()..]).unwrap();
        let says = format!("unix:/path of at most {UNIX_BYTES} bytes, not {}", UNIX_BYTES + 1);
        assert_eq!(Endpoint::parse(&path(UNIX_BYTES + 1)), Err(says));
        for wrong in ["7379", "unix:", "unix:kv.sock", "/run/kv.sock", "unix//run/kv.sock"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }
}
