//! The libraries: what the functions do. Which functions there are and what they take is in `declarations`.

pub(crate) mod authz;
pub(crate) mod convert;
pub(crate) mod format;
pub(crate) mod lists;
pub(crate) mod net;
pub(crate) mod numbers;
pub(crate) mod operators;
pub(crate) mod printf;
pub(crate) mod quantity;
pub(crate) mod regexes;
pub(crate) mod semver;
pub(crate) mod strings;
pub(crate) mod times;
pub(crate) mod url;
