//! Hostile clients: each gets an error or an end, and the server serves everybody else as before.

mod served;

use std::time::{Duration, Instant};

use data_bridge_kv_model::limits::{UNAUTHENTICATED_CONNECTIONS, UNAUTHENTICATED_SECONDS};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::keys::KeyName;
use served::{Raw, http, start, within};

/// Somebody else is served as ever.
async fn is_well(server: &Server) {
    let mut other = Raw::connect(server.addresses()[0]).await;
    assert_eq!(other.ask("PING").await, "+PONG\r\n");
}

#[tokio::test]
async fn malformed_requests_end_their_connection_with_an_error() {
    let server = start(&[], &[]).await;
    let long = [b"GET ".to_vec(), b"a".repeat(70_000)].concat();
    let deep = [b"*2\r\n$3\r\nSET\r\n".to_vec(), b"*1\r\n".repeat(100_000)].concat();
    let cases: [&[u8]; 10] = [
        b"*2147483647\r\n",
        b"*-2147483648\r\n*99999999999999999999\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*1\r\n$-5\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\nnonsense\r\n",
        b"\"unbalanced\r\n",
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        &long,
        &deep,
    ];
    for case in cases {
        let mut connection = Raw::connect(server.addresses()[0]).await;
        connection.try_send(case).await;
        let answer = connection.until_closed().await;
        let shown = String::from_utf8_lossy(&case[..case.len().min(40)]).into_owned();
        assert!(answer.contains("-ERR "), "{shown:?}: {answer:?}");
    }
    is_well(&server).await;
}

/// How long a health check waits.
const PROBE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn who_says_nothing_on_the_admin_port_keeps_no_probe_out() {
    let server = start(&[], &[]).await;
    let admin = server.admin_address().unwrap();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(Raw::connect(admin).await);
    }
    let asked = Instant::now();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(http(admin, path).await.0, "HTTP/1.1 200 OK", "{path}");
    }
    assert!(asked.elapsed() < PROBE, "{:?}", asked.elapsed());
    // The oldest made room; the youngest may still ask.
    assert_eq!(silent[0].until_closed().await, "");
    let youngest = silent.last_mut().unwrap();
    youngest.send(b"GET /livez HTTP/1.1\r\n\r\n").await;
    assert!(youngest.until_closed().await.starts_with("HTTP/1.1 200 "));
}

/// How many connections `INFO` says were ended by a limit, and because of a malformed request.
async fn ended(client: &mut Raw) -> [u64; 2] {
    let info = client.ask("INFO stats").await;
    ["client_connections_ended_by_limit:", "client_connections_ended_as_malformed:"].map(|name| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {info}")).parse().unwrap()
    })
}

#[tokio::test]
async fn an_end_is_counted_by_its_reason() {
    let server = start(&[], &[("KV_PASSWORD", "hush")]).await;
    let address = server.addresses()[0];
    let mut client = Raw::connect(address).await;
    client.ask("AUTH hush").await;
    assert_eq!(ended(&mut client).await, [0, 0]);
    for malformed in [&b"*1\r\n$-5\r\n"[..], &[0xdb, b'K', b'V', 1, 3, 0, 0, 0, 1, 2, 3], &[0xdb, b'X']] {
        let mut stranger = Raw::connect(address).await;
        stranger.send(malformed).await;
        stranger.until_closed().await;
    }
    // Each is counted when it is gone, which may be after it was closed.
    within(async { while ended(&mut client).await != [0, 3] {} }).await;
    let mut killed = Raw::connect(address).await;
    killed.ask("PING").await;
    assert_eq!(client.ask("CLIENT KILL TYPE normal").await, ":1\r\n");
    killed.until_closed().await;
    let mut large = Raw::connect(address).await;
    let word = format!("$40000\r\n{}\r\n", "x".repeat(40_000));
    large.try_send(format!("*4\r\n$4\r\nAUTH\r\n{word}{word}").as_bytes()).await;
    large.until_closed().await;
    within(async { while ended(&mut client).await != [1, 3] {} }).await;
    let (_, page) = http(server.admin_address().unwrap(), "/metrics").await;
    assert!(page.lines().any(|line| line == "kv_connections_ended_total 4"), "{page}");
}

#[tokio::test]
async fn native_frames_with_absurd_lengths_or_bodies_end_their_connection() {
    let server = start(&[], &[]).await;
    for frame in [
        &[0xff; 16][..],
        &[3, 0, 0, 0, 1, 2, 3],
        &[9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 31, 0],
        &[12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 5, 0xff, 0xff, 0xff, 0x0f],
    ] {
        let mut connection = Raw::connect(server.addresses()[0]).await;
        connection.send(&[0xdb, b'K', b'V', 1]).await;
        connection.try_send(frame).await;
        connection.until_closed().await;
    }
    let mut wrong = Raw::connect(server.addresses()[0]).await;
    wrong.send(&[0xdb, b'X']).await;
    assert_eq!(wrong.until_closed().await, "");
    is_well(&server).await;
}

