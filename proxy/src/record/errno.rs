//! The `errno` label: the symbol of the error that ended a connection (errno(3)).
//!
//! Only the errors that Linux gives to TCP sockets have a name here; any other prints
//! as `UNKNOWN_ERRNO`, so that the label stays bounded.

use std::io;

use rustix::io::Errno;

const SYMBOLS: [(Errno, &str); 20] = [
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::PIPE, "EPIPE"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::HOSTDOWN, "EHOSTDOWN"),
    (Errno::NETDOWN, "ENETDOWN"),
    (Errno::NETRESET, "ENETRESET"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::ADDRINUSE, "EADDRINUSE"),
    (Errno::ACCESS, "EACCES"),
    (Errno::PERM, "EPERM"),
    (Errno::PROTO, "EPROTO"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NFILE, "ENFILE"),
];

/// The symbol of an I/O error; empty when the system gave it no number.
pub(super) fn symbol(error: &io::Error) -> &'static str {
    let Some(raw) = error.raw_os_error() else {
        return "";
    };
    SYMBOLS
        .iter()
        .find(|(e, _)| e.raw_os_error() == raw)
        .map_or("UNKNOWN_ERRNO", |(_, s)| s)
}

#[cfg(test)]
mod tests {
    use super::symbol;

    #[test]
    fn errors_of_the_system_have_their_symbols() {
        assert_eq!(
            symbol(&std::io::Error::from_raw_os_error(104)),
            "ECONNRESET"
        );
        assert_eq!(
            symbol(&std::io::Error::from_raw_os_error(9999)),
            "UNKNOWN_ERRNO"
        );
        assert_eq!(symbol(&std::io::Error::other("x")), "");
    }
}
