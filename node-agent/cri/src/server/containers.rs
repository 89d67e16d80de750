//! Containers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use reeve_engine::engine::{Container, ContainerState};
use reeve_engine::runtime::cdi;
use reeve_proto::cri::{
    CheckpointContainerRequest, Container as Listed, ContainerEventType, ContainerFilter, ContainerStatus,
    ContainerStatusRequest, ContainerStatusResponse, CreateContainerRequest, StopContainerRequest,
    UpdateContainerResourcesRequest,
};
use tonic::Status;

use super::error::{self, Answer};
use super::sandboxes::only;
use super::{Shared, files, information};
use crate::convert::{self, container, resources};

impl Shared {
    pub(super) async fn create_container(&self, request: CreateContainerRequest) -> Answer<String> {
        let pod = self.sandbox(&request.pod_sandbox_id).await?;
        let mut config = container::to_engine(&request, &pod.config.log_dir).map_err(error::refused)?;
        container::check_mappings(&request, pod.config.user_namespace).map_err(error::refused)?;
        if config.security.privileged && !pod.config.privileged {
            return Err(Status::invalid_argument("no privileged container allowed in sandbox"));
        }
        // What is masked protects the node: where a pod has users of its own, a kubelet that says nothing means nothing
        // (`procMount: Unmasked`). From others nothing said is the default, as with other runtimes.
        let says_nothing = config.security.masked_paths.is_none() && config.security.read_only_paths.is_none();
        config.security.unmasked_proc = says_nothing && pod.config.user_namespace.is_some();
        // As with containerd and CRI-O, whoever may use this socket may name a checkpoint by its place on the node.
        let place = Path::new(&config.image);
        if place.is_absolute() && place.is_file() {
            config.checkpoint = Some(place.to_owned());
        } else {
            // By its id from now on: a name may become another image's.
            let image = self.engine.image_status(&config.image).await.map_err(error::engine)?;
            let image = image.ok_or_else(|| Status::not_found(format!("image {:?}: not found", config.image)))?;
            config.image = image.id;
        }
        for source in config.mounts.iter_mut().filter_map(|mount| mount.image.as_mut()) {
            // What is not here the engine refuses.
            if let Some(shown) = self.engine.image_status(&source.image).await.map_err(error::engine)? {
                source.image = shown.id;
            }
        }
        if let Some(target) = &config.pid_of {
            config.pid_of = Some(self.target(target, &pod.id).await?);
        }
        files::make_sources(&config.mounts).map_err(Status::unknown)?;
        // After it: what their files name must be there.
        let devices = container::cdi_devices(&request);
        cdi::inject(&self.cdi_dirs, &devices, &mut config).map_err(|error| Status::unknown(error.to_string()))?;
        let read_only = config.security.read_only_rootfs;
        files::add_mounts(&files::dir(&self.dir, &pod.id), &mut config.mounts, read_only);
        let id = self.engine.create_container(&pod.id, config).await.map_err(error::engine)?;
        let made = self.engine.container_status(&id).await.map_err(error::engine)?;
        self.tell_of_container(&made, ContainerEventType::ContainerCreatedEvent).await;
        Ok(id)
    }

    /// The container whose processes another one is to see.
    async fn target(&self, id: &str, sandbox: &str) -> Answer<String> {
        let target = self.container(id).await?;
        if target.sandbox != sandbox {
            let target = target.id;
            return Err(Status::invalid_argument(format!("container {target:?} is not in sandbox {sandbox:?}")));
        }
        match target.state {
            ContainerState::Running { .. } => Ok(target.id),
            _ => Err(Status::failed_precondition(format!("container {:?} is not running", target.id))),
        }
    }

    pub(super) async fn start_container(&self, id: &str) -> Answer<()> {
        let found = self.container(id).await?;
        self.engine.start_container(&found.id).await.map_err(error::engine)
    }

    pub(super) async fn stop_container(&self, request: StopContainerRequest) -> Answer<()> {
        let Some(found) = self.find_container(&request.container_id).await? else { return Ok(()) };
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        self.engine.stop_container(&found.id, grace).await.map_err(error::engine)
    }

