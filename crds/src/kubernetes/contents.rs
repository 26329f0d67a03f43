//! What the `spec` of each kind holds, as `kubectl explain` shows it.
//! Called by `definitions`. The schemas follow `schema`: they describe and do not judge.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use super::schema::{flag, free, list, number, object, text, text_map};

/// `spec` of a Mesh.
pub(super) fn mesh() -> JSONSchemaProps {
    object(
        "The settings of the mesh.",
        &[
            ("mtls", mtls()),
            ("metrics", metrics()),
            ("networking", networking()),
            ("routing", routing()),
            ("constraints", constraints()),
            ("logging", free("Access logs; kept as written.")),
            ("tracing", free("Traces; kept as written.")),
            ("meshServices", free("Kept as written.")),
            (
                "skipCreatingInitialPolicies",
                list(
                    "Policies not to create with the mesh; * stands for all.",
                    text("A policy type."),
                ),
            ),
        ],
    )
}

fn metrics() -> JSONSchemaProps {
    let backend = object(
        "A way to publish metrics.",
        &[
            ("name", text("Name by which enabledBackend chooses it.")),
            ("type", text("prometheus.")),
            ("conf", metrics_conf()),
        ],
    );
    object(
        "Where and how proxies publish their metrics.",
        &[
            (
                "enabledBackend",
                text("Name of the backend in force; empty switches metrics off."),
            ),
            ("backends", list("The backends to choose from.", backend)),
        ],
    )
}

fn metrics_conf() -> JSONSchemaProps {
    free(
        "The endpoint: port (5670), path (/metrics), tags (kuma.io/service: dataplane-metrics), \
         tls.mode (activeMTLSBackend, providedTLS or disabled), skipMTLS (the older form of tls), \
         envoy.filterRegex and envoy.usedOnly (which of the proxy's metrics to print), and \
         aggregate, a list of applications to publish with the proxy: name, port, path (/metrics), \
         enabled (true) and address.",
    )
}

fn mtls() -> JSONSchemaProps {
    let rotation = object(
        "When certificates are renewed.",
        &[(
            "expiration",
            text("Life time of a certificate, such as 1d."),
        )],
    );
    let certificate = object(
        "The certificates of the proxies.",
        &[
            ("rotation", rotation),
            (
                "requestTimeout",
                text("How long a proxy waits for one, such as 10s."),
            ),
        ],
    );
    let chain = object(
        "The root certificates.",
        &[(
            "requestTimeout",
            text("How long a proxy waits for them, such as 10s."),
        )],
    );
    let backend = object(
        "A certificate authority.",
        &[
            ("name", text("Name by which enabledBackend chooses it.")),
            ("type", text("builtin or provided.")),
            ("mode", text("STRICT (the default) or PERMISSIVE.")),
            ("dpCert", certificate),
            ("rootChain", chain),
            (
                "conf",
                free(
                    "builtin: caCert.RSAbits, caCert.expiration. provided: cert and key, each from secret or inline.",
                ),
            ),
        ],
    );
    object(
        "Mutual TLS between the proxies.",
        &[
            (
                "enabledBackend",
                text("Name of the authority in force; empty switches mutual TLS off."),
            ),
            (
                "skipValidation",
                flag("Whether the contents of a provided authority are not checked."),
            ),
            (
                "backends",
                list("The authorities to choose from; at most one.", backend),
            ),
        ],
    )
}

fn networking() -> JSONSchemaProps {
    let outbound = object(
        "Connections to other destinations.",
        &[(
            "passthrough",
            flag("Whether destinations unknown to the mesh are reached; true by default."),
        )],
    );
    object("How proxies treat connections.", &[("outbound", outbound)])
}

fn routing() -> JSONSchemaProps {
    object(
        "How destinations are chosen.",
        &[
            (
                "localityAwareLoadBalancing",
                flag("Whether near endpoints are preferred."),
            ),
            (
                "zoneEgress",
                flag("Whether traffic leaves a zone through its egress; needs mutual TLS."),
            ),
            (
                "defaultForbidMeshExternalServiceAccess",
                flag("Whether external services are closed unless a policy opens them."),
            ),
        ],
    )
}

