//! A server that answers `+OK` to every command and does nothing else: what the kernel and the runtime cost by
//! themselves. `make bench` measures ours against it. `floor --port NUMBER`; one thread, RESP arrays only.

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some("--port"), Some(Ok(port))) =
        (arguments.next().as_deref(), arguments.next().map(|text| text.parse()))
    else {
        let _ = writeln!(io::stderr(), "floor: usage: floor --port NUMBER");
        return ExitCode::from(2);
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else {
        return ExitCode::FAILURE;
    };
    match runtime.block_on(listen(port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn listen(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer(stream));
    }
}

/// One reply a command; a command starts with the only `*` in it (the load generator's keys and values have none).
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut incoming = vec![0; 64 << 10];
    let mut replies = Vec::new();
    loop {
        let count = stream.read(&mut incoming).await?;
        if count == 0 {
            return Ok(());
        }
        replies.clear();
        for byte in &incoming[..count] {
            if *byte == b'*' {
                replies.extend_from_slice(b"+OK\r\n");
            }
        }
        stream.write_all(&replies).await?;
    }
}
