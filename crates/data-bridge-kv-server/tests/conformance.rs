//! Replies byte by byte: `tests/conformance/replies.txt` holds what Redis 7.0 answers to everyday commands in both
//! protocols; ours must be the same. Typed arguments and replies, which Redis does not have, stand below.

mod served;

use served::{Raw, conformance, start};

#[tokio::test]
async fn everyday_commands_are_answered_as_redis_does() {
    let server = start(&[], &[]).await;
    for (version, hello) in [(0, "HELLO 2"), (1, "HELLO 3")] {
        let mut connection = Raw::connect(server.addresses()[0]).await;
        connection.ask("FLUSHALL").await;
        connection.ask(hello).await;
        let mut checked = 0;
        for line in conformance() {
            assert_eq!(
                connection.ask(&line.command).await,
                line.replies[version],
                "{}, {hello}",
                line.command
            );
            checked += 1;
        }
        assert!(checked > 200, "only {checked} commands");
        assert_eq!(connection.until_closed().await, "");
    }
}

#[tokio::test]
async fn a_pipeline_in_one_write_is_answered_in_order() {
    let server = start(&[], &[]).await;
    let mut connection = Raw::connect(server.addresses()[0]).await;
    let (mut request, mut expected) = (String::new(), String::new());
    let mut sum = 0;
    for number in 0..2000 {
        let text = number.to_string();
        sum += number;
        request.push_str(&format!("INCRBY sum {number}\r\n"));
        expected.push_str(&format!(":{sum}\r\n"));
        request.push_str(&format!("*3\r\n$3\r\nSET\r\n${0}\r\n{1}\r\n${0}\r\n{1}\r\n", text.len(), text));
        request.push_str(&format!("*2\r\n$3\r\nGET\r\n${0}\r\n{1}\r\nPING\r\nBAD\r\n", text.len(), text));
        expected.push_str(&format!("+OK\r\n${0}\r\n{1}\r\n+PONG\r\n", text.len(), text));
        expected.push_str("-ERR unknown command 'BAD', with args beginning with: \r\n");
    }
    // A thousandth part at a time, so that requests are cut everywhere.
    for piece in request.as_bytes().chunks(request.len() / 1000) {
        connection.send(piece).await;
    }
    connection.expect(&expected).await;
}

#[tokio::test]
async fn typed_values_go_in_and_out_over_resp() {
    let server = start(&[], &[]).await;
    let mut connection = Raw::connect(server.addresses()[0]).await;
    for (line, reply) in [
        ("KV.TYPED ON", "-ERR typed replies need RESP3: send HELLO 3 first\r\n"),
        ("KV.SET price 1.10 AS decimal", "+OK\r\n"),
        ("KV.KIND price", "+decimal\r\n"),
        ("GET price", "$4\r\n1.10\r\n"),
        ("KV.CAS price VALUE 1.1 TO 2 AS decimal", ":0\r\n"),
        ("KV.CAS price VALUE 1.10 TO 2.20 AS decimal", ":1\r\n"),
        ("KV.INCR price 0.05 AS decimal", "$4\r\n2.25\r\n"),
        ("KV.SET price 1.1x AS decimal", "-ERR "),
        ("KV.INCR tries 1 EX 10 PX 5", "-ERR syntax error\r\n"),
        ("KV.TRANSITION job status TO new MISSING EX 10 KEEPTTL", "-ERR syntax error\r\n"),
        ("KV.WAIT job TIMEOUT -1", "-ERR value is out of range, must be positive\r\n"),
    ] {
        let got = connection.ask(line).await;
        assert!(got == reply || reply == "-ERR " && got.starts_with(reply), "{line}: {got:?}");
    }
    connection.ask("HELLO 3").await;
    connection.ask("KV.TYPED ON").await;
    let args = "=8\r\ndec:1.10\r\n";
    connection.send(format!("*3\r\n$6\r\nKV.SET\r\n$1\r\nd\r\n{args}").as_bytes()).await;
    connection.expect("+OK\r\n").await;
    assert_eq!(connection.ask("KV.GET d").await, args);
    let list = "*5\r\n:1\r\n,1.5\r\n#t\r\n_\r\n%1\r\n=5\r\ntxt:k\r\n$1\r\nv\r\n";
    connection.send(format!("*3\r\n$6\r\nKV.SET\r\n$1\r\nl\r\n{list}").as_bytes()).await;
    connection.expect("+OK\r\n").await;
    assert_eq!(connection.ask("KV.GET l").await, list);
    assert_eq!(connection.ask("KV.CAS l MISSING TO 1").await, "#f\r\n");
}

