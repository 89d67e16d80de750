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

/// The suite runs in parallel: whoever asks for all of them hears of none that is only just going.
pub(crate) async fn what_pods_use_is_told_while_others_come_and_go() {
    let wire = Wire::new().await;
    let stays = wire.run(wire.pod("stays")).await.unwrap();
    let come_and_go = futures::future::join_all((0..8).map(async |nth| {
        for number in 0..5 {
            let pod = wire.run(wire.pod(&format!("goes-{nth}-{number}"))).await.unwrap();
            wire.remove_pod(&pod).await.unwrap();
        }
    }));
    let ask = async || {
        loop {
            let request = cri::ListPodSandboxStatsRequest { filter: None };
            let told = wire.runtime.clone().list_pod_sandbox_stats(request).await.expect("those that are there");
            let told = told.into_inner().stats;
            assert!(told.iter().any(|own| own.attributes.as_ref().unwrap().id == stays), "{told:?}");
        }
    };
    tokio::select! {
        _ = come_and_go => {}
        _ = futures::future::join_all([ask(), ask(), ask(), ask()]) => {}
    }
    wire.close().await;
}
