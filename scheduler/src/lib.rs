//! Assigns pods to nodes.
