//! A line between a daemon and its database that can be cut: packets vanish, and nobody is told.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// See the module.
pub struct Wire {
    pub port: u16,
    cut: Arc<watch::Sender<bool>>,
    /// Ends with it.
    _task: JoinSet<()>,
}

impl Wire {
    /// A line to the socket of a server.
    pub async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let cut = Arc::new(watch::Sender::new(false));
        let state = Arc::clone(&cut);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (socket, cut) = (socket.clone(), state.subscribe());
                tokio::spawn(async move {
                    let mut mended = cut.clone();
                    // While it is cut a connection is made by the system, and nothing more happens.
                    if mended.wait_for(|cut| !*cut).await.is_err() {
                        return;
                    }
                    let Ok(far) = UnixStream::connect(&socket).await else {
                        return;
                    };
                    let (from_near, to_near) = near.into_split();
                    let (from_far, to_far) = far.into_split();
                    tokio::join!(
                        carry(from_near, to_far, cut.clone()),
                        carry(from_far, to_near, cut)
                    );
                });
            }
        });
        Self {
            port,
            cut,
            _task: task,
        }
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

/// Carries bytes one way, and holds them back as long as the line is cut.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 || cut.wait_for(|cut| !*cut).await.is_err() {
            break;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    // The other side may be gone.
    let _ = to.shutdown().await;
}
