//! Whatever a peer puts into a label comes out of either format as it went in; but for a NUL, at which Prometheus would
//! stop reading. The fuzz target of the same purpose goes further, this runs everywhere.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use weir_proxy::telemetry::{self, Config, Dst, Format, HttpLabels, HttpSide, Selection, Tls};

use crate::parser::{self, Syntax};

fn value() -> impl Strategy<Value = String> {
    let special: Vec<char> = "\\\"\n\r\t\0{}=, #\u{fffd}\u{2028}".chars().collect();
    let character = prop_oneof![any::<char>(), select(special)];
    vec(character, 0..24).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn they_come_out_as_they_went_in(authority in value(), sni in value(), zone in value()) {
        let (telemetry, mut seats) = telemetry::new(Config::default(), 1);
        let recorder = seats.remove(0).take();
        let dst = Dst::new([("zone", zone.as_str())]);
        let tls = Tls::Opaque { sni: sni.as_str().into() };
        recorder.http(&HttpLabels {
            authority: &authority,
            target_port: 80,
            tls: &tls,
            side: HttpSide::Outbound { dst: &dst },
        });
        for (format, syntax) in [(Format::Text, Syntax::Text), (Format::OpenMetrics, Syntax::OpenMetrics)] {
            let mut body = Vec::new();
            let selection = Selection { format, ..Selection::default() };
            telemetry.expose(&selection, &mut body).unwrap();
            let families = parser::parse(std::str::from_utf8(&body).unwrap(), syntax).unwrap();
            let mut samples = families.iter().flat_map(|family| &family.samples);
            let labels = &samples.find(|sample| sample.name == "request_total").unwrap().labels;
            let printed = |value: &str| value.replace('\0', "\u{fffd}");
            prop_assert_eq!(&labels["authority"], &printed(&authority));
            prop_assert_eq!(&labels["sni"], &printed(&sni));
            prop_assert_eq!(&labels["dst_zone"], &printed(&zone));
        }
    }
}
