//! From when certificates hold: for clocks that run behind, and never before what signs them.

use rcgen::KeyPair;

use super::*;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn now() -> Timestamp {
    "2026-11-27T00:00:00Z".parse().unwrap()
}

/// A builtin root that was made at `made`.
fn builtin(made: Timestamp, life: SignedDuration) -> Root {
    let key = new_key().unwrap();
    let certificate = new_certificate("default", &key, made, life).unwrap();
    Root::read(&Pair { certificate, key }, made).unwrap()
}

/// From when a certificate holds that `root` signs now.
fn leaf_holds_from(root: &Root) -> Timestamp {
    let identity = Identity {
        name: "web.shop".to_owned(),
        mesh: "default".to_owned(),
        ..Identity::default()
    };
    let leaf = root.sign(&identity, &KeyPair::generate().unwrap(), now(), DAY);
    let leaf = leaf.unwrap();
    assert_eq!(leaf.not_after, now() + DAY);
    let der = CertificateDer::from(leaf.certificate);
    let validity = parse(&der).unwrap().validity().not_before;
    timestamp(validity.timestamp()).unwrap()
}

#[test]
fn a_certificate_holds_where_the_clock_is_an_hour_behind() {
    let hour = SignedDuration::from_hours(1);
    assert_eq!(
        leaf_holds_from(&builtin(now() - DAY, DAY * 3650)),
        now() - hour
    );
    // Also below a root that was made this moment.
    assert_eq!(leaf_holds_from(&builtin(now(), DAY * 3650)), now() - hour);
}

#[test]
fn a_certificate_never_holds_before_its_root() {
    let made = now() + SignedDuration::from_mins(30);
    let given = Pair::authority("web", made, DAY * 3650).unwrap();
    let root = Root::read(&given, made).unwrap();
    assert!(root.not_before > now() - BACKDATE);
    assert_eq!(leaf_holds_from(&root), root.not_before);
}

#[test]
fn a_root_is_replaced_after_two_thirds_of_its_life_however_short_that_is() {
    for life in [
        SignedDuration::from_secs(10),
        SignedDuration::from_mins(30),
        DAY,
        DAY * 3650,
    ] {
        let share = builtin(now(), life).renew_at().duration_since(now()) / 60;
        assert!(share >= life / 100 && share <= life / 90, "{life}: {share}");
    }
}
