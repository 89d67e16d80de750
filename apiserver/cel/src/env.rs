//! The environment an expression is compiled in: its variables, the objects they are, the functions there are.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::check;
use crate::decl::{Decl, DeclKind, ObjectDecl};
use crate::declarations::{FUNCTIONS, JSON_PATCH, Overload};
use crate::issue::{CompileError, Issues, Source};
use crate::parser;
use crate::plan;
use crate::program::Program;
use crate::stack;
use crate::types::Type;
use crate::validate;

/// Knows object types that are not declared one by one (`Object.spec.template`, `JSONPatch`).
pub trait TypeResolver: fmt::Debug + Send + Sync {
    /// Whether there is an object type of that name that expressions can make.
    fn is_type(&self, name: &str) -> bool;

    /// The type of a field of one of its types; none when there is no such field.
    fn field(&self, type_name: &str, field: &str) -> Option<Type>;
}

/// What an expression may refer to. Cheap to clone; made once and used for many expressions.
#[derive(Debug, Clone, Default)]
pub struct Env {
    variables: HashMap<String, Type>,
    objects: HashMap<Arc<str>, Arc<ObjectDecl>>,
    /// Objects whose fields are asked for one by one, when they are needed.
    lazy: Vec<String>,
    resolver: Option<Arc<dyn TypeResolver>>,
    json_patch: bool,
    keyword_fields: bool,
}

impl Env {
    /// An environment with all libraries of Kubernetes v1.36 and no variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a variable of a plain type.
    #[must_use]
    pub fn variable(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.to_owned(), of);
        self
    }

    /// Declares a variable and all object types within its declaration.
    #[must_use]
    pub fn declared(mut self, name: &str, decl: &Decl) -> Self {
        self.add_objects(decl);
        self.variable(name, decl.to_type())
    }

    /// Declares an object whose fields are variables of their own: what is written `name.field` is asked for as
    /// [`crate::Variables::get`] of `name.field`, and only when it is needed. Its object type must be `decl`.
    #[must_use]
    pub fn lazy_object(mut self, name: &str, decl: &Decl) -> Self {
        self.lazy.push(name.to_owned());
        self.declared(name, decl)
    }

    /// Lets expressions make objects (`Object{…}`).
    #[must_use]
    pub fn with_types(mut self, resolver: Arc<dyn TypeResolver>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Adds `jsonpatch.escapeKey`.
    #[must_use]
    pub fn with_json_patch(mut self) -> Self {
        self.json_patch = true;
        self
    }

    /// Lets fields that are reserved words be written as they are (`object.metadata.namespace`).
    #[must_use]
    pub fn with_keyword_fields(mut self) -> Self {
        self.keyword_fields = true;
        self
    }

    fn add_objects(&mut self, decl: &Decl) {
        match &decl.kind {
            DeclKind::List(inner, _) | DeclKind::Map(inner) => self.add_objects(inner),
            DeclKind::Object(object) => {
                let is_new = self.objects.insert(Arc::clone(&object.name), Arc::clone(object)).is_none();
                object.fields.values().filter(|_| is_new).for_each(|field| self.add_objects(&field.decl));
            }
            _ => {}
        }
    }

    /// Compiles an expression: parses it, checks its types, and plans its evaluation.
    ///
    /// # Errors
    /// With everything that is wrong with it, as cel-go says it.
    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let compiled = stack::with_room(stack::may_be_deep(text), || self.compile_here(text));
        compiled.unwrap_or_else(|| Err(CompileError::program("no thread for a deep expression".to_owned())))
    }

    fn compile_here(&self, text: &str) -> Result<Program, CompileError> {
        let source = Source::new(text);
        let mut issues = Issues::default();
        let Some((mut root, nodes)) = parser::parse(text, &mut issues) else {
            return Err(issues.into_error(&source));
        };
        let checked = check::check(self, &mut root, nodes, &mut issues);
        if issues.is_empty() {
            validate::validate(&root, &checked, &mut issues);
        }
        if !issues.is_empty() {
            return Err(issues.into_error(&source));
        }
        match plan::plan(self, &root, &checked) {
            Ok(planned) => Ok(Program::new(root, checked, planned)),
            Err(reason) => Err(CompileError::program(reason)),
        }
    }

    pub(crate) fn find_variable(&self, name: &str) -> Option<Type> {
        if let Some(of) = self.variables.get(name) {
            return Some(of.clone());
        }
        let simple = match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "google.protobuf.Duration" => Type::Duration,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "string" => Type::String,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "type" => Type::TypeOf(None),
            "uint" => Type::Uint,
            crate::types::OPTIONAL => Type::optional(Type::Dyn),
            "net.IP" | "net.CIDR" => Type::Opaque(name.into(), Arc::new([])),
            _ if self.is_object(name) => Type::object(name),
            _ => return None,
        };
        Some(Type::TypeOf(Some(Arc::new(simple))))
    }

    pub(crate) fn is_object(&self, name: &str) -> bool {
        self.objects.contains_key(name) || self.resolver.as_ref().is_some_and(|resolver| resolver.is_type(name))
    }

    /// Whether expressions can make objects of that type.
    pub(crate) fn can_make(&self, name: &str) -> bool {
        self.resolver.as_ref().is_some_and(|resolver| resolver.is_type(name))
    }

    pub(crate) fn find_field(&self, type_name: &str, field: &str) -> Option<Type> {
        if let Some(object) = self.objects.get(type_name) {
            let found = if self.keyword_fields { object.field_or_keyword(field) } else { object.field(field) };
            return found.map(|field| field.decl.to_type());
        }
        self.resolver.as_ref()?.field(type_name, field)
    }

    pub(crate) fn find_function(&self, name: &str) -> Option<&'static [Overload]> {
        let more = self.json_patch.then(|| JSON_PATCH.get(name)).flatten();
        FUNCTIONS.get(name).or(more).map(Vec::as_slice)
    }

    pub(crate) fn is_lazy(&self, name: &str) -> bool {
        self.lazy.iter().any(|own| own == name)
    }
}
