//! Rollouts played round by round: plans are applied to ReplicaSets whose pods become available at once.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, plan};
use super::rollout::spec_replicas;

/// A Deployment and its ReplicaSets, without a server.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    now: i64,
    /// The image whose pods never become available.
    broken: Option<&'static str>,
}

impl World {
    fn new(replicas: i32, strategy: &Value) -> Self {
        let template = json!({ "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "v1" }] } });
        let spec = json!({ "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "template": template,
            "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2 });
        let metadata = json!({ "namespace": "default", "name": "web", "uid": "d", "generation": 1 });
        let deployment = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        Self { deployment, sets: Vec::new(), now: 1000, broken: None }
    }

    fn rolling(replicas: i32, surge: &str, unavailable: &str) -> Self {
        let limit = |text: &str| text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number));
        let limits = json!({ "maxSurge": limit(surge), "maxUnavailable": limit(unavailable) });
        Self::new(replicas, &json!({ "type": "RollingUpdate", "rollingUpdate": limits }))
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.into());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn resize(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn decide(&self) -> Plan {
        let now = Timestamp::from_second(self.now).unwrap();
        let with_pods = self.sets.iter().filter(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0));
        let with_pods = with_pods.filter_map(|set| set.metadata.uid.clone()).collect();
        plan(&self.deployment, &Observed { sets: &self.sets, with_pods, now })
    }

    /// Decides a round and carries it out; pods follow.
    fn round(&mut self) -> Plan {
        let plan = self.decide();
        self.now += 1;
        if let Some(mut set) = plan.create.clone() {
            set.metadata.uid = Some(format!("set-{}", self.now));
            set.metadata.creation_timestamp = Some(Time(Timestamp::from_second(self.now).unwrap()));
            self.sets.push(Arc::new(set));
        }
        for update in &plan.update {
            let set = self.sets.iter_mut().find(|set| set.metadata.uid == update.set.metadata.uid).unwrap();
            let set = Arc::make_mut(set);
            set.spec.as_mut().unwrap().replicas = Some(update.replicas);
            set.metadata.annotations = Some(update.annotations.clone());
        }
        self.sets.retain(|set| !plan.delete.iter().any(|deleted| deleted.metadata.uid == set.metadata.uid));
        self.deployment.status = Some(plan.status.clone());
        if let Some(revision) = &plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert("deployment.kubernetes.io/revision".into(), revision.clone());
        }
        for set in &mut self.sets {
            let image = set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0]
                .image
                .clone();
            let broken = self.broken.is_some() && self.broken == image.as_deref();
            let replicas = spec_replicas(set);
            let ready = (!broken).then_some(replicas);
            Arc::make_mut(set).status = Some(ReplicaSetStatus {
                replicas,
                ready_replicas: ready,
                available_replicas: ready,
                ..ReplicaSetStatus::default()
            });
        }
        plan
    }

    /// Rounds until nothing changes; the sizes after each round that changed some, oldest ReplicaSet first.
    fn settle(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..100 {
            let before = self.deployment.status.clone();
            let plan = self.round();
            let sizes = self.sizes();
            if seen.last() != Some(&sizes) {
                seen.push(sizes);
            }
            let idle = plan.create.is_none() && plan.update.is_empty() && plan.delete.is_empty();
            if idle && before == self.deployment.status {
                return seen;
            }
        }
        panic!("does not settle: {seen:?}");
    }

    fn sizes(&self) -> String {
        let sizes: Vec<String> = self.sets.iter().map(|set| spec_replicas(set).to_string()).collect();
        sizes.join("+")
    }

    fn condition(&self, kind: &str) -> String {
        let status = self.deployment.status.as_ref().unwrap();
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        found.map_or_else(String::new, |condition| {
            format!(
                "{} {}: {}",
                condition.status,
                condition.reason.as_deref().unwrap(),
                condition.message.as_deref().unwrap()
            )
        })
    }

    fn revision_of(&self, index: usize) -> &str {
        &self.sets[index].metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"]
    }
}

#[test]
fn a_first_rollout_creates_one_replica_set_of_full_size() {
    let mut world = World::rolling(3, "25%", "25%");
    let first = world.round().create.unwrap();
    let labels = first.metadata.labels.unwrap();
    let hash = &labels["pod-template-hash"];
    assert_eq!(first.metadata.name.unwrap(), format!("web-{hash}"));
    let spec = first.spec.unwrap();
    assert_eq!(&spec.selector.match_labels.unwrap()["pod-template-hash"], hash);
    assert_eq!(&spec.template.unwrap().metadata.unwrap().labels.unwrap()["pod-template-hash"], hash);
    assert_eq!(world.settle(), ["3"]);
    assert_eq!(world.revision_of(0), "1");
    let annotations = world.deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "1");
    let name = world.sets[0].metadata.name.clone().unwrap();
    let progressing = format!("True NewReplicaSetAvailable: ReplicaSet \"{name}\" has successfully progressed.");
    assert_eq!(world.condition("Progressing"), progressing);
    let available = "True MinimumReplicasAvailable: Deployment has minimum availability.";
    assert_eq!(world.condition("Available"), available);
}