/// `replies.txt` has another use for the bar.
#[tokio::test]
async fn a_subcommand_without_its_arguments_is_refused() {
    let server = start(&[], &[]).await;
    let mut connection = Raw::connect(server.addresses()[0]).await;
    for (line, name) in [("CONFIG SET", "config|set"), ("CLIENT KILL", "client|kill")] {
        let reply = format!("-ERR wrong number of arguments for '{name}' command\r\n");
        assert_eq!(connection.ask(line).await, reply);
    }
}

/// What Redis knows since 7.4, the version that HELLO tells.
#[tokio::test]
async fn a_walk_over_fields_leaves_values_out_wherever_that_is_said() {
    let server = start(&[], &[]).await;
    let mut connection = Raw::connect(server.addresses()[0]).await;
    connection.ask("HSET h f 1").await;
    for options in ["NOVALUES", "MATCH f* COUNT 5 NOVALUES", "NOVALUES MATCH f*"] {
        let reply = connection.ask(&format!("HSCAN h 0 {options}")).await;
        assert_eq!(reply, "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nf\r\n", "{options}");
    }
}

#[tokio::test]
async fn waits_hold_their_connection_and_watches_push() {
    let server = start(&[], &[]).await;
    let mut waiter = Raw::connect(server.addresses()[0]).await;
    let mut watcher = Raw::connect(server.addresses()[0]).await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    waiter.send(b"KV.WAIT job PRESENT\r\nPING\r\n").await;
    assert!(watcher.ask("KV.WATCH PREFIX jo").await.starts_with("-ERR KV.WATCH needs RESP3"));
    watcher.ask("HELLO 3").await;
    assert!(watcher.ask("KV.WATCH PREFIX jo").await.starts_with(':'));
    // The waiter's command may still be under way: the answer is the same then.
    assert_eq!(writer.ask("SET job done").await, "+OK\r\n");
    assert!(waiter.reply().await.starts_with("*2\r\n$4\r\ndone\r\n:"));
    assert_eq!(waiter.reply().await, "+PONG\r\n");
    let push = watcher.reply().await;
    assert!(
        push.starts_with(">5\r\n$8\r\nkv.watch\r\n:") && push.contains("+set\r\n$3\r\njob\r\n:"),
        "{push:?}"
    );
    assert!(waiter.ask("KV.WAIT job TIMEOUT 1").await.starts_with("-TIMEOUT "));
}

#[tokio::test]
async fn transactions_split_around_walks_and_keep_their_order() {
    let server = start(&[], &[]).await;
    let mut connection = Raw::connect(server.addresses()[0]).await;
    connection.ask("SET old 1").await;
    for line in ["MULTI", "SET a 1", "FLUSHDB", "SET b 1", "DBSIZE", "ECHO x", "INCR b"] {
        connection.ask(line).await;
    }
    let reply = connection.ask("EXEC").await;
    assert_eq!(reply, "*6\r\n+OK\r\n+OK\r\n+OK\r\n:1\r\n$1\r\nx\r\n:2\r\n");
    connection.ask("MULTI").await;
    assert!(connection.ask("SELECT 1").await.starts_with("-ERR SELECT is not allowed"));
    assert!(connection.ask("EXEC").await.starts_with("-EXECABORT "));
    connection.ask("SELECT 3").await;
    connection.ask("WATCH other").await;
    connection.ask("SELECT 0").await;
    connection.ask("MULTI").await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    writer.ask("SELECT 3").await;
    writer.ask("SET other 1").await;
    connection.ask("SET c 1").await;
    assert_eq!(connection.ask("EXEC").await, "*-1\r\n");
}
