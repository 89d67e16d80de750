//! The Kubernetes API server: REST, watch cache, admission, authentication.
