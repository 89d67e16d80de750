//! The suite of the seam on the built-in engine.

use std::sync::Arc;

use crate::bed::Bed;
use crate::suite::{ALL, Ground};

crate::tests![the_built_in_engine_keeps_every_promise_of_the_seam];

async fn the_built_in_engine_keeps_every_promise_of_the_seam() {
    let bed = Bed::new().await;
    let image = bed.engine.images().get("busybox").unwrap().unwrap().id;
    for (number, promise) in ALL.iter().enumerate() {
        println!("  {}", promise.name);
        let (engine, dir) = (Arc::new(bed.engine.clone()), bed.dir().join("seam"));
        let ground = Ground { engine, image: image.clone(), dir, name: format!("seam-{number}") };
        (promise.prove)(&ground).await;
    }
    bed.close().await;
}
