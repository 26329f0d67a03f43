//! A connection that bytes are read from and written to: a TCP socket as it is, or one with mesh TLS on it. Made by
//! `accept` and `forward`; everything between them moves bytes without knowing which it is. Nothing is boxed but the
//! state of TLS, and a plain socket is one comparison away.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::buffer::{Flow, Pool};
use crate::identity::{Identity, IdentityError, Peer};

mod handshake;
mod records;
mod secured;

use secured::Secured;

/// A connection, plain or with mesh TLS.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Secured(Box<Secured>),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the connection broke in the TLS handshake: {0}")]
    Broken(#[source] io::Error),
    /// The other side is not who it is to be, or says so of us.
    #[error("TLS handshake: {0}")]
    Refused(#[from] rustls::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl HandshakeError {
    /// The `error` label of `*_tcp_errors_total`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Broken(_) => "i/o",
            Self::Refused(_) | Self::Identity(_) => "identity required",
        }
    }
}

impl Stream {
    /// Terminates mesh TLS on a connection whose first bytes were read already, and says who the client is.
    ///
    /// # Errors
    /// When it does not show a certificate of the mesh that is in force.
    pub async fn accept(
        (socket, first): (TcpStream, Flow),
        identity: &Identity,
        pool: &Rc<Pool>,
    ) -> Result<(Self, Peer), HandshakeError> {
        let (secured, peer) = handshake::accept((socket, first), identity, pool).await?;
        Ok((Self::Secured(Box::new(secured)), peer))
    }

    /// Begins mesh TLS with a server that is to have this name.
    ///
    /// # Errors
    /// When it does not show a certificate of the mesh that is in force and has this name.
    pub async fn connect(
        socket: TcpStream,
        (identity, name): (&Identity, ServerName<'static>),
        pool: &Rc<Pool>,
    ) -> Result<Self, HandshakeError> {
        let secured = handshake::connect(socket, (identity, name), pool).await?;
        Ok(Self::Secured(Box::new(secured)))
    }

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secured(secured) => secured.tcp(),
        }
    }

    /// Who the peer is, where it has shown a certificate. It is read anew each time: nobody keeps it for as long as a
    /// connection lives.
    pub fn peer(&self) -> Option<Peer> {
        match self {
            Self::Plain(_) => None,
            Self::Secured(secured) => Some(handshake::peer(secured).unwrap_or_default()),
        }
    }

    /// The socket, where its bytes are those of the application.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Secured(_) => None,
        }
    }

    /// Whether nothing more of the peer is there than was read: neither bytes nor its end.
    pub fn is_quiet(&self) -> bool {
        let has_all = match self {
            Self::Plain(_) => true,
            Self::Secured(secured) => secured.is_drained(),
        };
        let peeked = SockRef::from(self.tcp()).peek(&mut [MaybeUninit::uninit()]);
        has_all && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether bytes that were taken are not with the system yet: only a flush, or further writing, gets them there.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secured(secured) => secured.is_unsent(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Secured(secured) => secured.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Secured(secured) => secured.poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Secured(secured) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                secured.poll_write(cx, first.map_or(&[], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Secured(secured) => secured.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Secured(secured) => secured.poll_shutdown(cx),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

#[cfg(test)]
mod tests;