#[tokio::test]
async fn odd_but_valid_requests_are_carried_out() {
    let server = start(&[], &[]).await;
    let mut connection = Raw::connect(server.addresses()[0]).await;
    connection.send(b"*3\r\n$3\r\nSET\r\n$3\r\na\0b\r\n$4\r\n\0\r\n\0\r\n").await;
    connection.expect("+OK\r\n").await;
    connection.send(b"\r\n\r\n*0\r\n*-1\r\n*2\r\n$3\r\nget\r\n$3\r\na\0b\r\n").await;
    connection.expect("$4\r\n\0\r\n\0\r\n").await;
    let mut many = b"*10001\r\n$3\r\nDEL\r\n".to_vec();
    (0..10_000).for_each(|number| many.extend_from_slice(format!("$5\r\n{number:05}\r\n").as_bytes()));
    connection.send(&many).await;
    connection.expect(":0\r\n").await;
    let big = 1 << 20;
    connection.send(format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${big}\r\n").as_bytes()).await;
    connection.send(&vec![b'x'; big]).await;
    connection.send(b"\r\nSTRLEN big\r\n").await;
    connection.expect(&format!("+OK\r\n:{big}\r\n")).await;
    assert!(connection.ask(&format!("SET {} v", "k".repeat(257))).await.starts_with("-ERR key is longer"));
    assert!(
        connection.ask(&format!("KEYS {}", "*a".repeat(600))).await.starts_with("-ERR pattern is longer")
    );
    is_well(&server).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_held_back_and_costs_little() {
    let server = start(&[], &[]).await;
    let mut greedy = Raw::connect(server.addresses()[0]).await;
    let value = "x".repeat(1 << 20);
    greedy.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nv\r\n${}\r\n{value}\r\n", value.len()).as_bytes()).await;
    greedy.expect("+OK\r\n").await;
    // A gigabyte of replies asked for, none read: the server stops carrying out.
    greedy.send("GET v\r\n".repeat(1000).as_bytes()).await;
    let client = server.shared().clients.list().into_iter().next().unwrap();
    let output = || client.output_bytes.load(std::sync::atomic::Ordering::Relaxed);
    within(async {
        while output() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    is_well(&server).await;
    assert!(output() < 64 << 20, "{} bytes wait for a client that does not read", output());
    for _ in 0..1000 {
        let reply = greedy.read_bytes(value.len() + 12).await;
        assert!(reply.starts_with(b"$1048576\r\nx") && reply.ends_with(b"x\r\n"));
    }
}

#[tokio::test]
async fn strangers_get_little_and_not_for_long() {
    let server = start(&[], &[("KV_PASSWORD", "hush")]).await;
    let address = server.addresses()[0];
    let mut stranger = Raw::connect(address).await;
    assert_eq!(stranger.ask("GET k").await, "-NOAUTH Authentication required.\r\n");
    assert!(stranger.ask("HELLO 3").await.starts_with("-NOAUTH HELLO must be called"));
    assert!(stranger.ask("AUTH wrong").await.starts_with("-WRONGPASS "));
    stranger.send(b"AUTH hush\r\nSET k v\r\nGET k\r\n").await;
    stranger.expect("+OK\r\n+OK\r\n$1\r\nv\r\n").await;
    assert!(stranger.ask("HELLO 3 AUTH default hush SETNAME me").await.starts_with("%8\r\n"));
    assert_eq!(stranger.ask("RESET").await, "+RESET\r\n");
    assert_eq!(stranger.ask("GET k").await, "-NOAUTH Authentication required.\r\n");

    for request in ["*17\r\n", "*2\r\n$65537\r\n"] {
        let mut connection = Raw::connect(address).await;
        connection.send(request.as_bytes()).await;
        assert!(connection.until_closed().await.starts_with("-ERR Protocol error"), "{request:?}");
    }
    let mut flood = Raw::connect(address).await;
    flood.try_send("GET k\r\n".repeat(100_000).as_bytes()).await;
    let answer = flood.until_closed().await;
    assert!(answer.len() <= 17_000, "{} bytes for a stranger", answer.len());

    let before = tokio::time::Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..UNAUTHENTICATED_CONNECTIONS {
        crowd.push(Raw::connect(address).await);
    }
    let mut late = Raw::connect(address).await;
    assert!(late.until_closed().await.contains("have not authenticated"));
    // Each is closed, and not before its time: it had that long to authenticate.
    for connection in &mut crowd {
        connection.until_closed().await;
    }
    assert!(before.elapsed() >= Duration::from_secs(UNAUTHENTICATED_SECONDS));
}

#[tokio::test]
async fn limits_of_connections_hold_and_say_so() {
    let server = start(&[(KeyName::MaxClients, "3"), (KeyName::MaxClientsPerAddress, "2")], &[]).await;
    let address = server.addresses()[0];
    let mut first = Raw::connect(address).await;
    first.ask("PING").await;
    let mut second = Raw::connect(address).await;
    second.ask("PING").await;
    let mut third = Raw::connect(address).await;
    assert_eq!(third.until_closed().await, "-ERR max number of clients of this address reached\r\n");
    assert!(second.ask("CLIENT KILL ID 1").await.starts_with(":1"));
    assert_eq!(first.until_closed().await, "");
    assert_eq!(server.shared().clients.totals().refused, 1);
}

#[tokio::test]
async fn guessing_passwords_is_slow_and_ends() {
    let server = start(&[], &[("KV_PASSWORD", "hush")]).await;
    let mut guesser = Raw::connect(server.addresses()[0]).await;
    let start = tokio::time::Instant::now();
    guesser.try_send("AUTH x\r\n".repeat(100).as_bytes()).await;
    let answer = guesser.until_closed().await;
    let failures = answer.matches("-WRONGPASS").count();
    assert!((2..=11).contains(&failures), "{failures} guesses");
    assert!(start.elapsed() > Duration::from_millis(200) * u32::try_from(failures - 1).unwrap());
}
