//! The operator against an API server in this process. `operator` runs the whole of it,
//! `certificates` and `authorities` the two keepers alone with the time given, `mesh` a proxy's calls, `process` the program
//! with many proxies connected, `routes` the kinds that may be missing, `targets` what scrapers are told; `api` is the server, `scene` what both share.

mod api;
mod authorities;
mod certificates;
mod dataplanes;
mod mesh;
mod operator;
mod process;
mod routes;
mod scene;
mod targets;
