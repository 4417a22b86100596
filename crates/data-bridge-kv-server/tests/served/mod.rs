//! A real server on a free port and raw connections to it, for the integration tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::Config;
use data_bridge_kv_server::config::keys::KeyName;
use data_bridge_kv_server::config::layers::Layers;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest wait for anything: a test that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a server with these settings beside free ports.
pub async fn start(flags: &[(KeyName, &str)], environment: &[(&str, &str)]) -> Server {
    let config = config(flags, environment);
    let settings = Settings { namespaces: config.namespaces.clone(), ..Settings::default() };
    Server::start(config, Arc::new(Engine::open(settings).unwrap())).await.unwrap()
}

/// These settings beside free ports.
pub fn config(flags: &[(KeyName, &str)], environment: &[(&str, &str)]) -> Config {
    let ports =
        [(KeyName::Listen, "127.0.0.1:0"), (KeyName::Admin, "127.0.0.1:0"), (KeyName::DrainDelay, "0")];
    let own = |(key, value): &(KeyName, &str)| (*key, (*value).to_owned());
    let layers = Layers {
        flags: ports.iter().chain(flags).map(own).collect(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        file: None,
    };
    Config::read(&layers).unwrap().0
}

/// A connection that speaks bytes.
pub struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        Raw { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.get_mut().write_all(bytes)).await.unwrap();
    }

    /// Sends as much as the server takes; false if it closed the connection.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        within(self.stream.get_mut().write_all(bytes)).await.is_ok()
    }

    /// Reads exactly these bytes.
    pub async fn expect(&mut self, expected: &str) {
        let mut got = vec![0; expected.len()];
        let read = within(self.stream.read_exact(&mut got)).await;
        let shown = String::from_utf8_lossy(&got);
        assert!(read.is_ok(), "closed after {shown:?}, expected {expected:?}");
        assert_eq!(shown, expected);
    }

    /// Sends a command line and reads the whole reply, whatever it is.
    pub async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Reads one RESP reply with everything inside it.
    pub async fn reply(&mut self) -> String {
        let (mut text, mut left) = (Vec::new(), 1i64);
        while left > 0 {
            let start = text.len();
            let read = within(self.stream.read_until(b'\n', &mut text)).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&text));
            left -= 1;
            let number: i64 = String::from_utf8_lossy(&text[start + 1..]).trim_end().parse().unwrap_or(-1);
            match text[start] {
                b'$' | b'=' if number >= 0 => {
                    let from = text.len();
                    text.resize(from + usize::try_from(number).unwrap() + 2, 0);
                    within(self.stream.read_exact(&mut text[from..])).await.unwrap();
                }
                b'*' | b'~' | b'>' if number > 0 => left += number,
                b'%' => left += 2 * number,
                _ => {}
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads this many bytes.
    pub async fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within(self.stream.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// Reads until the server closes.
    pub async fn until_closed(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = within(self.stream.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Fails the test if this takes too long.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

/// The body of an HTTP answer from the admin port, and its status line.
pub async fn http(address: SocketAddr, path: &str) -> (String, String) {
    let mut connection = Raw::connect(address).await;
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let answer = connection.until_closed().await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// One line of the conformance file: the command and its replies in RESP2 and RESP3.
pub struct Line {
    pub command: String,
    pub replies: [String; 2],
}

/// The lines of `tests/conformance/replies.txt`, which a Redis 7.0 answered.
pub fn conformance() -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for text in include_str!("../conformance/replies.txt").lines() {
        let reply = |text: &str| text.replace('|', "\r\n").replace("\\0", "\0").replace("\\\\", "\\");
        if let Some(both) = text.strip_prefix("  2 ") {
            lines.last_mut().unwrap().replies = [reply(both), reply(both)];
        } else if let Some(newer) = text.strip_prefix("  3 ") {
            lines.last_mut().unwrap().replies[1] = reply(newer);
        } else {
            lines.push(Line { command: text.to_owned(), replies: Default::default() });
        }
    }
    lines
}
