//! The binary as a process: start line, exit codes, probes, and an orderly end.

mod served;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use data_bridge_kv::record;
use data_bridge_kv_testkit::directory::Directory;
use served::{Raw, http, within};

/// A running program that is ended with the test.
struct Program {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    start_line: String,
    /// The lines that come after it.
    log: mpsc::Receiver<String>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
    command.args(args).env_clear();
    command
}

fn output(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// What starts the program on free ports.
const PORTS: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// Starts the program on free ports and reads its start line.
fn serve(flags: &[&str]) -> Program {
    start(command(&[&PORTS, flags].concat()))
}

/// The same with these limits of a shell.
fn serve_limited(ulimit: &str, flags: &[&str]) -> Program {
    let mut command = Command::new("/bin/sh");
    let script = format!("ulimit {ulimit}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_data-bridge-kv")]).args(PORTS).args(flags).env_clear();
    start(command)
}

fn start(mut command: Command) -> Program {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut start_line = String::new();
    log.read_line(&mut start_line).unwrap();
    let address = |mark: &str| -> SocketAddr {
        let after = start_line.split(mark).nth(1).unwrap_or_else(|| panic!("{start_line}"));
        after.split([',', ';', '"']).next().unwrap().parse().unwrap()
    };
    let (listen, admin) = (address("native on "), address("admin on "));
    let (lines, told) = mpsc::channel();
    // Read to the end, also where nobody listens: a full pipe would stop the program.
    std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line))));
    Program { child, listen, admin, start_line, log: told }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

