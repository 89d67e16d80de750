//! Informers, work queues, event recording and leases on top of kube.
