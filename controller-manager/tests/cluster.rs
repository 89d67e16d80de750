//! Controllers and scheduler against the real API server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, ReplicationController, ResourceQuota, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::{Cluster, eventually, object};

fn deployment(replicas: i32, image: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": {
        "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
        "template": { "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": image, "ports": [{ "name": "http", "containerPort": 80 }] }] } } } })
}

async fn available(cluster: &Cluster, replicas: i32) -> Deployment {
    eventually(&format!("{replicas} replicas available"), || async {
        let deployment = cluster.api::<Deployment>().get("web").await.ok()?;
        let status = deployment.status.clone()?;
        let all = [status.replicas, status.updated_replicas, status.available_replicas];
        let done = all.iter().all(|count| count.unwrap_or(0) == replicas)
            && status.observed_generation == deployment.metadata.generation;
        done.then_some(deployment)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_pods_that_a_service_leads_to() {
    let cluster = Cluster::start().await;
    let ports = json!([{ "port": 80, "targetPort": "http" }]);
    let spec = json!({ "selector": { "app": "web" }, "ports": ports });
    let metadata = json!({ "name": "web" });
    cluster
        .create::<Service>(json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec }))
        .await;
    let start = tokio::time::Instant::now();
    cluster.create::<Deployment>(deployment(50, "v1")).await;
    let deployment = available(&cluster, 50).await;
    println!("50 pods of a Deployment ready, without containers: {:?}", start.elapsed());
    assert_eq!(deployment.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "1");
    assert_eq!(deployment.metadata.generation, Some(1));
    eventually("50 ready endpoints in slices", || async {
        let slices = cluster
            .api::<EndpointSlice>()
            .list(&ListParams::default().labels("kubernetes.io/service-name=web"))
            .await
            .ok()?;
        let ready = slices.items.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = ready.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|own| own.ready == Some(true)));
        (ready.count() == 50).then_some(())
    })
    .await;
    eventually("50 addresses in the Endpoints object", || async {
        let subsets = cluster.api::<Endpoints>().get("web").await.ok()?.subsets?;
        let addresses: usize = subsets.iter().map(|subset| subset.addresses.as_ref().map_or(0, Vec::len)).sum();
        (addresses == 50).then_some(())
    })
    .await;
    eventually("events in Kubernetes' words", || async {
        let events = cluster.api::<Event>().list(&ListParams::default()).await.ok()?.items;
        let has = |reason: &str, text: &str| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().is_some_and(|message| message.contains(text))
            })
        };
        let all = has("ScalingReplicaSet", "Scaled up replica set web-")
            && has("SuccessfulCreate", "Created pod: web-")
            && has("Scheduled", "Successfully assigned default/web-");
        all.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_can_be_rolled_back_and_its_history_is_kept() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment(3, "v1")).await;
    available(&cluster, 3).await;
    let set_image = async |image: &str| {
        let patch = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } });
        let deployments = cluster.api::<Deployment>();
        deployments.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
        available(&cluster, 3).await
    };
    set_image("v2").await;
    let back = set_image("v1").await;
    assert_eq!(back.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "3");
    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 2);
    let pods = eventually("the old pods are gone", || async {
        let pods = cluster.api::<Pod>().list(&ListParams::default()).await.ok()?.items;
        (pods.len() == 3).then_some(pods)
    })
    .await;
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
    assert!(pods.iter().all(|pod| image(pod).as_deref() == Some("v1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_deployment_deletes_what_it_owns_unless_it_is_to_be_orphaned() {
    let cluster = Cluster::start().await;
    let deployments = cluster.api::<Deployment>();
    let sets = cluster.api::<ReplicaSet>();
    for parameters in [DeleteParams::background(), DeleteParams::foreground()] {
        cluster.create::<Deployment>(deployment(2, "v1")).await;
        available(&cluster, 2).await;
        deployments.delete("web", &parameters).await.unwrap();
        eventually("everything is gone", || async {
            let gone = deployments.get_opt("web").await.ok()?.is_none()
                && sets.list(&ListParams::default()).await.ok()?.items.is_empty()
                && cluster.api::<Pod>().list(&ListParams::default()).await.ok()?.items.is_empty();
            gone.then_some(())
        })
        .await;
    }
    cluster.create::<Deployment>(deployment(2, "v1")).await;
    available(&cluster, 2).await;
    deployments.delete("web", &DeleteParams::orphan()).await.unwrap();
    let set = eventually("the replica set is let go", || async {
        let set = sets.list(&ListParams::default()).await.ok()?.items.pop()?;
        let alone = set.metadata.owner_references.as_ref().is_none_or(Vec::is_empty);
        (alone && deployments.get_opt("web").await.ok()?.is_none()).then_some(set)
    })
    .await;
    assert_eq!(cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items.len(), 2);
    // A new Deployment of the same selector adopts it.
    cluster.create::<Deployment>(deployment(2, "v1")).await;
    available(&cluster, 2).await;
    let adopted = sets.get(&set.metadata.name.unwrap()).await.unwrap();
    assert_eq!(adopted.metadata.owner_references.unwrap()[0].kind, "Deployment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_namespace_deletes_what_is_in_it() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.create(&PostParams::default(), &object(json!({ "metadata": { "name": "shop" } }))).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "shop");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    eventually("a default account and the root CA", || async {
        let account = accounts.get_opt("default").await.ok()?;
        account.zip(maps.get_opt("kube-root-ca.crt").await.ok()?)
    })
    .await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "shop");
    deployments.create(&PostParams::default(), &object(deployment(3, "v1"))).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    eventually("pods run", || async { (pods.list(&ListParams::default()).await.ok()?.items.len() == 3).then_some(()) })
        .await;
    let kept = json!({ "metadata": { "name": "kept", "finalizers": ["example.com/keep"] } });
    maps.create(&PostParams::default(), &object(kept)).await.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    eventually("the namespace says what is in the way", || async {
        let status = namespaces.get("shop").await.ok()?.status?;
        let remaining =
            status.conditions?.into_iter().find(|condition| condition.type_ == "NamespaceFinalizersRemaining")?;
        remaining.message?.contains("example.com/keep in 1 resource instances").then_some(())
    })
    .await;
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("kept", &PatchParams::default(), &patch).await.unwrap();
    eventually("the namespace is gone", || async { namespaces.get_opt("shop").await.ok()?.is_none().then_some(()) })
        .await;
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_runs_when_there_is_room() {
    let cluster = Cluster::start().await;
    eventually("the default account", || async { cluster.api::<ServiceAccount>().get_opt("default").await.ok()? })
        .await;
    let resources = json!({ "requests": { "cpu": "7" } });
    let spec = json!({ "containers": [{ "name": "c", "image": "i", "resources": resources }] });
    let pod = |name: &str| json!({ "metadata": { "name": name }, "spec": spec });
    cluster.create::<Pod>(pod("first")).await;
    let pods = cluster.api::<Pod>();
    let bound = |name: &'static str| {
        let pods = pods.clone();
        async move { pods.get(name).await.ok()?.spec?.node_name }
    };
    eventually("the first pod is bound", || bound("first")).await;
    cluster.create::<Pod>(pod("second")).await;
    let words = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                 1 No preemption victims found for incoming pod.";
    eventually("the second pod says why it waits", || async {
        let conditions = pods.get("second").await.ok()?.status?.conditions?;
        let scheduled = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")?;
        (scheduled.reason.as_deref() == Some("Unschedulable") && scheduled.message.as_deref() == Some(words))
            .then_some(())
    })
    .await;
    pods.delete("first", &DeleteParams::default()).await.unwrap();
    eventually("the second pod is bound", || bound("second")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_its_pod_range_and_loses_its_taints_when_it_is_ready() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually("a range and no taints", || async {
        let spec = nodes.get("n1").await.ok()?.spec?;
        (spec.pod_cidr.as_deref() == Some("10.42.0.0/24") && spec.taints.is_none_or(|taints| taints.is_empty()))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_from_another_namespace_makes_no_owner_absent_for_its_own_dependents() {
    let cluster = Cluster::start().await;
    let owner: ConfigMap = cluster.create(json!({ "metadata": { "name": "owner" } })).await;
    let uid = owner.metadata.uid.unwrap();
    let reference =
        |name: &str, uid: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid });
    let elsewhere: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-public");
    let stranger = json!({ "metadata": { "name": "stranger", "ownerReferences": [reference("owner", &uid)] } });
    elsewhere.create(&PostParams::default(), &object(stranger)).await.unwrap();
    eventually("the stranger is collected", || async {
        elsewhere.get_opt("stranger").await.ok()?.is_none().then_some(())
    })
    .await;
    let words = format!(
        "ownerRef [v1/ConfigMap, namespace: kube-public, name: owner, uid: {uid}] does not exist in namespace \"kube-public\""
    );
    eventually("an event says why", || async {
        let events: Api<Event> = Api::namespaced(cluster.client.clone(), "kube-public");
        let events = events.list(&ListParams::default()).await.ok()?.items;
        let found = events.iter().any(|event| {
            event.reason.as_deref() == Some("OwnerRefInvalidNamespace") && event.message.as_deref() == Some(&*words)
        });
        found.then_some(())
    })
    .await;
    // The second reference makes the collector look at both.
    let references = json!([reference("owner", &uid), reference("ghost", "no-such-uid")]);
    cluster.create::<ConfigMap>(json!({ "metadata": { "name": "own", "ownerReferences": references } })).await;
    let owners = eventually("the collector has looked", || async {
        let Some(own) = cluster.api::<ConfigMap>().get_opt("own").await.ok()? else { return Some(0) };
        let owners = own.metadata.owner_references.unwrap_or_default().len();
        (owners < 2).then_some(owners)
    })
    .await;
    assert_eq!(owners, 1, "the dependent keeps the owner that is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_the_cluster_does_not_hold_up_the_deletion_of_an_owner_in_a_namespace() {
    let cluster = Cluster::start().await;
    let owner: ConfigMap = cluster.create(json!({ "metadata": { "name": "owner" } })).await;
    let reference = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
        "blockOwnerDeletion": true });
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = json!({ "metadata": { "name": "n2", "ownerReferences": [reference] } });
    nodes.create(&PostParams::default(), &object(node)).await.unwrap();
    let maps = cluster.api::<ConfigMap>();
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    eventually("the owner is gone", || async { maps.get_opt("owner").await.ok()?.is_none().then_some(()) }).await;
    assert!(nodes.get_opt("n2").await.unwrap().is_some(), "a reference that means nothing deletes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_keeps_its_pods_and_leaves_them_when_it_goes() {
    let cluster = Cluster::start().await;
    let template = json!({ "metadata": { "labels": { "app": "rc" } }, "spec": { "containers": [{ "name": "c", "image": "v1" }] } });
    let spec = json!({ "replicas": 2, "selector": { "app": "rc" }, "template": template });
    cluster
        .create::<ReplicationController>(
            json!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "rc" }, "spec": spec }),
        )
        .await;
    let owned = || async {
        let pods = cluster.api::<Pod>().list(&ListParams::default().labels("app=rc")).await.ok()?.items;
        let owner = |pod: &Pod| pod.metadata.owner_references.as_ref().map(|owners| owners[0].kind.clone());
        (pods.len() == 2 && pods.iter().all(|pod| owner(pod).as_deref() == Some("ReplicationController"))).then_some(())
    };
    eventually("two pods of the controller", owned).await;
    eventually("the controller's status", || async {
        let status = cluster.api::<ReplicationController>().get("rc").await.ok()?.status?;
        (status.replicas == 2 && status.ready_replicas == Some(2)).then_some(())
    })
    .await;
    // What Kubernetes does with ReplicationControllers when nothing is said: the pods stay.
    cluster.api::<ReplicationController>().delete("rc", &DeleteParams::default()).await.unwrap();
    eventually("pods without an owner", || async {
        let pods = cluster.api::<Pod>().list(&ListParams::default().labels("app=rc")).await.ok()?.items;
        let gone = cluster.api::<ReplicationController>().get_opt("rc").await.ok()?.is_none();
        (gone && pods.len() == 2 && pods.iter().all(|pod| pod.metadata.owner_references.is_none())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disruption_budget_counts_healthy_pods_of_a_deployment() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment(3, "v1")).await;
    available(&cluster, 3).await;
    let spec = json!({ "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } });
    cluster
        .create::<PodDisruptionBudget>(
            json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b" }, "spec": spec }),
        )
        .await;
    eventually("one disruption allowed", || async {
        let status = cluster.api::<PodDisruptionBudget>().get("b").await.ok()?.status?;
        let counts = [status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed];
        (counts == [Some(3), Some(2), Some(3), Some(1)]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_says_what_is_used_and_follows_what_is_deleted() {
    let cluster = Cluster::start().await;
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" } });
    cluster.create::<Secret>(secret.clone()).await;
    let hard = json!({ "secrets": "5", "pods": "3", "count/deployments.apps": "1" });
    let quota =
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": hard } });
    cluster.create::<ResourceQuota>(quota).await;
    let used = |secrets: &'static str| {
        let api = cluster.api::<ResourceQuota>();
        move || {
            let api = api.clone();
            async move {
                let used = api.get("q").await.ok()?.status?.used?;
                let of = |name: &str| used.get(name).map(|amount| amount.0.clone());
                let all = [of("secrets"), of("pods"), of("count/deployments.apps")];
                (all == [Some(secrets.to_owned()), Some("0".to_owned()), Some("0".to_owned())]).then_some(())
            }
        }
    };
    eventually("one secret counted", used("1")).await;
    cluster.api::<Secret>().delete("s", &DeleteParams::default()).await.unwrap();
    eventually("no secret counted", used("0")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_role_that_is_labelled_so_is_part_of_view_edit_and_admin() {
    let cluster = Cluster::start().await;
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let resources = |name: &'static str| {
        let roles = roles.clone();
        async move {
            let rules = roles.get(name).await.ok()?.rules.unwrap_or_default();
            Some(rules.into_iter().flat_map(|rule| rule.resources.unwrap_or_default()).collect::<Vec<_>>())
        }
    };
    let has = |name: &'static str, resource: &'static str| {
        let resources = resources(name);
        async move { resources.await?.iter().any(|own| own == resource).then_some(()) }
    };
    eventually("view has what it had built in", || has("view", "pods")).await;
    eventually("admin has it through edit", || has("admin", "pods")).await;
    let own: ClusterRole = object(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "things", "labels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } },
        "rules": [{ "apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"] }],
    }));
    roles.create(&PostParams::default(), &own).await.unwrap();
    for name in ["view", "edit", "admin"] {
        eventually(name, || has(name, "things")).await;
    }
    let view = roles.get("view").await.unwrap();
    let managers: Vec<String> =
        view.metadata.managed_fields.iter().flatten().flat_map(|own| own.manager.clone()).collect();
    assert_eq!(managers, ["clusterrole-aggregation-controller", "kube-apiserver"]);
    roles.delete("things", &DeleteParams::default()).await.unwrap();
    for name in ["view", "edit", "admin"] {
        eventually(name, || async { (!resources(name).await?.iter().any(|own| own == "things")).then_some(()) }).await;
    }
}
