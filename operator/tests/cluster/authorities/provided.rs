//! Roots that the user gives.

use super::*;

#[tokio::test]
async fn a_provided_root_is_judged_and_changed_with_overlap() {
    let mut scene = Scene::start(provided()).await;
    let blamed = |scene: &Scene| match scene.authority().signer {
        Err(NotReady::Unusable(violation)) => (violation.field, violation.message),
        other => panic!("{other:?}"),
    };
    let cert = "mtls.backends[0].conf.cert.secret";
    let key = "mtls.backends[0].conf.key.secret";
    scene.settle(start()).await;
    let (field, message) = blamed(&scene);
    assert!(
        field == cert && message.contains("system.kuma.io/secret"),
        "{field}: {message}"
    );

    let first = Pair::authority("first", start(), DAY * 365).unwrap();
    let second = Pair::authority("second", start(), DAY * 365).unwrap();
    let leaf = first.sign_serving(&["x".to_owned()], start(), DAY).unwrap();
    for (certificate, private, (field, words)) in [
        ("nonsense", &first.key, (cert, "no certificate")),
        (&leaf.certificate, &leaf.key, (cert, "CA:TRUE")),
        (&first.certificate, &second.key, (key, "does not belong")),
        (
            &first.certificate,
            &"nonsense".to_owned(),
            (key, "private key"),
        ),
    ] {
        scene.give("cert", certificate);
        scene.give("key", private);
        scene.settle(start()).await;
        let (found, message) = blamed(&scene);
        assert!(
            found == field && message.contains(words),
            "{words}: {found}: {message}"
        );
    }
    scene.give("cert", &first.certificate);
    scene.give("key", &first.key);
    scene.settle(start() + DAY * 400).await;
    assert!(blamed(&scene).1.contains("expired"));
    scene.settle(start()).await;
    assert_eq!(scene.roots(), 1);

    // One of the two Secrets at a time: in between nothing fits, and the trust stands.
    scene.give("cert", &second.certificate);
    scene.settle(start()).await;
    assert_eq!(blamed(&scene).0, key);
    assert_eq!(scene.roots(), 1);
    scene.give("key", &second.key);
    scene.settle(start() + DAY).await;
    assert_eq!(scene.roots(), 2);
    assert_eq!(scene.signer().from, start() + DAY + LEAD);
    // And back: it is trusted already, so it signs at once.
    scene.give("cert", &first.certificate);
    scene.give("key", &first.key);
    scene.settle(start() + DAY).await;
    assert_eq!(scene.roots(), 2);
    assert_eq!(scene.signer().from, start());
}

#[tokio::test]
async fn a_root_below_another_is_sent_along_and_the_top_is_trusted() {
    let mut scene = Scene::start(provided()).await;
    let (top, middle) = chain(start());
    scene.give(
        "cert",
        &format!("{}{}", middle.certificate, top.certificate),
    );
    scene.give("key", &middle.key);
    scene.settle(start()).await;
    assert_eq!(
        pem_text(&scene.authority().bundle),
        pem_text(&top.certificate)
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = scene
        .signer()
        .root
        .sign(&Identity::default_named(), &key, start(), DAY)
        .unwrap();
    assert_eq!(leaf.intermediates.len(), 1);
    // The other way round nobody signs anybody.
    scene.give(
        "cert",
        &format!("{}{}", top.certificate, middle.certificate),
    );
    scene.give("key", &top.key);
    scene.settle(start()).await;
    assert!(matches!(
        scene.authority().signer,
        Err(NotReady::Unusable(_))
    ));
}
