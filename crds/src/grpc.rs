//! The streams between operator and proxy: by which a proxy follows its settings and the routes of the services it calls,
//! made from the files in `proto`, and the client of `Destination` of linkerd2-proxy-api, whose messages are that crate's.
//! Used by the operator, which answers with a server of its own, and the proxy (client). Documents carry a
//! [`crate::settings::Settings`] and a [`crate::routes::RouteTable`] as text; nothing here knows what is in them.

use std::marker::PhantomData;

use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a stream keeps for its messages, in bytes: nothing, until there is one. tonic's own 8 KiB would be most of what a
/// watch takes.
const BUFFER: usize = 0;
/// tonic's codec for prost, with buffers for streams of small messages that mostly wait.
#[derive(Debug, Clone)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER, BUFFER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER, BUFFER))
    }
}

/// The path of every call of the services that an operator answers by streams, as `/weir.routes.v1.Routes/Watch`.
pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// `weir.settings.v1`.
// The generator's style, not ours; its doc comments are those of the .proto file.
#[allow(clippy::all, clippy::too_many_lines, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("weir.settings.v1");
}

/// `io.linkerd.proxy.destination`: the client of the published API, with buffers as small as those of the settings.
#[allow(clippy::all, clippy::too_many_lines, unreachable_pub)]
pub mod destination {
    include!(concat!(
        env!("OUT_DIR"),
        "/io.linkerd.proxy.destination.Destination.rs"
    ));
}

/// `weir.routes.v1`.
#[allow(clippy::all, clippy::too_many_lines, unreachable_pub)]
pub mod routes_v1 {
    tonic::include_proto!("weir.routes.v1");
}
