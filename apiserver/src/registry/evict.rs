//! `pods/NAME/eviction`: a deletion of a pod that asks its PodDisruptionBudget first.
//!
//! Source: Kubernetes' `registry/core/pod/storage/eviction.go`.

use reeve_kinds::Part;
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Value, json};

use super::answer::{Object, Written};
use super::budget::{self, Verdict};
use super::request::{Body, Options, Request, Subresource};
use super::{Registry, TransientPart, deletion, encode, meta};
use crate::admission;
use crate::status::{self, ApiError};

/// How often an eviction is tried on newer and newer states of the pod, and of the budget.
const ATTEMPTS_MAX: u32 = 20;

/// Evictions are asked for in this version, too.
const OLD_VERSION: &str = "policy/v1beta1";

impl Registry {
    pub(super) async fn evict(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        let part = TransientPart { means_object: false, ..Self::body_of("eviction", "Eviction")? };
        let mut attributes = self.begin_transient(request, part, in_one_version(body)).await?;
        let asked = judge(request, &mut attributes.object)?;
        admission::validate(self, &attributes).await?;
        let pod = Request { subresource: Subresource::None, options: Options::default(), ..request.clone() };
        let Some(guarded) = self.evict_unguarded(&pod, &asked).await? else { return Ok(evicted()) };
        let object = encode::bare(&guarded);
        let budgets = self.budgets_of(&pod, &object).await?;
        let (mut options, mut budget) = (asked.clone(), "");
        match budgets.as_slice() {
            [] => {}
            [one] => {
                budget = &one.name;
                if self.ask_budget(one, &object, asked.dry_run).await? == Verdict::OnlyUnready {
                    // The pod must not have become ready meanwhile.
                    options.preconditions.resource_version = Some(guarded.revision.to_string());
                }
            }
            _ => return Ok(undecidable()),
        }
        match self.mark_and_delete(&pod, options).await {
            Err(error)
                if error.is_conflict() && !budget.is_empty() && asked.preconditions.resource_version.is_none() =>
            {
                Err(budget::still_being_processed(budget))
            }
            Err(error) => Err(error),
            Ok(()) => Ok(evicted()),
        }
    }

    /// Deletes a pod that no budget has a say in. Otherwise gives the pod as it is.
    async fn evict_unguarded(&self, pod: &Request, asked: &Options) -> Result<Option<Object>, ApiError> {
        let mut attempts = 0;
        loop {
            let current = self.current(pod).await?;
            let object = encode::bare(&current);
            if !budget::may_be_ignored(&object) {
                return Ok(Some(current));
            }
            let mut options = asked.clone();
            // A pod that has not begun to run must not begin meanwhile.
            if options.preconditions.resource_version.is_none() && !budget::is_over(&object) {
                options.preconditions.resource_version = Some(current.revision.to_string());
            }
            attempts += 1;
            match self.mark_and_delete(pod, options).await {
                Err(error)
                    if error.is_conflict()
                        && asked.preconditions.resource_version.is_none()
                        && attempts < ATTEMPTS_MAX => {}
                answer => return answer.map(|()| None),
            }
        }
    }

    /// The budgets of the pod's namespace whose selectors match it.
    async fn budgets_of(&self, pod_request: &Request, pod: &Value) -> Result<Vec<Request>, ApiError> {
        let Some(budgets) = self.resource("policy", "v1", "poddisruptionbudgets") else { return Ok(Vec::new()) };
        self.cache.fresh().await?;
        let all = self.peek_all(&budgets, &pod_request.namespace).into_iter().map(|object| object.value());
        let matching = all.filter(|budget| budget::matches(budget, pod));
        Ok(matching
            .map(|budget| Request {
                resource: budgets.clone(),
                name: meta::text(&budget, "name").to_owned(),
                subresource: Subresource::Part(Part::Status),
                options: Options::default(),
                ..pod_request.clone()
            })
            .collect())
    }

    /// Takes one of the disruptions that the budget allows; again on newer states while others are faster.
    async fn ask_budget(&self, budget: &Request, pod: &Value, dry_run: bool) -> Result<Verdict, ApiError> {
        let mut current = self.current(budget).await?;
        for _ in 0..ATTEMPTS_MAX {
            let object = encode::bare(&current);
            let verdict = budget::judge(&object, pod, self.clock.now())?;
            let Verdict::Take(taken) = &verdict else { return Ok(verdict) };
            if dry_run {
                return Ok(verdict);
            }
            match self.write_raw(budget, current.revision, taken).await? {
                Ok(_) => return Ok(verdict),
                Err(Some(newer)) => current = newer,
                Err(None) => return Err(ApiError::not_found(budget.resource.names(), &budget.name)),
            }
        }
        let why = format!("couldn't update PodDisruptionBudget \"{}\" due to conflicts", budget.name);
        Err(ApiError::timeout(why, 10))
    }

    /// Says in the pod's status why it goes, then deletes it.
    async fn mark_and_delete(&self, pod: &Request, mut options: Options) -> Result<(), ApiError> {
        if !options.dry_run {
            let request = Request { options: options.clone(), ..pod.clone() };
            let mut current = self.current(&request).await?;
            loop {
                let object = encode::bare(&current);
                deletion::check_preconditions(&request, &object, &current.revision.to_string())?;
                let marked = budget::mark_disrupted(&object, self.clock.now());
                if marked == object {
                    break;
                }
                match self.write_raw(pod, current.revision, &marked).await? {
                    Ok(seen) => {
                        current = seen;
                        break;
                    }
                    Err(newer) => {
                        current = newer.ok_or_else(|| ApiError::not_found(pod.resource.names(), &pod.name))?;
                    }
                }
            }
            if let Some(version) = &mut options.preconditions.resource_version {
                *version = current.revision.to_string();
            }
        }
        self.delete_admitted(&Request { options, ..pod.clone() }).await.map(drop)
    }
}

/// Both versions of an eviction are the same.
fn in_one_version(mut body: Body) -> Body {
    if body.value["kind"] == "Eviction" && body.value["apiVersion"] == OLD_VERSION {
        body.value["apiVersion"] = "policy/v1".into();
    }
    body
}

/// What the eviction and the request together say of the deletion.
fn judge(request: &Request, eviction: &mut Value) -> Result<Options, ApiError> {
    if meta::text(eviction, "name") != request.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options { dry_run: request.options.dry_run, ..Options::default() };
    let Some(said) = eviction.get_mut("deleteOptions").filter(|said| said.is_object()) else { return Ok(options) };
    let unsafely = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if said[unsafely] == true {
        let why = "can not be set for pod eviction, try after removing the option";
        let field = format!("deleteOptions.{unsafely}");
        let error = FieldError::new(FieldErrorKind::Invalid, field, true, why);
        return Err(ApiError::invalid_kind("Eviction", "policy", &request.name, &[error]));
    }
    options.set_delete_body(said)?;
    options.dry_run |= request.options.dry_run;
    if options.dry_run {
        said["dryRun"] = json!(["All"]);
    }
    Ok(options)
}

fn answer(status: &Value) -> Written {
    let object = Object::whole(status.to_string(), reeve_store::Revision(0));
    Written { object, created: true, is_status: true, warnings: Vec::new() }
}

fn evicted() -> Written {
    answer(&status::success(None, 201))
}

/// Kubernetes answers so, and with the code of a success: which budget counts cannot be said.
fn undecidable() -> Written {
    answer(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
        "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
    }))
}
