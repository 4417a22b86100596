//! With Redis's own programs, where they are installed: redis-cli and redis-benchmark against our server, and the
//! conformance file against a real redis-server, so that it says what Redis says.

mod served;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use data_bridge_kv_server::Server;
use served::{Raw, conformance, start, within};
use tokio::net::TcpSocket;

/// Whether a program is there; says so where it is not, because a test that looked at nothing proves nothing.
#[expect(clippy::print_stdout, reason = "a test that did not run says so")]
fn have(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped 1 test: {program} is not installed");
    }
    found
}

async fn run(program: &str, server: &Server, args: &[&str]) -> String {
    let port = server.addresses()[0].port().to_string();
    let all: Vec<String> = ["-p", &port].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
    let program = program.to_owned();
    let output = tokio::task::spawn_blocking(move || Command::new(program).args(all).output().unwrap());
    let output = within(output).await.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cli_is_at_home() {
    if !have("redis-cli") {
        return;
    }
    let server = start(&[], &[]).await;
    for (args, shown) in [
        (&["SET", "k", "v"][..], "OK"),
        (&["-3", "HSET", "h", "f", "1"], "1"),
        (&["-3", "HGETALL", "h"], "f"),
        (&["--scan", "--pattern", "h*"], "h"),
        (&["KV.SET", "d", "1.10", "AS", "decimal"], "OK"),
        (&["GET", "d"], "1.10"),
        (&["INFO", "server"], "data_bridge_kv_version"),
    ] {
        let text = run("redis-cli", &server, args).await;
        assert!(text.contains(shown), "{args:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_benchmark_runs_through() {
    if !have("redis-benchmark") {
        return;
    }
    let server = start(&[], &[]).await;
    let tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset";
    let text =
        run("redis-benchmark", &server, &["-n", "2000", "-c", "20", "-P", "8", "-q", "-t", tests]).await;
    let lines = text.matches("requests per second").count();
    assert!(lines >= 16, "{lines} of 16 tests: {text}");
    assert!(!text.to_lowercase().contains("error"), "{text}");
}

#[tokio::test]
async fn the_conformance_file_says_what_redis_says() {
    if !have("redis-server") {
        return;
    }
    // It keeps the port from other tests and their connections, but not from a server that is told to listen there.
    let kept = TcpSocket::new_v4().unwrap();
    kept.set_reuseaddr(true).unwrap();
    kept.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = kept.local_addr().unwrap();
    let port = address.port();
    let args = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let mut redis = Command::new("redis-server").args(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(redis.stdout.take().unwrap()).lines();
    // Connecting again and again until it works could meet its own socket on a free port.
    assert!(log.any(|line| line.unwrap().contains("Ready to accept connections")));
    let mut checked = 0;
    let mut differing = Vec::new();
    for (version, hello) in [(0, "HELLO 2"), (1, "HELLO 3")] {
        let mut connection = Raw::connect(address).await;
        connection.ask("FLUSHALL").await;
        connection.ask(hello).await;
        for line in conformance() {
            let got = connection.ask(&line.command).await;
            checked += 1;
            if got != line.replies[version] {
                differing.push(format!("{}: {got:?} for {:?}", line.command, line.replies[version]));
            }
        }
    }
    redis.kill().unwrap();
    redis.wait().unwrap();
    assert!(differing.is_empty() && checked > 400, "{checked} checked, different: {differing:#?}");
}
