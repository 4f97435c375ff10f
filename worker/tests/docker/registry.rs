//! A registry on loopback, as small as one can be: one image whose layer waits behind a gate, and
//! for every other name the answer that a real registry gives.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub(crate) struct Registry {
    /// `127.0.0.1:port`, as an image reference has it.
    pub(crate) host: String,
    /// Open when true: layers are sent.
    pub(crate) gate: watch::Sender<bool>,
    /// How often a layer was asked for.
    pub(crate) layers_sent: Arc<AtomicU64>,
}

struct Content {
    /// What `Authorization` has to be, if anything.
    login: Option<&'static str>,
    manifest: Vec<u8>,
    blobs: HashMap<String, Vec<u8>>,
    layer: String,
    gate: watch::Receiver<bool>,
    layers_sent: Arc<AtomicU64>,
}

fn digest(bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("sha256:{}", String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap())
}

/// A layer that is this test's own: the engine does not have it yet.
fn layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let busybox = std::fs::read("/bin/busybox").unwrap();
    header.set_size(busybox.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header.clone(), "bin/sh", busybox.as_slice()).unwrap();
    let mark = super::bench::unique().to_string();
    header.set_size(mark.len() as u64);
    archive.append_data(&mut header, "mark", mark.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

impl Registry {
    /// Serves until the test ends. With a `login`, everything needs it.
    pub(crate) async fn start(login: Option<&'static str>) -> Self {
        let layer = layer();
        let layer_digest = digest(&layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/sh"]}},
            "rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{
            "mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{}"}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size":{},"digest":"{layer_digest}"}}]}}"#,
            config.len(),
            digest(config.as_bytes()),
            layer.len(),
        );
        let (gate, receiver) = watch::channel(true);
        let layers_sent = Arc::new(AtomicU64::new(0));
        let content = Arc::new(Content {
            login,
            manifest: manifest.into_bytes(),
            blobs: HashMap::from([
                (digest(config.as_bytes()), config.into_bytes()),
                (layer_digest.clone(), layer),
            ]),
            layer: layer_digest,
            gate: receiver,
            layers_sent: Arc::clone(&layers_sent),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let content = Arc::clone(&content);
                tokio::spawn(async move { serve(stream, &content).await });
            }
        });
        Self { host, gate, layers_sent }
    }
}

async fn serve(mut stream: TcpStream, content: &Content) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (status, extra, body) = content.answer(&head, path).await;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(&body).await?;
    }
    stream.shutdown().await
}

impl Content {
    async fn answer(&self, head: &str, path: &str) -> (&'static str, String, Vec<u8>) {
        let authorized = self.login.is_none_or(|login| head.contains(login));
        if !authorized {
            let header = "Www-Authenticate: Basic realm=\"test\"\r\n".to_owned();
            let body =
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            return ("401 Unauthorized", header, body.into());
        }
        if path == "/v2/" {
            return ("200 OK", String::new(), b"{}".to_vec());
        }
        if path.starts_with("/v2/good/manifests/") {
            let digest = digest(&self.manifest);
            let headers =
                format!("Content-Type: {MANIFEST_TYPE}\r\nDocker-Content-Digest: {digest}\r\n");
            return ("200 OK", headers, self.manifest.clone());
        }
        if let Some(digest) = path.strip_prefix("/v2/good/blobs/")
            && let Some(blob) = self.blobs.get(digest)
        {
            if digest == self.layer {
                self.layers_sent.fetch_add(1, Ordering::Relaxed);
                let mut gate = self.gate.clone();
                let _ = gate.wait_for(|open| *open).await;
            }
            return ("200 OK", String::new(), blob.clone());
        }
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        ("404 Not Found", String::new(), body.into())
    }
}
