//! A way to the engine that can be cut: TCP on loopback in front, the engine's socket behind. To
//! the executor the engine is then on another machine.

use std::sync::Arc;

use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    pub(crate) host: String,
    cuts: Arc<watch::Sender<u64>>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        let cuts = Arc::new(watch::channel(0).0);
        let subscribe = Arc::clone(&cuts);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut cut = subscribe.subscribe();
                tokio::spawn(async move {
                    let mut engine = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut engine) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { host, cuts }
    }

    /// Ends every connection that is open now; new ones are served.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}
