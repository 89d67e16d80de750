//! The node agent: pod life, volumes, probes, logs, pod network.
