//! An S3 server of others, which checks signatures, and a way to it that can break.
#![expect(clippy::disallowed_types, reason = "its threads may block: no worker is among them")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

/// So many requests need no credentials: those that make the bucket and the user.
const BEFORE_USERS: &str = "4";
/// No signature; it is not looked at yet.
const SIGNED: &str = "SignedHeaders=host, Signature=0";
const MAY_ALL: &str = "%7B%22Version%22:%222012-10-17%22,%22Statement%22:%5B%7B%22Effect%22:%22Allow%22,%22Action%22:%22s3:*%22,%22Resource%22:%22*%22%7D%5D%7D";

/// The server, with a bucket `bucket` and a user.
pub struct S3 {
    process: Child,
    endpoint: String,
    key: String,
    secret: String,
    left: Arc<AtomicI64>,
}

/// Starts it, if it is installed.
#[expect(clippy::print_stdout, reason = "a test that did not run says so")]
pub fn start() -> Option<S3> {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/moto_server");
    if !program.exists() {
        println!("skipped 1 test: moto is not installed (scripts/venv storage)");
        return None;
    }
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", "0"]).env("INITIAL_NO_AUTH_ACTION_COUNT", BEFORE_USERS);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    let address: SocketAddr = loop {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "moto ended");
        if let Some((_, address)) = line.split_once("Running on http://") {
            break address.trim().parse().unwrap();
        }
    };
    // It says every request; nobody may have to wait until that is read.
    thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    request(address, "PUT /bucket", "");
    request(address, "POST /", "Action=CreateUser&UserName=u&Version=2010-05-08");
    let keys = request(address, "POST /", "Action=CreateAccessKey&UserName=u&Version=2010-05-08");
    let policy =
        format!("Action=PutUserPolicy&UserName=u&PolicyName=p&Version=2010-05-08&PolicyDocument={MAY_ALL}");
    request(address, "POST /", &policy);
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let endpoint = format!("http://{}", breakable(address, Arc::clone(&left)));
    let (key, secret) = (within(&keys, "AccessKeyId"), within(&keys, "SecretAccessKey"));
    Some(S3 { process, endpoint, key, secret, left })
}

impl S3 {
    /// What the program needs to find it.
    pub fn environment(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", &self.key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// After so many more bytes to it every connection breaks, and no new one comes about.
    pub fn break_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    /// Connections hold again.
    pub fn mend(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The text of an XML element.
fn within(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name}: {xml}"));
    rest.split('<').next().unwrap().to_owned()
}

fn request(address: SocketAddr, line: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let service = if line.starts_with("PUT") { "s3" } else { "iam" };
    let head = [
        format!("{line} HTTP/1.0\r\nHost: {address}"),
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/{service}/aws4_request, {SIGNED}"
        ),
        "Content-Type: application/x-www-form-urlencoded".to_owned(),
        format!("Content-Length: {}", body.len()),
    ];
    let head = head.join("\r\n");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.lines().next().unwrap().contains(" 200 "), "{line}: {answer}");
    answer
}

/// An address from which bytes go on to another, as long as some are left.
fn breakable(to: SocketAddr, left: Arc<AtomicI64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let counted = Arc::clone(&left);
            thread::spawn(move || pass(near, far, Some(&counted)));
            thread::spawn(move || pass(far_too, near_too, None));
        }
    });
    address
}

fn pass(mut from: TcpStream, mut to: TcpStream, left: Option<&AtomicI64>) {
    let mut bytes = [0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let taken = i64::try_from(count).unwrap();
        if left.is_some_and(|left| {
            left.load(Ordering::SeqCst) < i64::MAX && left.fetch_sub(taken, Ordering::SeqCst) < taken
        }) || to.write_all(&bytes[..count]).is_err()
        {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
