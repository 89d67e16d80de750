//! The scale subresource: the replicas of a workload as an `autoscaling/v1` `Scale`.

use reeve_api::patch::NoSchema;
use reeve_api::selector::LabelSelector;
use reeve_kinds::ScalePaths;
use reeve_kinds::field::{FieldError, FieldErrorKind};
use reeve_kinds::managed::{self, Context, Managed, OneVersion, PathElement, Set};
use reeve_kinds::strict;
use serde_json::{Value, json};

use super::accept::{Accepted, Form};
use super::answer::{Object, Written};
use super::request::{Body, Patch, Request, Subresource};
use super::update::{Edited, Shown};
use super::{Registry, accept, managed as managers_of, meta};
use crate::status::ApiError;

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";
const SCALE: (&str, &str, &str) = ("autoscaling", "v1", KIND);

fn paths(request: &Request) -> Result<ScalePaths, ApiError> {
    request.resource.kind.scale().ok_or_else(ApiError::no_such_path)
}

fn at<'o>(object: &'o Value, path: &str) -> &'o Value {
    path.split('.').fold(object, |value, field| &value[field])
}

fn put(object: &mut Value, path: &str, new: Value) {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut target = object;
    for field in parents.split('.').filter(|field| !field.is_empty()) {
        let Some(fields) = target.as_object_mut() else { return };
        target = fields.entry(field).or_insert_with(|| json!({}));
    }
    if let Some(fields) = target.as_object_mut() {
        fields.insert(last.to_owned(), new);
    }
}

/// The scale of an object that is sent.
pub(super) fn read(request: &Request, object: &Object) -> Result<Object, ApiError> {
    let scale = of(&object.value(), paths(request)?);
    Ok(Object::whole(scale.to_string(), object.revision))
}

