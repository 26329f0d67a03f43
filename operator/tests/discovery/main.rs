//! The index of the cluster and the Destination service on it, without a cluster: objects go in as the API server
//! writes them, views and messages come out.

mod client;
mod destination;
mod index;
mod lifecycle;
mod owners;
mod profile;
mod proxy;
mod routes;
mod scale;
mod scene;
mod services;
mod streams;
