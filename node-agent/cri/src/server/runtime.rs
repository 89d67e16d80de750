//! The runtime service, verb by verb. What each does is in the file of its subject.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use reeve_proto::cri::runtime_service_server::RuntimeService;
use reeve_proto::cri::{
    AttachRequest, AttachResponse, CheckpointContainerRequest, CheckpointContainerResponse, ContainerEventResponse,
    ContainerStatsRequest, ContainerStatsResponse, ContainerStatusRequest, ContainerStatusResponse,
    CreateContainerRequest, CreateContainerResponse, ExecRequest, ExecResponse, ExecSyncRequest, ExecSyncResponse,
    GetEventsRequest, ListContainerStatsRequest, ListContainerStatsResponse, ListContainersRequest,
    ListContainersResponse, ListMetricDescriptorsRequest, ListMetricDescriptorsResponse, ListPodSandboxMetricsRequest,
    ListPodSandboxMetricsResponse, ListPodSandboxRequest, ListPodSandboxResponse, ListPodSandboxStatsRequest,
    ListPodSandboxStatsResponse, PodSandboxStatsRequest, PodSandboxStatsResponse, PodSandboxStatusRequest,
    PodSandboxStatusResponse, PortForwardRequest, PortForwardResponse, RemoveContainerRequest, RemoveContainerResponse,
    RemovePodSandboxRequest, RemovePodSandboxResponse, ReopenContainerLogRequest, ReopenContainerLogResponse,
    RunPodSandboxRequest, RunPodSandboxResponse, RuntimeConfigRequest, RuntimeConfigResponse, StartContainerRequest,
    StartContainerResponse, StatusRequest, StatusResponse, StopContainerRequest, StopContainerResponse,
    StopPodSandboxRequest, StopPodSandboxResponse, StreamContainerStatsRequest, StreamContainerStatsResponse,
    StreamContainersRequest, StreamContainersResponse, StreamPodSandboxMetricsRequest, StreamPodSandboxMetricsResponse,
    StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse, StreamPodSandboxesRequest, StreamPodSandboxesResponse,
    UpdateContainerResourcesRequest, UpdateContainerResourcesResponse, UpdatePodSandboxResourcesRequest,
    UpdatePodSandboxResourcesResponse, UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse, VersionRequest,
    VersionResponse,
};
use tonic::{Request, Response};

use super::error::Answer;
use super::{Shared, metrics};

/// Items in one message of a stream.
const PIECE: usize = 100;

/// The service.
pub(super) struct Runtime(pub(super) Arc<Shared>);

