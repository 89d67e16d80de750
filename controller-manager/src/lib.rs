//! The controllers: one folder each, plan and apply.