#[test]
fn a_rolling_update_stays_within_surge_and_availability() {
    let mut world = World::rolling(4, "1", "1");
    world.settle();
    world.image("v2");
    // At most 5 pods in all, at least 3 available, in every round.
    assert_eq!(world.settle(), ["4+1", "2+1", "2+3", "0+3", "0+4"]);
    assert_eq!((world.revision_of(0), world.revision_of(1)), ("1", "2"));
}

#[test]
fn without_surge_old_pods_go_first_and_without_unavailability_new_ones_come_first() {
    let mut world = World::rolling(2, "0", "1");
    world.settle();
    world.image("v2");
    assert_eq!(world.settle(), ["2+0", "1+0", "1+1", "0+1", "0+2"]);
    let mut world = World::rolling(2, "1", "0");
    world.settle();
    world.image("v2");
    assert_eq!(world.settle(), ["2+1", "1+1", "1+2", "0+2"]);
}

#[test]
fn limits_that_both_round_to_zero_still_let_the_rollout_move() {
    let mut world = World::rolling(1, "0%", "10%");
    world.settle();
    world.image("v2");
    assert_eq!(world.settle().last().unwrap(), "0+1");
}

#[test]
fn a_broken_version_stops_the_rollout_and_times_out() {
    let mut world = World::rolling(4, "25%", "25%");
    world.settle();
    world.image("v2");
    world.broken = Some("v2");
    world.settle();
    assert_eq!(world.sizes(), "3+2");
    world.now += 1000;
    world.settle();
    let name = world.sets[1].metadata.name.clone().unwrap();
    let timed_out = format!("False ProgressDeadlineExceeded: ReplicaSet \"{name}\" has timed out progressing.");
    assert_eq!(world.condition("Progressing"), timed_out);
    assert!(world.condition("Available").starts_with("True"));
}

#[test]
fn recreate_starts_the_new_pods_only_when_the_old_ones_are_gone() {
    let mut world = World::new(3, &json!({ "type": "Recreate" }));
    world.settle();
    world.image("v2");
    assert_eq!(world.settle(), ["0", "0+3"]);
}

#[test]
fn recreate_waits_for_terminating_pods() {
    let mut world = World::new(1, &json!({ "type": "Recreate" }));
    world.settle();
    world.image("v2");
    world.round();
    let now = Timestamp::from_second(world.now).unwrap();
    let with_pods = HashSet::from([world.sets[0].metadata.uid.clone().unwrap()]);
    let waiting = plan(&world.deployment, &Observed { sets: &world.sets, with_pods, now });
    assert!(waiting.create.is_none());
}

#[test]
fn going_back_reuses_the_old_replica_set_under_a_new_revision() {
    let mut world = World::rolling(2, "1", "0");
    world.settle();
    world.image("v2");
    world.settle();
    world.image("v1");
    world.settle();
    assert_eq!(world.sizes(), "2+0");
    assert_eq!((world.revision_of(0), world.revision_of(1)), ("3", "2"));
    let history = &world.sets[0].metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision-history"];
    assert_eq!(history, "1");
}

#[test]
fn only_so_many_old_replica_sets_are_kept() {
    let mut world = World::rolling(1, "1", "0");
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(world.sizes(), "0+0+1");
    assert_eq!(world.revision_of(0), "3");
}

#[test]
fn a_paused_deployment_is_resized_but_not_rolled_out() {
    let mut world = World::rolling(2, "1", "0");
    world.settle();
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.image("v2");
    world.resize(5);
    assert_eq!(world.settle(), ["5"]);
    assert_eq!(world.condition("Progressing"), "Unknown DeploymentPaused: Deployment is paused");
    world.deployment.spec.as_mut().unwrap().paused = None;
    assert_eq!(world.settle().last().unwrap(), "0+5");
}

#[test]
fn a_resize_during_a_rollout_is_spread_in_proportion() {
    let mut world = World::rolling(10, "3", "2");
    world.settle();
    world.image("v2");
    world.broken = Some("v2");
    world.settle();
    assert_eq!(world.sizes(), "8+5");
    // The example of the Kubernetes documentation: of 5 more, 3 go to the old and 2 to the new ReplicaSet.
    world.resize(15);
    world.round();
    assert_eq!(world.sizes(), "11+7");
}

#[test]
fn a_deployment_that_is_being_deleted_only_counts() {
    let mut world = World::rolling(2, "1", "0");
    world.settle();
    world.image("v2");
    world.deployment.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let plan = world.decide();
    assert!(plan.create.is_none() && plan.update.is_empty());
    assert_eq!(plan.status.replicas, Some(2));
}

#[test]
fn sizes_and_revisions_beyond_all_measure_harm_nobody() {
    let mut world = World::rolling(i32::MAX, "100%", "25%");
    for image in ["v1", "v2", "v3"] {
        world.image(image);
        for _ in 0..4 {
            world.decide();
            for set in &mut world.sets {
                let set = Arc::make_mut(set);
                set.spec.as_mut().unwrap().replicas = Some(i32::MAX);
                let revision = ("deployment.kubernetes.io/revision".to_owned(), i64::MAX.to_string());
                set.metadata.annotations.get_or_insert_default().extend([revision]);
            }
            world.round();
        }
    }
    world.resize(1);
    world.round();
}
