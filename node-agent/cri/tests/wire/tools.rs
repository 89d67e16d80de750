//! What `critest` and `crictl` ask for beyond what a kubelet does, and what they make of the answers.

use std::path::Path;

use reeve_proto::cri;

use crate::bed::eventually;
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

/// `crictl inspect … | jq .info`: what stands there under containerd's names is true.
pub(crate) async fn what_crictl_shows_besides_is_where_scripts_look_for_it() {
    let wire = Wire::new().await;
    let pod = wire.run(wire.pod("web")).await.unwrap();
    let id = wire.started(&pod, script("app", "echo there > /made; exec sleep 1000")).await;
    let of = |info: &std::collections::HashMap<String, String>, name: &str| -> serde_json::Value {
        serde_json::from_str(&info[name]).unwrap()
    };
    let request = cri::ContainerStatusRequest { container_id: id.clone(), verbose: true };
    let told = wire.runtime.clone().container_status(request).await.unwrap().into_inner().info;
    let told = of(&told, "info");
    assert!(told["pid"].as_i64().unwrap() > 1 && told["snapshotKey"] == id.as_str(), "{told:#}");
    let first = told["pid"].clone();
    let made = Path::new(told["runtimeSpec"]["root"]["path"].as_str().unwrap()).join("made");
    eventually("the root is the container's", || made.exists()).await;
    assert_eq!(told["runtimeSpec"]["process"]["args"][0], "sh");
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
    let told = wire.runtime.clone().pod_sandbox_status(request).await.unwrap().into_inner().info;
    let told = of(&told, "info");
    assert_eq!(told["pid"], first, "whoever enters it enters the pod");
    let namespaces = told["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap().clone();
    let network = namespaces.iter().find(|own| own["type"] == "network").expect("it has one");
    assert!(Path::new(network["path"].as_str().unwrap()).exists(), "{told:#}");
    let request = cri::ImageStatusRequest { image: Some(spec(IMAGE)), verbose: true };
    let told = wire.images.clone().image_status(request).await.unwrap().into_inner().info;
    let told = of(&told, "info");
    assert_eq!(told["imageSpec"]["os"], "linux", "{told:#}");
    assert_eq!(told["chainID"], told["imageSpec"]["rootfs"]["diff_ids"][0], "of one layer");
    let request = cri::StatusRequest { verbose: true };
    let told = wire.runtime.clone().status(request).await.unwrap().into_inner().info;
    assert!(Path::new(of(&told, "config")["stateDir"].as_str().unwrap()).is_dir(), "{told:#?}");
    assert_eq!(told["lastCNILoadStatus"], "cni plugin not initialized");
    assert!(of(&told, "cniconfig")["Networks"].as_array().unwrap().is_empty());
    wire.close().await;
}
