//! What an identity takes and does not take.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;

use super::*;

mod authority;

pub(crate) use authority::Authority;

pub(crate) fn made(
    authority: &Authority,
    name: &str,
    asked: &str,
) -> Result<Identity, IdentityError> {
    let key = Key::generate()?;
    let csr = key.request(asked)?;
    let certified = authority.sign(&csr, &[], Duration::from_secs(60));
    let trust = Arc::new(Trust::from_pem(&Authority::new("mesh").bundle())?);
    let own = Arc::new(Trust::from_pem(&authority.bundle())?);
    let foreign = Identity::new((&name.into(), &key), &certified, &trust);
    assert!(foreign.is_err(), "another authority's");
    Identity::new((&name.into(), &key), &certified, &own)
}

#[test]
fn a_certificate_holds_for_its_name_key_and_authority() {
    let authority = Authority::new("mesh");
    assert_eq!(
        &*made(&authority, "web.test", "web.test").unwrap().name,
        "web.test"
    );
    let other_name = made(&authority, "web.test", "api.test").unwrap_err();
    assert!(
        matches!(other_name, IdentityError::Refused(_)),
        "{other_name}"
    );
    let no_name = made(&authority, "10.0.0.1", "web.test").unwrap_err();
    assert!(matches!(no_name, IdentityError::Name(_)), "{no_name}");
    let key = Key::generate().unwrap();
    let csr = key.request("web.test").unwrap();
    let certified = authority.sign(&csr, &[], Duration::from_secs(60));
    let trust = Arc::new(Trust::from_pem(&authority.bundle()).unwrap());
    let other_key = Identity::new(
        (&"web.test".into(), &Key::generate().unwrap()),
        &certified,
        &trust,
    );
    assert!(other_key.is_err());
}

#[test]
fn a_certificate_that_begins_later_is_told_to_be_a_matter_of_the_clock() {
    let authority = Authority::new("mesh");
    let key = Key::generate().unwrap();
    let csr = key.request("web.test").unwrap();
    let begins = SystemTime::now() + Duration::from_secs(600);
    let certified = authority.sign_from(begins, &csr, &[], Duration::from_secs(6000));
    let trust = Arc::new(Trust::from_pem(&authority.bundle()).unwrap());
    let error = Identity::new((&"web.test".into(), &key), &certified, &trust).unwrap_err();
    assert!(matches!(error, IdentityError::Early(_)), "{error}");
    assert!(error.to_string().contains("clock"), "{error}");
}

#[test]
fn chains_are_judged_at_the_time_that_is_given() {
    let authority = Authority::new("mesh");
    let key = Key::generate().unwrap();
    let life = Duration::from_secs(100);
    let certified = authority.sign(&key.request("web.test").unwrap(), &[], life);
    let trust = Trust::from_pem(&authority.bundle()).unwrap();
    let name = server_name("web.test").unwrap();
    let now = UnixTime::now().as_secs();
    for (offset, holds) in [(0, true), (99, true), (102, false), (-120, false)] {
        let then = now.saturating_add_signed(offset);
        let then = UnixTime::since_unix_epoch(Duration::from_secs(then));
        assert_eq!(
            trust.judge_client(&certified.chain, then).is_ok(),
            holds,
            "{offset}"
        );
        let as_server = trust.judge_server(&certified.chain, &name, then);
        assert_eq!(as_server.is_ok(), holds, "{offset}");
    }
    assert!(trust.judge_client(&[], UnixTime::now()).is_err());
}

#[test]
fn a_bundle_without_an_authority_is_none() {
    for bundle in [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let error = Trust::from_pem(bundle).unwrap_err().to_string();
        assert!(error.contains("identity.trustBundle"), "{error}");
    }
}

#[test]
fn a_peer_is_what_its_certificate_says_in_order() {
    let authority = Authority::new("mesh");
    let key = Key::generate().unwrap();
    let uris = ["spiffe://default/web", "kuma://version/v1"].map(str::to_owned);
    let csr = key.request("web.shop.serviceaccount.identity.kuma-system.cluster.local");
    let certified = authority.sign(&csr.unwrap(), &uris, Duration::from_secs(60));
    let peer = Peer::of(&certified.chain[0]).unwrap();
    assert_eq!(
        &*peer.name,
        "web.shop.serviceaccount.identity.kuma-system.cluster.local"
    );
    assert_eq!(peer.identity.mesh, "default");
    assert!(peer.identity.tags["version"].contains("v1"));
    assert!(Peer::of(&b"junk"[..].into()).is_err());
}
