//! A hub of our own: the real one's layout (metadata in headers, large files at a store on another port, ranges, error codes),
//! and whatever a test makes it do wrong. And the program as a process whose words can be waited for.

use crate::support::*;
use assert_cmd::cargo::cargo_bin;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Nothing here takes so long, however slow the machine is.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// A request as the hub or its store saw it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub at_store: bool,
    pub path: String,
    pub name: String,
    pub token: Option<String>,
    pub range: Option<String>,
    /// How often this host was asked for this file before.
    pub turn: usize,
    pub at: Instant,
}

/// What becomes of a connection after the part of the body that is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Then {
    Close,
    /// Silence until the hub is told to go on, and then the rest.
    Hold,
    /// The rest little by little.
    Drip,
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body that are sent; none: not even the head is.
    pub sent: Option<usize>,
    pub then: Then,
}

impl Reply {
    pub fn of(status: u16) -> Self {
        Reply { status, headers: Vec::new(), body: Vec::new(), sent: Some(usize::MAX), then: Then::Close }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self
    }

    /// Sends the first bytes and breaks off.
    pub fn breaking(self, after: usize) -> Self {
        Reply { sent: Some(after), ..self }
    }

    /// Sends the first bytes and falls silent; none: says nothing at all.
    pub fn holding(self, after: Option<usize>) -> Self {
        Reply { sent: after, then: Then::Hold, ..self }
    }

