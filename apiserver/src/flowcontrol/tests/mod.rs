//! What flow control guarantees: of queues alone on a simulated clock (`fairness`), and of the whole (`control`).

mod control;
mod fairness;
