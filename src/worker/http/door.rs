//! Where clients come in: an address, or a Unix socket.

use crate::error::{Error, Result};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Address and port; port 0: any that is free.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// As it is typed: `127.0.0.1:PORT` or `unix:/PATH`.
    ///
    /// # Errors
    /// [`Error::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| cfg!(unix) && !path.is_empty()) {
            return Ok(Address::Unix(path.into()));
        }
        let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let expected = || Error::Usage("expected 127.0.0.1:PORT or unix:/PATH".into());
        local.as_deref().unwrap_or(text).parse().map(Address::Tcp).map_err(|_| expected())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that is listened on. A Unix socket's file goes with it.
pub enum Door {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, PathBuf),
}

impl Door {
    /// Begins to listen.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Door::Tcp(TcpListener::bind(address).await?)),
            #[cfg(unix)]
            Address::Unix(path) => {
                remove_stale(path)?;
                Ok(Door::Unix(UnixListener::bind(path)?, path.clone()))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Where clients find it.
    pub fn place(&self) -> String {
        match self {
            Door::Tcp(listener) => match listener.local_addr() {
                Ok(own) if own.ip().is_loopback() => format!("http://{own}"),
                Ok(own) => format!("http://{own} (whoever reaches this address can ask: there is no authentication)"),
                Err(_) => "http".into(),
            },
            #[cfg(unix)]
            Door::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Door::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true); // answers are written whole
                Ok(Stream::new(Io::Tcp(stream)))
            }
            #[cfg(unix)]
            Door::Unix(listener, _) => Ok(Stream::new(Io::Unix(listener.accept().await?.0))),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Door::Unix(_, path) = self {
            let _ = std::fs::remove_file(path); // somebody else may have done so
        }
    }
}

/// Removes what a worker left that was killed: a socket on which nobody listens. Nothing else is touched.
#[cfg(unix)]
fn remove_stale(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    if socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// How long a client may take to fetch what it is sent, piece by piece.
const STALLED: Duration = Duration::from_secs(30);

/// A client's connection.
pub struct Stream {
    io: Io,
    /// Rings when nothing has been fetched for too long.
    stalled: Option<Pin<Box<Sleep>>>,
}

enum Io {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    fn new(io: Io) -> Self {
        Stream { io, stalled: None }
    }

    /// An error where writing waits for a client that does not read.
    fn patient<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        sleep.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Does the same to whatever kind of stream it is.
macro_rules! each {
    ($own:expr, $stream:ident => $done:expr) => {
        match &mut $own.io {
            Io::Tcp($stream) => $done,
            #[cfg(unix)]
            Io::Unix($stream) => $done,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = each!(self, stream => Pin::new(stream).poll_write(cx, buf));
        self.patient(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = each!(self, stream => Pin::new(stream).poll_flush(cx));
        self.patient(written, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_typed() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:8080", "[::1]:8080"),
            #[cfg(unix)]
            ("unix:/run/vitx.sock", "unix:/run/vitx.sock"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for text in ["8080", "unix:", "example.com:80", "127.0.0.1", ""] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
