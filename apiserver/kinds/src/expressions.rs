//! The expressions of admission: what policies and match conditions may speak of, and what they must give.
//!
//! Used twice: when such an object is written, to say what is wrong with its expressions, and by the API server's
//! admission, which runs them. The environment and the wording are Kubernetes' (`admission/plugin/cel`).

mod typed;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use reeve_cel::{CompileError, Decl, DeclKind, Env, FieldDecl, ObjectDecl, Program, Type, TypeResolver};

pub use typed::{TypeChecker, declaration};

/// What an expression must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// Yes or no: validations and match conditions.
    Truth,
    /// A text, for whoever is refused.
    Message,
    /// A text or nothing, for the audit log.
    Annotation,
    /// Anything; other expressions use it by its name.
    Variable,
    /// A list of JSON patch operations.
    JsonPatch,
    /// An object that is applied.
    ApplyConfiguration,
}

/// Why an expression is refused. Shown, it is the text Kubernetes gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// What is wrong.
    pub detail: String,
    /// Whether Kubernetes calls it an internal error (a constant pattern that is none), not an invalid value.
    pub internal: bool,
}

/// Compiles the expressions of one policy or webhook, which may share variables.
#[derive(Debug, Default)]
pub struct Compiler {
    has_params: bool,
    /// Types of the variables, by name; none where there are no variables at all.
    variables: Option<BTreeMap<String, Type>>,
}

impl Compiler {
    /// For expressions that may speak of `params` or not, without variables of their own.
    #[must_use]
    pub fn new(has_params: bool) -> Self {
        Self { has_params, variables: None }
    }

    /// The same, for a policy whose expressions may share variables.
    #[must_use]
    pub fn with_variables(has_params: bool) -> Self {
        Self { has_params, variables: Some(BTreeMap::new()) }
    }

    /// Compiles a variable, which later expressions may speak of.
    ///
    /// # Errors
    /// When it does not compile; it can be spoken of all the same.
    pub fn variable(&mut self, name: &str, text: &str) -> Result<Program, Refused> {
        let compiled = self.compile(text, Gives::Variable);
        let of = compiled.as_ref().map_or(Type::Dyn, |program| plain(program.output()));
        self.variables.get_or_insert_default().insert(name.to_owned(), of);
        compiled
    }

    /// Compiles an expression that must give `gives`.
    ///
    /// # Errors
    /// When it does not compile or gives something else.
    pub fn compile(&self, text: &str, gives: Gives) -> Result<Program, Refused> {
        let program = self
            .env(gives)
            .compile(text)
            .map_err(|error: CompileError| Refused { detail: error.detail(), internal: error.issues().is_empty() })?;
        let wanted = returns(gives);
        let output = program.output();
        if wanted.is_empty() || wanted.contains(output) {
            return Ok(program);
        }
        let names: Vec<String> = wanted.iter().map(Type::declared).collect();
        let wanted = if let [only] = names.as_slice() { only.clone() } else { format!("one of [{}]", names.join(" ")) };
        Err(Refused { detail: format!("must evaluate to {wanted} but got {}", output.declared()), internal: false })
    }

    fn env(&self, gives: Gives) -> Env {
        let mut env = BASE.clone();
        if self.has_params {
            env = env.variable("params", Type::Dyn);
        }
        if gives != Gives::Message {
            env = env
                .variable("authorizer", Type::object("kubernetes.authorization.Authorizer"))
                .variable("authorizer.requestResource", Type::object("kubernetes.authorization.ResourceCheck"));
        }
        if matches!(gives, Gives::JsonPatch | Gives::ApplyConfiguration) {
            env = env.with_types(Arc::new(PatchTypes)).with_json_patch();
        }
        match &self.variables {
            None => env,
            Some(variables) => env.lazy_object("variables", &variables_decl(variables)),
        }
    }
}

/// The types an expression may have; none means any.
fn returns(gives: Gives) -> Vec<Type> {
    match gives {
        Gives::Truth => vec![Type::Bool],
        Gives::Message => vec![Type::String],
        Gives::Annotation => vec![Type::String, Type::Null],
        Gives::Variable => Vec::new(),
        Gives::JsonPatch => vec![Type::list(Type::object("JSONPatch"))],
        Gives::ApplyConfiguration => vec![Type::object("Object")],
    }
}

