//! `weir-proxy shutdown`: asks the proxy of this pod to drain and end, from a container that has neither a shell nor
//! curl. Called by `main`; it speaks to the admin port over loopback and knows nothing of the process there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use weir_crds::ports;

use crate::ask::ask;

/// How long each of connecting, sending and receiving may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The flags of `weir-proxy shutdown`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the proxy serves its admin port; loopback stands for `[::]` and `0.0.0.0`
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "WEIR_ADMIN_ADDR",
        default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::ADMIN))
    )]
    pub admin_addr: SocketAddr,
}

/// Why the proxy may go on as before.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    #[error("no answer from the proxy's admin port at {addr} (--admin-addr): {error}")]
    NoAnswer { addr: SocketAddr, error: io::Error },
    #[error("refused by {addr}: {answer}")]
    Refused { addr: SocketAddr, answer: String },
}

/// Asks, and prints what was answered.
///
/// # Errors
/// When nobody answers, or something else than 200.
pub fn run(args: &Args) -> Result<(), ShutdownError> {
    println!("{}", request(args)?);
    Ok(())
}

fn request(args: &Args) -> Result<String, ShutdownError> {
    let addr = args.admin_addr;
    let answer = ask(addr, "POST /shutdown", TIMEOUT)
        .map_err(|error| ShutdownError::NoAnswer { addr, error })?;
    if answer.is_ok() {
        return Ok(answer.body);
    }
    Err(ShutdownError::Refused {
        addr,
        answer: format!("{}: {}", answer.status, answer.body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::tests::answering;
    use crate::ports::free;

    #[test]
    fn what_is_answered_is_told() {
        let (admin_addr, asked) = answering(&["HTTP/1.0 200 OK\r\n\r\ndraining\n"]);
        assert_eq!(request(&Args { admin_addr }).unwrap(), "draining");
        let asked = asked.join().unwrap();
        assert!(asked[0].starts_with("POST /shutdown "), "{asked:?}");
        let (admin_addr, _asked) = answering(&["HTTP/1.1 404 Not Found\r\n\r\nnot found\n"]);
        let error = request(&Args { admin_addr }).unwrap_err().to_string();
        assert!(
            error.ends_with("HTTP/1.1 404 Not Found: not found"),
            "{error}"
        );
    }

    #[test]
    fn nobody_there_is_a_clear_error() {
        let admin_addr = free();
        let error = request(&Args { admin_addr }).unwrap_err().to_string();
        assert!(
            error.contains("--admin-addr") && error.contains(&admin_addr.to_string()),
            "{error}"
        );
    }
}
