//! The operator and the proxy's own client of it, together: what is written in resources is what requests are matched
//! against.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use weir_proxy::control::discovery::{self, Desk};
use weir_proxy::control::operator::{self, Target};
use weir_proxy::destinations::{Answer, Link, Question, Usage};
use weir_proxy::record::CallSource;
use weir_proxy::routes::{Fields, Request, Table};

use crate::client::{DEADLINE, Running, web};
use crate::scene::{endpoint, service};

/// The header fields of a request.
struct Named(&'static [(&'static str, &'static str)]);

impl Fields for Named {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let field = self.0.iter().find(|(known, _)| *known == name);
        field.map(|(_, value)| value.as_bytes())
    }
}

/// The route of a request, by an answer.
fn route(
    answer: &Answer,
    target: &str,
    fields: &'static [(&'static str, &'static str)],
) -> Option<String> {
    let Answer::Inside(inside) = answer else {
        panic!("{answer:?}")
    };
    let table = Table::new(inside.service.routes.as_deref()?);
    let fields = Named(fields);
    let found = table.find(&Request::new(b"GET", target.as_bytes(), &fields));
    found.map(|route| route.name().to_owned())
}

/// A proxy's discovery, which asks this operator.
fn discover(running: &Running, context: &str, stop: &CancellationToken) -> Link {
    let target = Target::parse(&format!("http://{}", running.address), None).unwrap();
    let config = operator::Config::new(target);
    let (log, _calls) = CallSource::new(config.target.addr(), config.target.labels());
    let (client, connection) = operator::open(config, log);
    let (link, questions, changes) = Link::new();
    let desk = Desk {
        questions,
        changes,
        epoch: link.epoch(),
    };
    let config = discovery::Config {
        context: context.to_owned(),
        ..discovery::Config::default()
    };
    let (known, _told) = discovery::told();
    tokio::spawn(connection.keep(stop.clone()));
    tokio::spawn(discovery::Discovery::new(config, client, desk, known).run(stop.clone()));
    link
}

#[tokio::test]
async fn what_is_written_is_what_requests_are_matched_against() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    running.scene.slice(web(vec![endpoint("p", "10.0.0.1")]));
    running.scene.route(json!({
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
            "rules": [{"name": "test", "matches": [
                {"headers": [{"name": "X-Test", "value": "1"}]},
                {"queryParams": [{"name": "test", "value": "yes|on", "type": "RegularExpression"}]}
            ]}]
        }
    }));
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let link = discover(&running, r#"{"ns":"client","pod":"c"}"#, &stop);
    let (reply, replied) = tokio::sync::oneshot::channel();
    link.ask(Question {
        to: "10.96.0.1:80".parse().unwrap(),
        usage: Arc::new(Usage::new(link.epoch())),
        reply,
    });
    let mut answers = tokio::time::timeout(DEADLINE, replied)
        .await
        .unwrap()
        .unwrap();
    let mut until = async |is_it: &(dyn Fn(&Answer) -> bool + Sync)| {
        let waited = answers.wait_for(|answer| is_it(answer));
        let waited = tokio::time::timeout(DEADLINE, waited).await.unwrap();
        waited.unwrap().clone()
    };
    let first = until(&|answer| *answer != Answer::Pending).await;
    assert_eq!(
        route(&first, "/", &[("x-test", "1")]).as_deref(),
        Some("r/test")
    );
    assert_eq!(route(&first, "/a?test=on", &[]).as_deref(), Some("r/test"));
    assert_eq!(route(&first, "/?test=one", &[("x-test", "2")]), None);

    // One of the client's own namespace, of the other kind, while the first is followed.
    let profile = json!({
        "metadata": {"name": "web.shop.svc.cluster.local", "namespace": "client"},
        "spec": {"routes": [{"name": "books", "condition": {"pathRegex": "/books/[0-9]+"}}]}
    });
    running.scene.profile(profile.clone());
    let books = |answer: &Answer| route(answer, "/books/7", &[]).as_deref() == Some("books");
    let now = until(&books).await;
    assert_eq!(route(&now, "/books/x", &[("x-test", "1")]), None);
    running.scene.delete_profile(profile);
    until(&|answer| route(answer, "/", &[("x-test", "1")]).is_some()).await;
}
