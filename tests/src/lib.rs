//! End-to-end tests, load generator, benchmarks, tidy.