async fn exit_code(program: &mut Program) -> Option<i32> {
    within(async {
        loop {
            if let Some(status) = program.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

#[test]
fn bad_configurations_end_with_code_2_and_one_line() {
    for (args, says) in [
        (&["serve", "--namespace", "jobs:task:always"][..], "needs a data directory"),
        (&["serve", "--namespace", "hot:cache:always"], "is a cache"),
        (&["serve", "--max-disk", "lots"], "max_disk"),
        (&["serve", "--namespace", "tasks:task:often"], "often"),
        (&["serve", "--listen", "0.0.0.0:0"], "--insecure-no-auth"),
        (&["serve", "--max-memory", "lots"], "max_memory"),
        (&["serve", "--config", "no/such/file.toml"], "no/such/file.toml"),
        (&["serve", "--password-file", "no/such/file"], "no/such/file"),
        (&["serve", "--password", "x"], "unexpected argument"),
        (&["frobnicate"], "unrecognized subcommand"),
    ] {
        // Whoever has the usual ports is in nobody's way.
        let is_free = args[0] == "serve" && !args.contains(&"--listen");
        let free = if is_free { &["--listen", "127.0.0.1:0", "--admin", "off"][..] } else { &[] };
        let output = output(&[args, free].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
        if args[0] == "serve" && !text.contains("unexpected") {
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}

#[test]
fn a_health_check_says_that_there_is_no_admin_port() {
    let asked = command(&["health"]).env("KV_ADMIN", "off").output().unwrap();
    let text = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1));
    assert!(text.contains("there is no admin port") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;

    for variable in ["KV_PASSWORD_FILE", "KV_DATA"] {
        let value = std::ffi::OsStr::from_bytes(b"/kept/\xff");
        let print = command(&["config", "print", "--effective"]).env(variable, value).output().unwrap();
        let text = String::from_utf8(print.stderr).unwrap();
        assert_eq!(
            (print.status.code(), text),
            (Some(2), format!("error: environment variable {variable} is not UTF-8\n"))
        );
    }
}

#[test]
fn a_directory_where_no_store_has_been_is_neither_whole_nor_backed_up() {
    let directory = Directory::new("none");
    std::fs::write(directory.join("notes"), b"something else").unwrap();
    let (here, copy) = (directory.text(), directory.join("copy"));
    for args in [
        &["check", here][..],
        &["log", "verify", here],
        &["log", "dump", here],
        &["backup", "create", "--data", here, "--to", copy.to_str().unwrap()],
    ] {
        let output = output(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(
            text.ends_with(": no store has been here\n") && text.lines().count() == 1,
            "{args:?}: {text}"
        );
    }
    assert!(!copy.exists());
}

#[test]
fn a_directory_that_can_not_be_used_ends_with_code_4_and_one_line() {
    let output = output(&["serve", "--data", "/dev/null"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert_eq!(text, "error: the data directory /dev/null: not a directory\n");
}

#[test]
fn a_log_of_json_ends_with_json_too() {
    let output = output(&["serve", "--log-format", "json", "--data", "/dev/null"]);
    let text = String::from_utf8(output.stderr).unwrap();
    let last: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(
        (output.status.code(), &last["level"], &last["exit_code"]),
        (Some(4), &"ERROR".into(), &4.into())
    );
    assert_eq!(last["message"], "the data directory /dev/null: not a directory");
}

/// A directory that this version wrote, but for the format of its manifest, which is the next.
#[test]
fn a_directory_of_a_newer_format_ends_with_code_4_and_what_to_do() {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../data-bridge-kv/tests/formats/1/closed");
    let path = Directory::new("newer");
    for entry in std::fs::read_dir(kept).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    let mut manifest = std::fs::read(path.join("manifest")).unwrap();
    let at = record::Position { segment: 0, offset: 0 };
    let total = record::read(&manifest, at).unwrap().total_bytes();
    manifest[record::HEAD_BYTES + 8] += 1;
    record::seal(&mut manifest[..total], at);
    std::fs::write(path.join("manifest"), &manifest).unwrap();
    let output = output(&["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--data", path.text()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(
        text.contains("manifest has a format that this version does not know: use the version"),
        "{text}"
    );
    assert_eq!((text.lines().count(), std::fs::read(path.join("manifest")).unwrap()), (1, manifest));
}

#[test]
fn help_version_and_the_effective_configuration_are_printed() {
    let version = output(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8(version.stdout).unwrap().trim(),
        concat!("data-bridge-kv ", env!("CARGO_PKG_VERSION"))
    );
    let help = String::from_utf8(output(&["serve", "--help"]).stdout).unwrap();
    for flag in [
        "--listen",
        "--admin",
        "--data",
        "--max-disk",
        "--max-memory",
        "--namespace",
        "--password-file",
        "--drain-delay",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    let print = command(&["config", "print", "--effective", "--threads", "3"])
        .env("KV_PASSWORD", "hush")
        .output()
        .unwrap();
    let text = String::from_utf8(print.stdout).unwrap();
    assert!(text.contains("flag --threads") && text.contains("********") && !text.contains("hush"), "{text}");
}

#[tokio::test]
async fn it_says_what_it_does_answers_probes_and_ends_in_order() {
    let mut program = serve(&["--drain-delay", "0", "--max-memory", "64MB", "--namespace", "jobs:task"]);
    for part in
        ["memory budget 64.00 MiB (as configured)", "3 jobs (task, noeviction)", "in memory only", "threads "]
    {
        assert!(program.start_line.contains(part), "{part} in {}", program.start_line);
    }
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(http(program.admin, path).await, ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    }
    assert!(http(program.admin, "/nothing").await.0.contains("404"));
    let mut poster = Raw::connect(program.admin).await;
    poster.send(b"POST /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let refused = poster.until_closed().await;
    assert!(
        refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"),
        "{refused}"
    );
    let admin = program.admin.to_string();
    assert!(output(&["health", "--admin", &admin]).status.success());
    let mut client = Raw::connect(program.listen).await;
    client.ask("SET k v").await;
    let (_, metrics) = http(program.admin, "/metrics").await;
    for sample in
        ["kv_keys{namespace=\"default\"} 1", "redis_db_keys{db=\"db0\"} 1", "kv_memory_limit_bytes 67108864"]
    {
        assert!(metrics.contains(sample), "{sample}");
    }
    let mut waiter = Raw::connect(program.listen).await;
    waiter.send(b"KV.WAIT never PRESENT\r\n").await;
    let mut idle = Raw::connect(program.listen).await;
    idle.ask("PING").await;
    signal(&program.child, "TERM");
    assert_eq!(exit_code(&mut program).await, Some(0));
    assert!(waiter.until_closed().await.starts_with("-CLOSED "));
    assert_eq!(idle.until_closed().await, "");
    assert_eq!(output(&["health", "--admin", &admin]).status.code(), Some(1));
}

#[tokio::test]
async fn strangers_do_not_fill_the_log() {
    let program = serve(&["--drain-delay", "0"]);
    let (started, mut lines) = (Instant::now(), Vec::new());
    // In a second in which there were many, which may not be the first of a busy machine.
    while !lines.iter().any(|line: &String| line.contains("like those of this second were left out")) {
        for _ in 0..50 {
            let mut stranger = Raw::connect(program.listen).await;
            stranger.send(b"*99999999\r\n").await;
            assert!(stranger.until_closed().await.starts_with("-ERR Protocol error"));
        }
        lines.extend(program.log.try_iter());
        assert!(started.elapsed().as_secs() < 60, "nothing was left out: {lines:?}");
    }
    let ended = lines
        .iter()
        .filter(|line| line.contains("connection ended by a malformed request address=127.0.0.1:"));
    let most = 10 * (started.elapsed().as_secs() as usize + 2);
    assert!((1..=most).contains(&ended.count()), "{lines:?}");
}

#[tokio::test]
async fn prometheus_understands_the_metrics() {
    let program = serve(&["--drain-delay", "0", "--namespace", "jobs:task"]);
    Raw::connect(program.listen).await.ask("SET k v EX 100").await;
    let (_, metrics) = http(program.admin, "/metrics").await;
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = started else {
        println!("skipped: promtool is not installed (Debian package prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    // Exit code 3: advice about names, which those of redis_exporter do not follow.
    let advice = String::from_utf8(said).unwrap();
    let ours: Vec<&str> = advice.lines().filter(|line| !line.starts_with("redis_")).collect();
    assert!(ours.is_empty() && matches!(output.status.code(), Some(0 | 3)), "{:?}: {advice}", output.status);
}

#[tokio::test]
async fn what_memory_has_no_room_for_overflows_to_the_directory() {
    let directory = Directory::new("overflow");
    let path = directory.text();
    let flags = ["--drain-delay", "0", "--data", path, "--max-memory", "4MB", "--max-disk", "256MB"];
    let mut program = serve(&flags);
    let starts = |says: &str| assert!(program.start_line.contains(says), "{}", program.start_line);
    starts("at most 256.00 MiB");
    starts("task namespaces outlive the server: 0 records read");
    let taken = output(&["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--data", path]);
    let text = String::from_utf8(taken.stderr).unwrap();
    let says =
        format!("error: the data directory {path} belongs to another process (pid {})\n", program.child.id());
    assert_eq!((taken.status.code(), text), (Some(4), says));
    let mut client = Raw::connect(program.listen).await;
    let value = |n: usize| format!("{n}-").repeat(1000);
    for n in 0..8000 {
        assert_eq!(client.ask(&format!("SET key:{n} {}", value(n))).await, "+OK\r\n", "{n}");
    }
    for n in (0..8000).step_by(7) {
        let expected = value(n);
        assert_eq!(
            client.ask(&format!("GET key:{n}")).await,
            format!("${}\r\n{expected}\r\n", expected.len())
        );
    }
    assert_eq!(client.ask("DBSIZE").await, ":8000\r\n");
    let info = client.ask("INFO tier").await;
    assert!(info.contains("tier_enabled:1") && info.contains("tier_disk_max_bytes:268435456"), "{info}");
    let (_, metrics) = http(program.admin, "/metrics").await;
    let sample = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(sample("kv_tier_demoted_total") > 5000.0 && sample("kv_tier_fetch_seconds_count") > 500.0);
    assert!(sample("kv_memory_used_bytes") < 5e6);
    signal(&program.child, "TERM");
    assert_eq!(exit_code(&mut program).await, Some(0));
    let checked = output(&["check", path]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && text.contains(" 0 files with trouble"), "{text}");
    // Either copy of the manifest is enough, and told of.
    let manifest = directory.join("manifest");
    let whole = std::fs::read(&manifest).unwrap();
    for offset in [0, 8192] {
        let mut damaged = whole.clone();
        damaged[offset + 20] ^= 1;
        std::fs::write(&manifest, damaged).unwrap();
        let checked = output(&["check", path]);
        let text = String::from_utf8(checked.stdout).unwrap();
        let says = format!("manifest: 1 task namespaces, damaged copy at offset {offset}, which");
        assert_eq!((checked.status.code(), text.contains(&says)), (Some(1), true), "{text}");
        assert!(text.ends_with(" 1 files with trouble\n"), "{text}");
    }
    std::fs::write(&manifest, whole).unwrap();
    let file = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.iter_mut().nth_back(40).unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let checked = output(&["check", path]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert_eq!((checked.status.code(), text.contains("damaged entry at offset")), (Some(1), true), "{text}");
    assert_eq!(output(&["check", "no/such/directory"]).status.code(), Some(1));
    let mut again = serve(&flags);
    let mut client = Raw::connect(again.listen).await;
    assert_eq!(client.ask("DBSIZE").await, ":0\r\n");
    signal(&again.child, "TERM");
    assert_eq!(exit_code(&mut again).await, Some(0));
}

#[tokio::test]
async fn it_serves_on_while_it_drains_and_a_second_signal_skips_that() {
    let mut program = serve(&["--drain-delay", "600"]);
    signal(&program.child, "TERM");
    within(async {
        while !http(program.admin, "/readyz").await.1.contains("draining") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(http(program.admin, "/livez").await.0.contains("200"));
    let mut client = Raw::connect(program.listen).await;
    assert_eq!(client.ask("PING").await, "+PONG\r\n");
    signal(&program.child, "INT");
    assert_eq!(exit_code(&mut program).await, Some(0));
}

/// The limit of open files is raised as far as it may be; connections get what the directory may not come to need.
#[tokio::test]
async fn it_takes_as_many_connections_as_there_are_files_for() {
    let raised = serve_limited("-Sn 64", &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", raised.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let (soft, hard) = (line.split_whitespace().nth(3), line.split_whitespace().nth(4));
    assert!(soft == hard && soft != Some("64"), "{line}");

    let directory = Directory::new("files");
    let mut program = serve_limited("-n 100", &["--data", directory.text(), "--drain-delay", "0"]);
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Raw::connect(program.listen).await;
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
        clients.push(client);
    }
    let refused = Raw::connect(program.listen).await.until_closed().await;
    assert_eq!(refused, "-ERR max number of clients reached\r\n");
    // There are files for what the rest do, and for who comes when somebody has gone.
    clients.truncate(49);
    for client in &mut clients {
        assert_eq!(client.ask("SELECT 1").await, "+OK\r\n");
        assert_eq!(client.ask("INCR number").await.split_at(1).0, ":");
    }
    assert_eq!(clients[0].ask("GET number").await, "$2\r\n49\r\n");
    drop(clients);
    signal(&program.child, "TERM");
    assert_eq!(exit_code(&mut program).await, Some(0));
}

#[tokio::test]
async fn a_busy_port_is_one_line_with_the_remedy() {
    let program = serve(&["--drain-delay", "0"]);
    let busy = output(&["serve", "--listen", &program.listen.to_string(), "--admin", "off"]);
    let text = String::from_utf8(busy.stderr).unwrap();
    assert_eq!(busy.status.code(), Some(1));
    assert!(text.contains("in use by another process") && text.contains("--listen"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn a_password_file_closes_the_door() {
    let directory = Directory::new("password");
    let file = directory.join("file");
    std::fs::write(&file, "hush\n").unwrap();
    let program = serve(&[
        "--drain-delay",
        "0",
        "--password-file",
        &file.display().to_string(),
        "--log-format",
        "json",
    ]);
    assert!(program.start_line.starts_with('{'), "{}", program.start_line);
    let mut client = Raw::connect(program.listen).await;
    assert!(client.ask("GET k").await.starts_with("-NOAUTH "));
    assert_eq!(client.ask("AUTH hush").await, "+OK\r\n");
    assert_eq!(client.ask("GET k").await, "$-1\r\n");
}