fn of(object: &Value, paths: ScalePaths) -> Value {
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        let value = meta::get(object, field);
        if !value.is_null() {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = serde_json::Map::new();
    let replicas = at(object, paths.spec_replicas).as_i64().unwrap_or(0);
    if replicas != 0 {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    let mut status = json!({ "replicas": at(object, paths.status_replicas).as_i64().unwrap_or(0) });
    let selector = match at(object, paths.selector) {
        // Custom resources keep it as a text.
        Value::String(selector) => selector.clone(),
        // Replication controllers know no expressions: all their labels are wanted.
        labels if object["kind"] == "ReplicationController" => {
            let whole = json!({ "matchLabels": labels });
            LabelSelector::from_value(&whole).map_or_else(|_| String::new(), |selector| selector.to_string())
        }
        selector => LabelSelector::from_value(selector).map_or_else(|_| String::new(), |selector| selector.to_string()),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({ "kind": KIND, "apiVersion": API_VERSION, "metadata": metadata, "spec": spec, "status": status })
}

/// Brings what a scale asks for into its object.
fn bring(scale: &Value, object: &mut Value, paths: ScalePaths, name: &str) -> Result<(), ApiError> {
    let replicas = wanted(scale, name)?;
    put(object, paths.spec_replicas, replicas.into());
    for field in ["resourceVersion", "uid"] {
        meta::set(object, field, meta::get(scale, field).clone());
    }
    Ok(())
}

/// The replicas a scale asks for.
fn wanted(scale: &Value, name: &str) -> Result<i64, ApiError> {
    let replicas = &scale["spec"]["replicas"];
    let refuse = |kind, detail: &str| {
        let error = FieldError::new(kind, "spec.replicas", replicas.clone(), detail);
        Err(ApiError::invalid_kind(KIND, "autoscaling", name, &[error]))
    };
    match replicas.as_i64() {
        None if replicas.is_null() => Ok(0),
        Some(count) if (0..=i64::from(i32::MAX)).contains(&count) => Ok(count),
        Some(count) if count < 0 => refuse(FieldErrorKind::Invalid, "must be greater than or equal to 0"),
        _ => Err(ApiError::bad_request(format!(
            "{KIND} in version \"v1\" cannot be handled as a {KIND}: json: cannot unmarshal {replicas} into Go struct \
             field ScaleSpec.spec.replicas of type int32"
        ))),
    }
}

/// What a write of a scale makes of it, and how its managers are decided.
enum Change<'c> {
    /// The whole scale, or a patch of it.
    Edit(&'c (dyn Fn(&Value) -> Result<Accepted, ApiError> + Sync)),
    /// A configuration that is applied.
    Apply(&'c Body),
}

impl Change<'_> {
    /// The scale as it shall be, and the managers of its fields.
    fn carry_out(
        &self,
        request: &Request,
        live: &Value,
        managers: Managed,
        now: &str,
    ) -> Result<(Accepted, Managed), ApiError> {
        let context = Context {
            api_version: API_VERSION,
            kind: KIND,
            subresource: "scale",
            schema: managed::scale_shape(),
            reset: &Set::default(),
            versions: &OneVersion,
            now,
        };
        match self {
            Self::Edit(edit) => {
                let new = edit(live)?;
                let manager = managers_of::manager(request);
                let managers =
                    managed::update(&context, Some(live), &new.object, managers, manager).unwrap_or_default();
                Ok((new, managers))
            }
            Self::Apply(config) => {
                let applied = managers_of::apply(&context, request, config, live, &managers.encode())?;
                let warnings = managers_of::judge(config, request.options.field_validation)?;
                let mut object = applied.object;
                meta::check_namespace(&mut object, request)?;
                meta::check_name(&mut object, request)?;
                Ok((Accepted { object, warnings }, applied.managed))
            }
        }
    }
}

fn path(dotted: &str) -> managed::Path {
    dotted.split('.').map(|name| PathElement::Field(name.to_owned())).collect()
}

impl Registry {
    pub(super) async fn update_scale(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        let mut scale = body.value;
        accept::set_type(&mut scale, API_VERSION, KIND)?;
        meta::check_name(&mut scale, request)?;
        let edit = |_: &Value| Ok(Accepted { object: scale.clone(), warnings: Vec::new() });
        self.write_scale(request, Change::Edit(&edit)).await
    }

    pub(super) async fn patch_scale(&self, request: &Request, patch: &Patch) -> Result<Written, ApiError> {
        if let Patch::Apply(config) = patch {
            return self.write_scale(request, Change::Apply(config)).await;
        }
        let edit = |current: &Value| {
            let conform = |object: &mut Value| strict::conform_to(managed::scale_shape(), object);
            let form = Form { api_version: API_VERSION, kind: KIND, conform: &conform };
            let validation = request.options.field_validation;
            let mut scale = patch.carry_out(current, Some(&NoSchema), &form, validation)?;
            if meta::text(&scale.object, "name").is_empty() {
                return Err(meta::undeterminable(&request.name));
            }
            meta::check_name(&mut scale.object, request)?;
            Ok(scale)
        };
        self.write_scale(request, Change::Edit(&edit)).await
    }

    async fn write_scale(&self, request: &Request, change: Change<'_>) -> Result<Written, ApiError> {
        let paths = paths(request)?;
        let main = Request { subresource: Subresource::None, ..request.clone() };
        let version = main.resource.names().api_version();
        let replicas = [(version.as_str(), Some(path(paths.spec_replicas)))];
        let edit = |current: &Value| {
            let parent = Managed::stored(meta::get(current, "managedFields")).unwrap_or_default();
            let (live, now) = (of(current, paths), meta::time(self.clock.now()));
            let (scale, managers) = change.carry_out(request, &live, managed::to_scale(&parent, &replicas), &now)?;
            let Accepted { object: scale, warnings } = scale;
            let mut object = current.clone();
            bring(&scale, &mut object, paths, &request.name)?;
            let managed = Some(managed::from_scale(&parent, managers, &replicas, &version).encode());
            let name = request.name.clone();
            let put = move |scale: &Value, object: &mut Value| bring(scale, object, paths, &name);
            let shown = Some(Shown { kind: SCALE, old: live, new: scale, put: Box::new(put) });
            Ok(Edited { object, warnings, unconditional: true, managed, shown })
        };
        let mut written = self.change(&main, edit).await?;
        written.object = read(request, &written.object)?;
        Ok(written)
    }
}