    fn send(&self, to: &mut TcpStream, gate: &Gate) -> std::io::Result<()> {
        let sent = self.sent.map(|n| n.min(self.body.len()));
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        self.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += "\r\n";
        if let Some(sent) = sent {
            to.write_all(head.as_bytes())?;
            to.write_all(&self.body[..sent])?;
            to.flush()?;
        }
        if self.then == Then::Hold {
            gate.pass();
            let head = if sent.is_none() { head.as_bytes() } else { &[] };
            to.write_all(head)?;
            to.write_all(&self.body[sent.unwrap_or(0)..])?;
        }
        if self.then == Then::Drip {
            for piece in self.body[sent.unwrap_or(0)..].chunks(4096) {
                to.write_all(piece)?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

/// Closed until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

/// Serves `org/model` with the files of a folder.
pub struct Hub {
    pub url: String,
    pub store: String,
    seen: Arc<Mutex<Vec<Ask>>>,
    gate: Arc<Gate>,
}

impl Hub {
    pub fn healthy() -> Self {
        Self::with(|_, reply| reply)
    }

    /// Of the BERT of the fixtures; `wrong` makes another reply of each.
    pub fn with(wrong: impl Fn(&Ask, Reply) -> Reply + Send + Sync + 'static) -> Self {
        Self::of(case_dir("bert").join("model"), wrong)
    }

    pub fn of(files: PathBuf, wrong: impl Fn(&Ask, Reply) -> Reply + Send + Sync + 'static) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, store) = (listen(), listen());
        let address = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
        let own = Hub { url: address(&hub), store: address(&store), seen: Arc::default(), gate: Arc::default() };
        let wrong = Arc::new(wrong);
        for (listener, at_store) in [(hub, false), (store, true)] {
            let (seen, gate, wrong) = (own.seen.clone(), own.gate.clone(), wrong.clone());
            let (files, store) = (files.clone(), own.store.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (seen, gate, wrong) = (seen.clone(), gate.clone(), wrong.clone());
                    let (files, store) = (files.clone(), store.clone());
                    std::thread::spawn(move || {
                        let mut stream = stream;
                        let Some(ask) = asked(&stream, at_store, &seen) else { return };
                        // Who has gone away hears nothing.
                        wrong(&ask, usual(&ask, &files, &store)).send(&mut stream, &gate).ok();
                    });
                }
            });
        }
        own
    }

    pub fn seen(&self) -> Vec<Ask> {
        self.seen.lock().unwrap().clone()
    }

    /// What the store was asked for.
    pub fn at_store(&self) -> Vec<Ask> {
        self.seen().into_iter().filter(|ask| ask.at_store).collect()
    }

    /// Lets all go on that are held.
    pub fn go_on(&self) {
        self.gate.open();
    }
}

fn asked(stream: &TcpStream, at_store: bool, seen: &Mutex<Vec<Ask>>) -> Option<Ask> {
    let lines: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = lines.first()?.split(' ').nth(1)?.to_string();
    let sent = |name: &str| {
        let of = |line: &&String| line.to_lowercase().starts_with(&format!("{name}:"));
        lines.iter().find(of).map(|line| line[name.len() + 1..].trim().to_string())
    };
    let name = path.rsplit('/').next()?.to_string();
    let mut seen = seen.lock().unwrap();
    let turn = seen.iter().filter(|s| s.at_store == at_store && s.name == name).count();
    let (token, range) = (sent("authorization"), sent("range"));
    let ask = Ask { at_store, path, name, token, range, turn, at: Instant::now() };
    seen.push(ask.clone());
    Some(ask)
}

/// As the hub answers.
fn usual(ask: &Ask, files: &Path, store: &str) -> Reply {
    let absent = |code: &str| Reply::of(404).with("X-Error-Code", code).with("Content-Length", 0);
    let place = ask.path.strip_prefix("/org/model/resolve/");
    if !ask.at_store && !place.is_some_and(|p| p.starts_with("main/") || p.starts_with(COMMIT)) {
        return absent(if place.is_some() { "RevisionNotFound" } else { "RepoNotFound" });
    }
    let Ok(bytes) = std::fs::read(files.join(&ask.name)) else {
        return absent("EntryNotFound").with("X-Repo-Commit", COMMIT);
    };
    let hash = if ask.at_store { String::new() } else { sha256(&bytes) };
    if ask.name.ends_with(".safetensors") && !ask.at_store {
        return Reply::of(302)
            .with("Location", format!("{store}/{}", ask.name))
            .with("X-Linked-ETag", format!("\"{hash}\""))
            .with("X-Linked-Size", bytes.len())
            .with("X-Repo-Commit", COMMIT)
            .with("ETag", "\"of the redirect\"")
            .with("Content-Length", 0);
    }
    let span = ask.range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let from: usize = span.map_or(0, |(from, _)| from.parse().unwrap());
    let whole = bytes.len();
    if from >= whole {
        return Reply::of(416).with("Content-Range", format!("bytes */{whole}")).with("Content-Length", 0);
    }
    let reply = Reply { body: bytes[from..].to_vec(), ..Reply::of(if span.is_some() { 206 } else { 200 }) };
    let reply = match span {
        Some(_) => reply.with("Content-Range", format!("bytes {from}-{}/{whole}", whole - 1)),
        None => reply,
    };
    let reply = reply.with("Content-Length", whole - from);
    match ask.at_store {
        true => reply.with("ETag", "\"the store's own\""),
        false => reply.with("ETag", format!("\"{}\"", &hash[..40])).with("X-Repo-Commit", COMMIT),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The program with a cache, the hub at an address, and nothing of this machine's own settings.
pub fn command(endpoint: &str, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin!("vitx"));
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy().to_lowercase();
        if name.starts_with("hf_") || name.ends_with("_proxy") || name == "transformers_offline" {
            command.env_remove(key);
        }
    }
    command.args(args).env("HF_HOME", home).env("HF_ENDPOINT", endpoint).stdin(Stdio::null());
    command
}

pub fn predict<'a>(text: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["predict", "-m", "org/model", "--text", text], more].concat()
}

pub fn vitx(hub: &Hub, home: &Path, args: &[&str]) -> Output {
    command(&hub.url, home, args).output().unwrap()
}

/// A run that needs all files of the model.
pub fn run(hub: &Hub, home: &Path) -> Output {
    vitx(hub, home, &predict("good", &[]))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

/// Fails before anything is done, with these words.
pub fn fails(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{}", stderr(output));
    parts.iter().for_each(|part| assert!(stderr(output).contains(part), "`{part}`: {}", stderr(output)));
}

/// The cache's folder of the model.
pub fn folder(home: &Path) -> PathBuf {
    home.join("hub/models--org--model")
}

/// A file under its final name.
pub fn cached(home: &Path, name: &str) -> PathBuf {
    folder(home).join("snapshots").join(COMMIT).join(name)
}

/// Names of what lies among the blobs.
pub fn blobs(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder(home).join("blobs")).into_iter().flatten();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

pub fn weights() -> Vec<u8> {
    std::fs::read(case_dir("bert").join("model/model.safetensors")).unwrap()
}

/// The part file of the weights.
pub fn part(home: &Path) -> PathBuf {
    folder(home).join("blobs").join(format!("{}.part", sha256(&weights())))
}

/// Leaves such a part file of the weights.
pub fn leave_part(home: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(folder(home).join("blobs")).unwrap();
    std::fs::write(part(home), bytes).unwrap();
}

/// Waits for what must come.
pub fn until(what: &str, mut come: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !come() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The program, running.
pub struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: std::thread::JoinHandle<()>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stderr, said) = (child.stderr.take().unwrap(), Arc::<Mutex<String>>::default());
        let kept = said.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                *kept.lock().unwrap() += &String::from_utf8_lossy(&buffer[..n]);
            }
        });
        Running { child, said, reader }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said this.
    pub fn says(&self, part: &str) {
        until(part, || self.said().contains(part));
    }

    /// `INT`, `TERM` or `KILL`.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap()
            .success());
    }

    /// Waits for its end: the exit code, if it had one, and what it said.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut code = None;
        until("the end", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        self.reader.join().unwrap();
        let said = self.said.lock().unwrap().clone();
        (code.unwrap().code(), said)
    }
}
