//! What the variables of a pod say of the operator. Used by `config`.

use weir_crds::env;

use super::values::Values;
use crate::control::operator::{self, Target};
use crate::control::{Operator, discovery};

impl Values {
    /// The operator that a pod is told of; none where it is told of none.
    pub(super) fn operator(
        &mut self,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Option<Operator> {
        let given = |name| variable(name).filter(|text| !text.trim().is_empty());
        let url = given(env::CONTROL_PLANE_URL)?;
        let authority = given(env::CONTROL_PLANE_CA_CERT);
        let target = match Target::parse(&url, authority.as_deref()) {
            Ok(target) => target,
            Err(error) => {
                let name = match error.is_of_authority() {
                    true => env::CONTROL_PLANE_CA_CERT,
                    false => env::CONTROL_PLANE_URL,
                };
                self.wrong(name, error.to_string());
                return None;
            }
        };
        let mut connection = operator::Config::new(target);
        connection.token = given(env::TOKEN_PATH).map(Into::into);
        let discovery = discovery::Config {
            context: context(&given),
            ..discovery::Config::default()
        };
        Some(Operator {
            connection,
            discovery,
            settings: None,
        })
    }
}

/// What tells the operator where the pod is, as Linkerd's proxies do.
fn context(given: &impl Fn(&'static str) -> Option<String>) -> String {
    let keys = [
        ("ns", env::POD_NAMESPACE),
        ("pod", env::POD_NAME),
        ("nodeName", env::NODE_NAME),
    ];
    let known = keys.into_iter();
    let known = known.filter_map(|(key, name)| Some((key.to_owned(), given(name)?.into())));
    serde_json::Value::Object(known.collect()).to_string()
}