    pub(super) async fn remove_container(&self, id: &str) -> Answer<()> {
        let Some(found) = self.find_container(id).await? else { return Ok(()) };
        self.engine.remove_container(&found.id).await.map_err(error::engine)?;
        self.forget(&found.id);
        self.tell_of_container(&found, ContainerEventType::ContainerDeletedEvent).await;
        Ok(())
    }

    pub(super) async fn list_containers(&self, filter: Option<ContainerFilter>) -> Answer<Vec<Listed>> {
        let filter = filter.unwrap_or_default();
        let all = self.engine.list_containers().await.map_err(error::engine)?;
        let wanted = all.iter().filter(|own| {
            own.id.starts_with(&filter.id)
                && own.sandbox.starts_with(&filter.pod_sandbox_id)
                && filter.state.is_none_or(|wanted| wanted.state() == container::state(&own.state))
        });
        let listed = wanted.map(container::listed);
        Ok(listed.filter(|own| convert::selects(&filter.label_selector, &own.labels)).collect())
    }

    pub(super) async fn container_status(&self, request: ContainerStatusRequest) -> Answer<ContainerStatusResponse> {
        let found = self.container(&request.container_id).await?;
        let info = if request.verbose { self.about_container(&found).await? } else { HashMap::new() };
        Ok(ContainerStatusResponse { status: Some(self.status_with_image(&found).await?), info })
    }

    /// What a person wants to know besides.
    async fn about_container(&self, own: &Container) -> Answer<HashMap<String, String>> {
        let pod = self.find_sandbox(&own.sandbox).await?;
        let image = self.engine.image_config(&own.config.image).await.map_err(error::engine)?;
        Ok(information::told(&information::of_container(own, pod.as_ref(), image.as_ref())))
    }

    /// A container with the name of its image, as long as that has one.
    pub(super) async fn status_with_image(&self, own: &Container) -> Answer<ContainerStatus> {
        let image = self.engine.image_status(&own.config.image).await.map_err(error::engine)?;
        let name = image.and_then(|image| image.tags.into_iter().chain(image.digests).next());
        Ok(container::status(own, name))
    }

    /// All containers of a sandbox, the newest first: of several with one name a kubelet takes the first for the one
    /// that counts.
    pub(super) async fn statuses_of(&self, sandbox: &str) -> Answer<Vec<ContainerStatus>> {
        let mut all = self.engine.list_containers().await.map_err(error::engine)?;
        all.retain(|own| own.sandbox == sandbox);
        all.sort_by_key(|own| std::cmp::Reverse(own.created_at));
        let mut statuses = Vec::with_capacity(all.len());
        for own in &all {
            statuses.push(self.status_with_image(own).await?);
        }
        Ok(statuses)
    }

    pub(super) async fn update_resources(&self, request: UpdateContainerResourcesRequest) -> Answer<()> {
        let found = self.container(&request.container_id).await?;
        request.linux.as_ref().map_or(Ok(()), resources::check).map_err(error::refused)?;
        let change = request.linux.as_ref().map(resources::to_change).unwrap_or_default();
        let updated = self.engine.update_container_resources(&found.id, change, BTreeMap::new()).await;
        updated.map_err(error::engine)
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Answer<()> {
        let found = self.container(id).await?;
        self.engine.reopen_container_log(&found.id).await.map_err(error::engine)
    }

    pub(super) async fn checkpoint(&self, request: CheckpointContainerRequest) -> Answer<()> {
        let found = self.container(&request.container_id).await?;
        let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let made = self.engine.checkpoint_container(&found.id, Path::new(&request.location), timeout).await;
        made.map_err(error::engine)
    }

    /// A container by its id or an unambiguous beginning of it.
    pub(super) async fn container(&self, id: &str) -> Answer<Container> {
        let found = self.find_container(id).await?;
        let missing = || Status::not_found(format!("an error occurred when try to find container {id:?}: not found"));
        found.ok_or_else(missing)
    }

    pub(super) async fn find_container(&self, id: &str) -> Answer<Option<Container>> {
        let all = self.engine.list_containers().await.map_err(error::engine)?;
        only(all, id, |own| &own.id)
    }
}
