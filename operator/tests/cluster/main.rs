//! The operator against an API server in this process. `operator` runs the whole of it,
//! `certificates` the keeper alone with the time given; `api` is the server, `scene` what both share.

mod api;
mod certificates;
mod dataplanes;
mod operator;
mod scene;
