use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

const NAME: &str = "weir-webhook.kuma-system.svc";
const DAY: i64 = 86_400;

/// An authority and the PEM of its certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: Vec<u8>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "test authority");
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem().into_bytes();
    Authority {
        issuer: Issuer::new(params, key),
        pem,
    }
}

/// A certificate for `name`, valid for a day from `now`.
fn serving(authority: &Authority, name: &str, now: Timestamp) -> Serving {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let at = |seconds: i64| {
        rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_secs(seconds.try_into().unwrap())
    };
    params.not_before = at(now.as_second() - 60);
    params.not_after = at(now.as_second() + DAY);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &authority.issuer).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Serving::parse(
        leaf.pem().as_bytes(),
        key.serialize_pem().as_bytes(),
        &provider,
    )
    .unwrap()
}

fn hooks(bundle: &[u8]) -> Hooks {
    let hook = |name: &str| Hook {
        name: name.to_owned(),
        ca_bundle: bundle.to_vec(),
    };
    Hooks {
        mutating: Some(vec![hook("inject"), hook("default")]),
        validating: Some(vec![hook("validate")]),
    }
}

fn why(serving: &Serving, hooks: &Hooks, now: Timestamp) -> String {
    trusted(serving, hooks, NAME, now).unwrap_err().to_string()
}

#[test]
fn trusted_by_every_entry_is_ready() {
    let (now, authority) = (Timestamp::now(), authority());
    let serving = serving(&authority, NAME, now);
    trusted(&serving, &hooks(&authority.pem), NAME, now).unwrap();
    assert_eq!(serving.expires, now.as_second() + DAY);
}

#[test]
fn a_bundle_with_an_old_and_the_new_authority_is_ready() {
    let (now, old, new) = (Timestamp::now(), authority(), authority());
    let both = [old.pem.as_slice(), new.pem.as_slice()].concat();
    for authority in [&old, &new] {
        trusted(&serving(authority, NAME, now), &hooks(&both), NAME, now).unwrap();
    }
}

#[test]
fn each_way_to_distrust_is_named() {
    let (now, authority) = (Timestamp::now(), authority());
    let right = serving(&authority, NAME, now);
    let mut one_differs = hooks(&authority.pem);
    one_differs.validating.as_mut().unwrap()[0].ca_bundle = self::authority().pem;
    let text = why(&right, &one_differs, now);
    assert!(
        text.starts_with(
            "ValidatingWebhookConfiguration, webhook validate: caBundle does not verify"
        ),
        "{text}"
    );

    let text = why(&right, &hooks(b""), now);
    assert_eq!(
        text,
        "MutatingWebhookConfiguration, webhook inject: caBundle: it is empty"
    );
    let text = why(
        &serving(&authority, "other.kuma-system.svc", now),
        &hooks(&authority.pem),
        now,
    );
    assert!(
        text.contains(
            "caBundle does not verify the certificate being served: invalid peer certificate"
        ),
        "{text}"
    );
    let late = Timestamp::from_second(now.as_second() + 2 * DAY).unwrap();
    let text = why(&right, &hooks(&authority.pem), late);
    assert!(text.contains("expired"), "{text}");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let text = why(
        &Serving::placeholder(&provider),
        &hooks(&authority.pem),
        now,
    );
    assert!(text.contains("caBundle does not verify"), "{text}");
}

#[test]
fn a_configuration_that_does_not_exist_is_waited_for() {
    let (now, authority) = (Timestamp::now(), authority());
    let serving = serving(&authority, NAME, now);
    let all = hooks(&authority.pem);
    let text = why(
        &serving,
        &Hooks {
            mutating: None,
            ..all.clone()
        },
        now,
    );
    assert_eq!(
        text,
        "waiting for the MutatingWebhookConfiguration to exist"
    );
    let text = why(
        &serving,
        &Hooks {
            validating: Some(Vec::new()),
            ..all
        },
        now,
    );
    assert_eq!(
        text,
        "waiting for the ValidatingWebhookConfiguration to exist"
    );
}

#[test]
fn what_cannot_be_served_names_its_part() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let (ours, other) = (
        rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap(),
        KeyPair::generate().unwrap(),
    );
    let chain = ours.cert.pem();
    let parse = |chain: &str, key: &str| {
        Serving::parse(chain.as_bytes(), key.as_bytes(), &provider)
            .unwrap_err()
            .to_string()
    };
    assert!(parse("", &other.serialize_pem()).starts_with("tls.crt: "));
    assert!(parse(&chain, "").starts_with("tls.key: "));
    assert!(parse(&chain, &other.serialize_pem()).starts_with("tls.crt and tls.key: "));
}