/// The type a variable is known by to others: library types and objects are anything.
fn plain(of: &Type) -> Type {
    match of {
        Type::List(element) => Type::list(plain(element)),
        Type::Map(key, value) => Type::map(plain(key), plain(value)),
        Type::Object(_) | Type::Opaque(..) | Type::TypeOf(_) | Type::Param(_) | Type::Error => Type::Dyn,
        other => other.clone(),
    }
}

fn variables_decl(variables: &BTreeMap<String, Type>) -> Decl {
    let field =
        |(name, of): (&String, &Type)| (name.clone(), FieldDecl { name: name.clone(), decl: Arc::new(decl_of(of)) });
    let object = ObjectDecl { name: "kubernetes.variables".into(), fields: variables.iter().map(field).collect() };
    Decl::simple(DeclKind::Object(Arc::new(object)), 2)
}

fn decl_of(of: &Type) -> Decl {
    let kind = match of {
        Type::Bool => DeclKind::Bool,
        Type::Int => DeclKind::Int,
        Type::Double => DeclKind::Double,
        Type::String => DeclKind::String,
        Type::Bytes => DeclKind::Bytes,
        Type::Timestamp => DeclKind::Timestamp,
        Type::Duration => DeclKind::Duration,
        Type::List(element) => return Decl::list(decl_of(element)),
        Type::Map(key, value) if **key == Type::String => return Decl::map(decl_of(value)),
        _ => DeclKind::Dyn,
    };
    Decl::simple(kind, 1)
}

/// `Object`, `Object.spec`, … with any field, and `JSONPatch`.
#[derive(Debug)]
struct PatchTypes;

impl TypeResolver for PatchTypes {
    fn is_type(&self, name: &str) -> bool {
        matches!(name, "JSONPatch" | "Object") || name.starts_with("Object.")
    }

    fn field(&self, type_name: &str, field: &str) -> Option<Type> {
        match (type_name, field) {
            ("JSONPatch", "op" | "from" | "path") => Some(Type::String),
            ("JSONPatch", "value") => Some(Type::Dyn),
            // Of no type that there is: whatever is given does not fit, and that is what Kubernetes says.
            ("JSONPatch", _) => Some(Type::object("")),
            _ => self.is_type(type_name).then_some(Type::Dyn),
        }
    }
}

/// What every expression may speak of.
static BASE: LazyLock<Env> = LazyLock::new(|| {
    Env::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .declared("namespaceObject", &namespace())
        .declared("request", &request())
        .with_keyword_fields()
});

