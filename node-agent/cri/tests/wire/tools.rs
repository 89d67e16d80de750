//! What `critest` and `crictl` ask for beyond what a kubelet does, and what they make of the answers.

use reeve_proto::cri;

use crate::words::{IMAGE, Wire, script, spec};

pub(crate) async fn a_container_tells_which_image_it_shows() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let image = wire.image(IMAGE).await.unwrap().id;
    let shown = cri::Mount {
        container_path: "/shown".to_owned(),
        readonly: true,
        image: Some(cri::ImageSpec { user_specified_image: IMAGE.to_owned(), ..spec(IMAGE) }),
        ..cri::Mount::default()
    };
    let config = cri::ContainerConfig { mounts: vec![shown.clone()], ..script("app", "true") };
    let id = wire.create(&pod, config).await.unwrap();
    let told = wire.status(&id).await.unwrap().mounts;
    let wanted = cri::Mount { image: shown.image.map(|own| cri::ImageSpec { image_ref: image, ..own }), ..shown };
    assert_eq!(told, [wanted]);
    wire.close().await;
}
