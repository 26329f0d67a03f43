//! An application that takes no connections and refuses none. Read by the tests of the tables as well.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A listener whose queue is full: the system drops further attempts. It stays so while the sockets live.
pub(crate) fn deaf() -> (SocketAddr, Vec<Socket>) {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&any.into()).expect("a free port");
    listener.listen(0).expect("a listener");
    let addr = listener.local_addr().expect("an address");
    let mut sockets = vec![listener];
    for _ in 0..64 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let accepted = client.connect_timeout(&addr, Duration::from_millis(100));
        sockets.push(client);
        if accepted.is_err() {
            return (addr.as_socket().expect("IPv4"), sockets);
        }
    }
    panic!("the queue of a listener does not fill up");
}