/// A list as a stream of messages, none of which is large.
pub(super) fn pieces<T, M>(all: Vec<T>, message: fn(Vec<T>) -> M) -> BoxStream<'static, Answer<M>>
where
    T: Send + 'static,
    M: Send + 'static,
{
    futures::stream::iter(all).chunks(PIECE).map(move |piece| Ok(message(piece))).boxed()
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<Response<VersionResponse>> {
        Ok(Response::new(self.0.about()))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<Response<RunPodSandboxResponse>> {
        let pod_sandbox_id = self.0.run_pod_sandbox(request.into_inner()).await?;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<Response<StopPodSandboxResponse>> {
        self.0.stop_pod_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<Response<RemovePodSandboxResponse>> {
        self.0.remove_pod_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<Response<PodSandboxStatusResponse>> {
        self.0.pod_sandbox_status(request.into_inner()).await.map(Response::new)
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<Response<ListPodSandboxResponse>> {
        let items = self.0.list_sandboxes(request.into_inner().filter).await?;
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = BoxStream<'static, Answer<StreamPodSandboxesResponse>>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Response<Self::StreamPodSandboxesStream>> {
        let all = self.0.list_sandboxes(request.into_inner().filter).await?;
        Ok(Response::new(pieces(all, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes })))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<Response<CreateContainerResponse>> {
        let container_id = self.0.create_container(request.into_inner()).await?;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<Response<StartContainerResponse>> {
        self.0.start_container(&request.into_inner().container_id).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<Response<StopContainerResponse>> {
        self.0.stop_container(request.into_inner()).await?;
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<Response<RemoveContainerResponse>> {
        self.0.remove_container(&request.into_inner().container_id).await?;
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<Response<ListContainersResponse>> {
        let containers = self.0.list_containers(request.into_inner().filter).await?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    type StreamContainersStream = BoxStream<'static, Answer<StreamContainersResponse>>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Response<Self::StreamContainersStream>> {
        let all = self.0.list_containers(request.into_inner().filter).await?;
        Ok(Response::new(pieces(all, |containers| StreamContainersResponse { containers })))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<Response<ContainerStatusResponse>> {
        self.0.container_status(request.into_inner()).await.map(Response::new)
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<Response<UpdateContainerResourcesResponse>> {
        self.0.update_resources(request.into_inner()).await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<Response<ReopenContainerLogResponse>> {
        self.0.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<Response<ExecSyncResponse>> {
        self.0.exec_sync(request.into_inner()).await.map(Response::new)
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<Response<ExecResponse>> {
        let url = self.0.exec(request.into_inner()).await?;
        Ok(Response::new(ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<Response<AttachResponse>> {
        let url = self.0.attach(request.into_inner()).await?;
        Ok(Response::new(AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<Response<PortForwardResponse>> {
        let url = self.0.port_forward(request.into_inner()).await?;
        Ok(Response::new(PortForwardResponse { url }))
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<Response<ContainerStatsResponse>> {
        let stats = self.0.container_stats(&request.into_inner().container_id).await?;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<Response<ListContainerStatsResponse>> {
        let stats = self.0.list_container_stats(request.into_inner().filter).await?;
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = BoxStream<'static, Answer<StreamContainerStatsResponse>>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Response<Self::StreamContainerStatsStream>> {
        let all = self.0.list_container_stats(request.into_inner().filter).await?;
        Ok(Response::new(pieces(all, |container_stats| StreamContainerStatsResponse { container_stats })))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Answer<Response<PodSandboxStatsResponse>> {
        let stats = self.0.pod_sandbox_stats(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<Response<ListPodSandboxStatsResponse>> {
        let stats = self.0.list_sandbox_stats(request.into_inner().filter).await?;
        Ok(Response::new(ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = BoxStream<'static, Answer<StreamPodSandboxStatsResponse>>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Response<Self::StreamPodSandboxStatsStream>> {
        let all = self.0.list_sandbox_stats(request.into_inner().filter).await?;
        Ok(Response::new(pieces(all, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats })))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<Response<UpdateRuntimeConfigResponse>> {
        // The pods' range, which is the network configuration's own business here.
        tracing::debug!(config = ?request.into_inner().runtime_config, "the runtime's configuration is told");
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<Response<StatusResponse>> {
        Ok(Response::new(self.0.status(request.into_inner().verbose)))
    }

    async fn checkpoint_container(
        &self,
        request: Request<CheckpointContainerRequest>,
    ) -> Answer<Response<CheckpointContainerResponse>> {
        self.0.checkpoint(request.into_inner()).await?;
        Ok(Response::new(CheckpointContainerResponse {}))
    }

    type GetContainerEventsStream = BoxStream<'static, Answer<ContainerEventResponse>>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Response<Self::GetContainerEventsStream>> {
        Ok(Response::new(self.0.follow_events()))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<Response<ListMetricDescriptorsResponse>> {
        Ok(Response::new(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<Response<ListPodSandboxMetricsResponse>> {
        Ok(Response::new(ListPodSandboxMetricsResponse { pod_metrics: self.0.pod_metrics().await? }))
    }

    type StreamPodSandboxMetricsStream = BoxStream<'static, Answer<StreamPodSandboxMetricsResponse>>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Response<Self::StreamPodSandboxMetricsStream>> {
        let all = self.0.pod_metrics().await?;
        Ok(Response::new(pieces(all, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics })))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<Response<RuntimeConfigResponse>> {
        Ok(Response::new(Shared::runtime_config()))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<Response<UpdatePodSandboxResourcesResponse>> {
        self.0.update_sandbox_resources(request.into_inner()).await?;
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }
}