fn constraints() -> JSONSchemaProps {
    let tags = || {
        object(
            "A set of tags.",
            &[("tags", text_map("Tags; * stands for any value."))],
        )
    };
    let proxy = object(
        "Which proxies may join.",
        &[
            (
                "requirements",
                list("A proxy must match one of these.", tags()),
            ),
            (
                "restrictions",
                list("A proxy must match none of these.", tags()),
            ),
        ],
    );
    object("Conditions of membership.", &[("dataplaneProxy", proxy)])
}

/// `spec` of a Dataplane.
pub(super) fn dataplane() -> JSONSchemaProps {
    let metrics = object(
        "What this proxy changes of the Mesh's metrics, field by field.",
        &[
            ("name", text("Kept as written.")),
            ("type", text("prometheus.")),
            ("conf", metrics_conf()),
        ],
    );
    object(
        "A proxy. Without networking it only changes metrics.",
        &[
            ("networking", listeners()),
            ("metrics", metrics),
            ("probes", free("Virtual probes; kept as written.")),
        ],
    )
}

/// `status.metrics` of a Dataplane.
pub(super) fn metrics_endpoint() -> JSONSchemaProps {
    object(
        "The metrics endpoint in force.",
        &[
            ("address", text("Address and port.")),
            ("path", text("Path.")),
        ],
    )
}

fn listeners() -> JSONSchemaProps {
    object(
        "The listeners of the proxy.",
        &[
            ("address", text("IP address or DNS name of the proxy.")),
            (
                "advertisedAddress",
                text("The address others reach it by, where it differs."),
            ),
            ("inbound", list("Services behind the proxy.", inbound())),
            (
                "outbound",
                list("Services that the application calls.", outbound()),
            ),
            (
                "gateway",
                free("A gateway in place of inbound listeners: tags and type."),
            ),
            ("transparentProxying", free("Redirection; kept as written.")),
            (
                "admin",
                object(
                    "The admin endpoint.",
                    &[("port", number("Its port, on loopback."))],
                ),
            ),
        ],
    )
}

fn inbound() -> JSONSchemaProps {
    object(
        "A service behind the proxy.",
        &[
            (
                "address",
                text("Where the proxy listens; the address of the proxy by default."),
            ),
            ("port", number("Port the proxy listens on.")),
            (
                "serviceAddress",
                text("Where the application listens; address by default."),
            ),
            (
                "servicePort",
                number("Port the application listens on; port by default."),
            ),
            (
                "tags",
                text_map("Tags of the service, kuma.io/service among them."),
            ),
            ("state", text("Ready, NotReady or Ignored.")),
            ("health", free("Older form of state.")),
            ("serviceProbe", free("How the application is probed.")),
        ],
    )
}

fn outbound() -> JSONSchemaProps {
    object(
        "A service that the application calls.",
        &[
            (
                "address",
                text("Where the proxy listens; 127.0.0.1 by default."),
            ),
            ("port", number("Port the proxy listens on.")),
            (
                "tags",
                text_map("Tags of the destination, kuma.io/service among them."),
            ),
            (
                "backendRef",
                free("Reference to the destination instead of tags."),
            ),
        ],
    )
}

/// `spec` of a TrafficPermission.
pub(super) fn traffic_permission() -> JSONSchemaProps {
    let selector = || {
        object(
            "A set of services.",
            &[("match", text_map("Their tags; * stands for any value."))],
        )
    };
    object(
        "Who may connect to whom.",
        &[
            ("sources", list("Clients; one has to match.", selector())),
            (
                "destinations",
                list("Servers; the best match decides.", selector()),
            ),
        ],
    )
}

/// `spec` of a ContainerPatch.
pub(super) fn container_patch() -> JSONSchemaProps {
    let operation = || {
        object(
            "An operation of RFC 6902.",
            &[
                ("op", text("add, remove, replace, move or copy.")),
                (
                    "path",
                    text("JSON Pointer into the container, such as /env/-."),
                ),
                (
                    "from",
                    text("JSON Pointer of the source, for move and copy."),
                ),
                (
                    "value",
                    free("A string that holds JSON, for add and replace."),
                ),
            ],
        )
    };
    object(
        "Operations on the injected containers.",
        &[
            (
                "sidecarPatch",
                list("Operations on kuma-sidecar.", operation()),
            ),
            ("initPatch", list("Operations on kuma-init.", operation())),
        ],
    )
}
