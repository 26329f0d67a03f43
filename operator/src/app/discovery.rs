//! Wires discovery: one watch a kind that feeds the index, and the writer of Dataplanes behind it. Meshes and
//! Dataplanes come from the watches that others share; ServiceProfiles and HTTPRoutes from where they are installed.

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};

use super::Tasks;
use crate::apply::{DataplaneWriter, RouteTeller};
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
        self.spawn_routes(index);
        let writer = DataplaneWriter::new(
            self.client.clone(),
            index.clone(),
            self.config.leader.identity.clone(),
            self.config.zone.clone(),
            self.metrics.clone(),
        );
        self.writers
            .spawn(writer.run(leader.leading(), self.writing.clone()));
        let teller = RouteTeller::new(
            self.client.clone(),
            index.clone(),
            self.config.leader.identity.clone(),
        );
        self.writers
            .spawn(teller.run(leader.leading(), self.writing.clone()));
    }

    fn spawn_routes(&self, index: &Discovery) {
        let keep = index.clone();
        self.spawn_optional(
            (Watch::ServiceProfiles, service_profiles()),
            index,
            move |one: DynamicObject| keep.keep_profile(&one),
        );
        let keep = index.clone();
        self.spawn_optional(
            (Watch::HttpRoutes, http_routes()),
            index,
            move |one: DynamicObject| keep.keep_route(&one),
        );
    }

    /// Follows a kind that an installation need not have.
    fn spawn_optional<T>(
        &self,
        (what, kind): (Watch, ApiResource),
        index: &Discovery,
        keep: impl Fn(DynamicObject) -> T + Send + Sync + 'static,
    ) where
        T: Send + 'static,
        Discovery: Indexed<T>,
    {
        let mut follower = self.follower(what, index.clone());
        follower.optional = true;
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        self.tracker
            .spawn(follow_kept(api, in_pages(), keep, follower));
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

/// Linkerd's ServiceProfiles.
fn service_profiles() -> ApiResource {
    let kind = GroupVersionKind::gvk("linkerd.io", "v1alpha2", "ServiceProfile");
    ApiResource::from_gvk_with_plural(&kind, "serviceprofiles")
}

/// HTTPRoutes of the Gateway API.
fn http_routes() -> ApiResource {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    ApiResource::from_gvk_with_plural(&kind, "httproutes")
}
