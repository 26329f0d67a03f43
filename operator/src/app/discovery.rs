//! Wires discovery: one watch a kind that feeds the index, and the writer of Dataplanes behind it. Meshes and
//! Dataplanes come from the watches that others share.

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PartialObjectMeta;

use super::Tasks;
use crate::apply::DataplaneWriter;
use crate::index::{Discovery, Indexed};
use crate::leader::Leader;
use crate::metrics::Watch;
use crate::watch::{Watched, follow_kept, in_pages};

impl Tasks {
    /// Follows what discovery answers from, and keeps the Dataplanes.
    pub(super) fn spawn_discovery(&self, leader: &Leader, index: &Discovery) {
        let keep = index.clone();
        self.spawn_kept(Watch::Pods, index, move |pod: Pod| keep.keep_pod(pod));
        let keep = index.clone();
        self.spawn_kept(Watch::Services, index, move |one: Service| {
            keep.keep_service(one)
        });
        let keep = index.clone();
        self.spawn_kept(Watch::EndpointSlices, index, move |one: EndpointSlice| {
            keep.keep_slice(one)
        });
        let keep = index.clone();
        let keep_node = move |node: PartialObjectMeta<Node>| keep.keep_node(&node);
        self.spawn_kept(Watch::Nodes, index, keep_node);
        let writer = DataplaneWriter::new(
            self.client.clone(),
            index.clone(),
            self.config.leader.identity.clone(),
            self.config.zone.clone(),
            self.metrics.clone(),
        );
        self.tracker
            .spawn(writer.run(leader.leading(), self.stop.clone()));
    }

    fn spawn_kept<K, T>(
        &self,
        what: Watch,
        index: &Discovery,
        keep: impl Fn(K) -> T + Send + Sync + 'static,
    ) where
        K: Watched<DynamicType = ()>,
        T: Send + 'static,
        Discovery: Indexed<T>,
    {
        let follower = self.follower(what, index.clone());
        let api: Api<K> = Api::all(self.client.clone());
        self.tracker
            .spawn(follow_kept(api, in_pages(), keep, follower));
    }
}
