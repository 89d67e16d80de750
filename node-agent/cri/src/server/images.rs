//! Images.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use reeve_engine::engine::EngineError;
use reeve_proto::cri::image_service_server::ImageService;
use reeve_proto::cri::{
    ImageFilter, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec, ImageStatusRequest, ImageStatusResponse,
    ListImagesRequest, ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest,
    RemoveImageResponse, StreamImagesRequest, StreamImagesResponse,
};
use tonic::{Request, Response, Status};

use super::error::{self, Answer};
use super::runtime::pieces;
use super::{Shared, information};
use crate::convert::{image, stats};

/// The service.
pub(super) struct Images(pub(super) Arc<Shared>);

impl Images {
    async fn list(&self, filter: Option<ImageFilter>) -> Answer<Vec<reeve_proto::cri::Image>> {
        let wanted = filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        let found = if wanted.is_empty() {
            self.0.engine.list_images().await
        } else {
            self.0.engine.image_status(&wanted).await.map(|found| found.into_iter().collect())
        };
        Ok(found.map_err(error::engine)?.iter().map(image::to_cri).collect())
    }

    /// Removes an image with all its names, whichever of them is given: so CRI has it.
    async fn remove(&self, name: &str) -> Answer<()> {
        let engine = &self.0.engine;
        let Some(found) = engine.image_status(name).await.map_err(error::engine)? else { return Ok(()) };
        match engine.remove_image(&found.id).await {
            // Gone meanwhile.
            Ok(()) | Err(EngineError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error::of(&error)),
        }
    }
}

/// The name in a request.
fn named(spec: Option<ImageSpec>) -> Answer<String> {
    let name = spec.map(|spec| spec.image).unwrap_or_default();
    if name.is_empty() { Err(Status::invalid_argument("the image has no name")) } else { Ok(name) }
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<Response<ListImagesResponse>> {
        let images = self.list(request.into_inner().filter).await?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    type StreamImagesStream = BoxStream<'static, Answer<StreamImagesResponse>>;

    async fn stream_images(&self, request: Request<StreamImagesRequest>) -> Answer<Response<Self::StreamImagesStream>> {
        let images = self.list(request.into_inner().filter).await?;
        Ok(Response::new(pieces(images, |images| StreamImagesResponse { images })))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<Response<ImageStatusResponse>> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let found = self.0.engine.image_status(&name).await.map_err(error::engine)?;
        let mut info = HashMap::new();
        if let Some(found) = found.as_ref().filter(|_| request.verbose) {
            let document = self.0.engine.image_config(&found.id).await.map_err(error::engine)?;
            info = document.as_ref().map(information::of_image).map(|own| information::told(&own)).unwrap_or_default();
        }
        Ok(Response::new(ImageStatusResponse { image: found.as_ref().map(image::to_cri), info }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<Response<PullImageResponse>> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let auth = image::auth(request.auth.as_ref()).map_err(error::refused)?;
        let pulled = self.0.engine.pull_image(&name, auth).await.map_err(error::engine)?;
        Ok(Response::new(PullImageResponse { image_ref: pulled.id }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<Response<RemoveImageResponse>> {
        self.remove(&named(request.into_inner().image)?).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<Response<ImageFsInfoResponse>> {
        let usage = self.0.engine.image_fs_usage().await.map_err(error::engine)?;
        // Containers' own files lie in the same folder.
        let all = vec![stats::folder(&usage, self.0.now())];
        Ok(Response::new(ImageFsInfoResponse { image_filesystems: all.clone(), container_filesystems: all }))
    }
}
