//! The expression language of Kubernetes: CEL with Kubernetes' libraries, types, costs and limits, as of v1.36.
//!
//! What it is for: rules of custom resources (`x-kubernetes-validations`), admission policies, match conditions.
//! What is not here: which expressions there are, and what follows from their values.
//!
//! ```
//! use reeve_cel::{Decl, Env, Type, Value, DeclaredSizes};
//! use serde_json::json;
//!
//! // What is known of the object: a schema gives names, types and sizes.
//! let schema = json!({
//!     "type": "object",
//!     "properties": { "replicas": { "type": "integer" }, "name": { "type": "string", "maxLength": 63 } }
//! });
//! let decl = Decl::from_schema(&schema, "selfType", false, &|_| None).expect("expressions may look at it");
//!
//! // What an expression may refer to; made once for many expressions.
//! let env = Env::new().declared("self", &decl).variable("oldSelf", decl.to_type());
//!
//! // Compiled once: types are checked, and what it can cost at most is known before it runs.
//! let rule = env.compile("self.replicas <= 5 && self.name.startsWith('a')").expect("it compiles");
//! assert_eq!(*rule.output(), Type::Bool);
//! let sizes = DeclaredSizes { decl: &decl };
//! assert!(rule.estimate(&sizes).max < 100);
//!
//! // Run on an object, which is not copied, within a limit of cost.
//! let object = json!({ "replicas": 3, "name": "abc" });
//! let value = Value::typed(&object, &decl).expect("it has the form the schema says");
//! let outcome = rule.run(&[("self", value)], reeve_cel::PER_CALL_LIMIT);
//! assert!(matches!(outcome.result, Ok(Value::Bool(true))));
//!
//! // What is wrong with an expression is said in cel-go's words.
//! let error = env.compile("self.replica <= 5").expect_err("there is no such field");
//! assert_eq!(error.detail(), "compilation failed: ERROR: <input>:1:5: undefined field 'replica'\n | self.replica <= 5\n | ....^");
//! ```
//!
//! How it works, in the order an expression goes through it: `lexer`, `parser` with `macros` (to the tree of `ast`),
//! `check` (types by `types`, functions by `declarations`), `validate` (literals), `plan` (constants computed,
//! functions found by `natives`), `eval` (costs by `price`, limits by `meter`). `estimate` bounds the cost from the
//! checked tree. Values are in `value`, between JSON and values is `json`, what schemas say is in `decl`.

mod ast;
mod check;
mod decl;
mod declarations;
mod env;
mod error;
mod escape;
mod estimate;
mod eval;
mod functions;
mod issue;
mod json;
mod lexer;
mod macros;
mod meter;
mod natives;
mod opaque;
mod parser;
mod plan;
mod price;
mod program;
mod stack;
pub mod time;
mod types;
mod unescape;
mod validate;
mod value;

pub use decl::{Decl, DeclKind, FieldDecl, ListType, ObjectDecl, Resolve};
pub use env::{Env, TypeResolver};
pub use error::EvalError;
pub use escape::{escape, is_identifier, unescape};
pub use estimate::{CostEstimate, DeclaredSizes, NoSizes, SizeEstimate, Sizes};
pub use functions::authz::{Authorizer, Check, Decision};
pub use functions::regexes::compile as compile_pattern;
pub use issue::{CompileError, Issue};
pub use opaque::Opaque;
pub use program::{BUDGET, MATCH_CONDITIONS_BUDGET, Outcome, PER_CALL_LIMIT, Program, Variables};
pub use types::Type;
pub use value::{List, Map, Struct, Text, Value};