fn texts(names: &[&'static str]) -> Vec<(&'static str, Decl)> {
    names.iter().map(|name| (*name, Decl::text())).collect()
}

/// An `AdmissionRequest`, without what is a variable of its own.
fn request() -> Decl {
    let kind = Decl::object("kubernetes.GroupVersionKind", texts(&["group", "version", "kind"]));
    let resource = Decl::object("kubernetes.GroupVersionResource", texts(&["group", "version", "resource"]));
    let mut user = texts(&["username", "uid"]);
    user.push(("groups", Decl::list(Decl::text())));
    user.push(("extra", Decl::map(Decl::list(Decl::text()))));
    let mut fields = texts(&["subResource", "requestSubResource", "name", "namespace", "operation"]);
    fields.extend([("kind", kind.clone()), ("requestKind", kind)]);
    fields.extend([("resource", resource.clone()), ("requestResource", resource)]);
    fields.push(("userInfo", Decl::object("kubernetes.UserInfo", user)));
    fields.push(("dryRun", Decl::simple(DeclKind::Bool, 4)));
    fields.push(("options", Decl::simple(DeclKind::Dyn, 1)));
    Decl::object("kubernetes.AdmissionRequest", fields)
}

/// A Namespace, without what changes all the time.
fn namespace() -> Decl {
    let time = || Decl::simple(DeclKind::Timestamp, 1);
    let number = || Decl::simple(DeclKind::Int, 1);
    let mut metadata = texts(&["name", "generateName", "namespace", "UID", "resourceVersion"]);
    metadata.extend([
        ("labels", Decl::map(Decl::text())),
        ("annotations", Decl::map(Decl::text())),
        ("creationTimestamp", time()),
        ("deletionTimestamp", time()),
        ("deletionGracePeriodSeconds", number()),
        ("generation", number()),
        ("finalizers", Decl::list(Decl::text())),
    ]);
    let mut condition = texts(&["status", "type", "message", "reason"]);
    condition.push(("lastTransitionTime", time()));
    let conditions = Decl::list(Decl::object("kubernetes.NamespaceCondition", condition));
    let spec = Decl::object("kubernetes.NamespaceSpec", [("finalizers", Decl::list(Decl::text()))]);
    let status = Decl::object("kubernetes.NamespaceStatus", [("conditions", conditions), ("phase", Decl::text())]);
    let metadata = Decl::object("kubernetes.NamespaceMetadata", metadata);
    Decl::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(compiler: &Compiler, text: &str, gives: Gives) -> String {
        compiler.compile(text, gives).expect_err("it is refused").to_string()
    }

    #[test]
    fn expressions_may_speak_of_the_request_and_its_objects() {
        let compiler = Compiler::new(true);
        for text in [
            "object.spec.replicas > 1 && oldObject == null && params.max > 2",
            "request.operation == 'CREATE' && request.userInfo.groups.exists(g, g == 'a') && request.name != ''",
            "namespaceObject.metadata.labels.env == 'prod' && request.namespace == 'a'",
            "authorizer.group('').resource('pods').check('create').allowed()",
            "authorizer.requestResource.check('x').allowed() && object.metadata.namespace == 'a'",
        ] {
            let compiled = compiler.compile(text, Gives::Truth);
            assert!(compiled.is_ok(), "{text}: {compiled:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_kubernetes_words() {
        let plain = Compiler::new(false);
        assert_eq!(refused(&plain, "1", Gives::Truth), "must evaluate to bool but got int");
        assert_eq!(refused(&plain, "1", Gives::Annotation), "must evaluate to one of [string null_type] but got int");
        assert_eq!(refused(&plain, "[1]", Gives::JsonPatch), "must evaluate to list(JSONPatch) but got list(int)");
        let unknown = refused(&plain, "params.x", Gives::Truth);
        assert!(unknown.contains("undeclared reference to 'params' (in container '')"), "{unknown}");
        let silent = refused(&plain, "authorizer.path('/x').check('get').reason()", Gives::Message);
        assert!(silent.contains("undeclared reference to 'authorizer'"), "{silent}");
        let nothing = refused(&plain, "variables.x", Gives::Truth);
        assert!(nothing.contains("undeclared reference to 'variables'"), "{nothing}");
        let pattern = plain.compile("object.name.find('[') == ''", Gives::Truth).expect_err("no pattern");
        assert!(pattern.internal && pattern.detail.starts_with("program instantiation failed: "), "{pattern:?}");
    }

    #[test]
    fn variables_are_known_to_what_comes_after_them() {
        let mut compiler = Compiler::with_variables(false);
        compiler.variable("n", "object.spec.replicas + 1").expect("a variable");
        compiler.variable("s", "'a' + 'b'").expect("a variable");
        assert!(compiler.compile("variables.n > 1 && variables.s == 'ab'", Gives::Truth).is_ok());
        let typed = refused(&compiler, "variables.s > 1", Gives::Truth);
        assert!(typed.contains("found no matching overload for '_>_' applied to '(string, int)'"), "{typed}");
        assert!(refused(&compiler, "variables.z", Gives::Truth).contains("undefined field 'z'"));
    }

    #[test]
    fn patches_are_lists_of_operations_or_objects() {
        let compiler = Compiler::new(false);
        for text in [
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}]",
            "object.x ? [JSONPatch{op: 'remove', path: '/x'}] : []",
        ] {
            assert!(compiler.compile(text, Gives::JsonPatch).is_ok(), "{text}");
        }
        let applied = "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{replicas: 1}}";
        assert!(compiler.compile(applied, Gives::ApplyConfiguration).is_ok());
        let unknown = refused(&compiler, "[JSONPatch{oops: 1}]", Gives::JsonPatch);
        assert!(unknown.contains("expected type of field 'oops' is '' but provided type is 'int'"), "{unknown}");
    }
}
