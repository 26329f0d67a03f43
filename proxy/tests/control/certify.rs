//! Whoever asks for certificates, and the connection that it is asked on.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weir_proxy::control::{Certify, operator};
use weir_proxy::identity::Certifier;
use weir_proxy::record::CallSource;

use crate::desk::{connection, soon};
use crate::discovery::LOOPBACK;
use crate::operator::Operator;

#[tokio::test]
async fn the_operator_can_be_asked_once_there_is_a_connection() {
    let operator = Operator::new(None);
    let addr = operator.serve(LOOPBACK).await.addr;
    let config = connection(addr);
    let longest = config.retry.max;
    let (log, _calls) = CallSource::new(config.target.addr(), config.target.labels());
    let (client, kept) = operator::open(config, log);
    let origin = client.origin();
    let certify = Certify::new((client, origin), "/nonexistent/token".into());
    let stop = CancellationToken::new();
    tokio::spawn(kept.keep(stop.clone()));
    let waited = tokio::time::timeout(3 * longest, certify.ready()).await;
    assert!(waited.is_err(), "nobody listens there any more");
    let _serving = operator.serve(addr).await;
    soon(certify.ready()).await;
    // It stays so.
    let waited = tokio::time::timeout(Duration::ZERO, certify.ready()).await;
    assert!(waited.is_ok());
    stop.cancel();
}
