//! A Redis server of this test's own, behind a socket file, and the few lines of RESP that talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use data_bridge_kv_testkit::directory::Directory;

/// A RESP2 reply.
#[derive(Debug)]
pub enum Resp {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Resp>),
}

/// A running server; it ends with this value.
pub struct Redis {
    server: Child,
    _folder: Directory,
    stream: BufReader<UnixStream>,
}

impl Redis {
    /// Starts a server; `None` where none is installed.
    pub fn start() -> Option<Redis> {
        let folder = Directory::new("redis-equiv");
        let socket = folder.join("socket");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let mut server = match command.current_dir(folder.path()).stdout(Stdio::piped()).spawn() {
            Ok(server) => server,
            Err(_) => return None,
        };
        let mut log = BufReader::new(server.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("eady to accept connections at")
            && !line.contains("server is now ready to accept connections at")
        {
            line.clear();
            assert!(log.read_line(&mut line).expect("the log") > 0, "redis-server ended");
        }
        // The server must never block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let stream = BufReader::new(UnixStream::connect(&socket).expect("the server listens"));
        Some(Redis { server, _folder: folder, stream })
    }

    /// Sends one command and reads its reply.
    pub fn command(&mut self, words: &[&[u8]]) -> Resp {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).expect("the server reads");
        self.reply()
    }

    /// The server's time, unix ms.
    pub fn now_ms(&mut self) -> u64 {
        let Resp::Array(parts) = self.command(&[b"TIME"]) else { panic!("no time") };
        let [Resp::Bulk(seconds), Resp::Bulk(micros)] = &parts[..] else { panic!("no time") };
        let number =
            |text: &[u8]| std::str::from_utf8(text).expect("digits").parse::<u64>().expect("a number");
        number(seconds) * 1000 + number(micros) / 1000
    }

    fn reply(&mut self) -> Resp {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).expect("the server answers");
        let line = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().expect("a number");
        match kind {
            "+" => Resp::Simple(rest.to_owned()),
            "-" => Resp::Error(rest.to_owned()),
            ":" => Resp::Integer(number()),
            "$" | "*" if number() < 0 => Resp::Nil,
            "$" => {
                let length = usize::try_from(number()).expect("a length");
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).expect("the whole string");
                bytes.truncate(length);
                Resp::Bulk(bytes)
            }
            "*" => Resp::Array((0..number()).map(|_| self.reply()).collect()),
            other => panic!("unknown reply {other:?}"),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
