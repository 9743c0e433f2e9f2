//! A session's `run` allocates nothing on several threads either: counted by the allocator itself, in all threads.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../engine/tests/common/counting.rs"]
mod counting;

use std::path::Path;

use vitlet::{Model, Options, Session};

/// More runs than a queue's block has places: one that grows now and then is seen in every window.
const RUNS: usize = 70;

#[test]
fn running_on_several_threads_allocates_nothing() {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    let model = Model::open(zoo.join("pvt_v2_b0_trashnet/model.vitlet")).unwrap();
    let plan = model.plan().unwrap();
    let (height, width) = plan.input();
    let image: Vec<u8> = (0..height * width * 3)
        .map(|i| ((i * i) >> 5) as u8)
        .collect();
    let mut alone = Session::new(&plan, &Options::default()).unwrap();
    let logits = alone.run(&image).unwrap();
    for threads in [2, 3] {
        let options = Options {
            threads,
            ..Options::default()
        };
        let mut session = Session::new(&plan, &options).unwrap();
        // The test harness's own threads may allocate while they wait: in one window perhaps, but not in both.
        let windows = [(); 2].map(|()| {
            let before = counting::all_threads();
            for _ in 0..RUNS {
                session.run(&image).unwrap();
            }
            counting::all_threads() - before
        });
        assert_eq!(windows.iter().min(), Some(&0), "{threads} threads");
        assert_eq!(session.logits(), logits, "{threads} threads");
    }
    let before = counting::all_threads();
    drop(std::hint::black_box(Box::new(1)));
    assert_ne!(counting::all_threads(), before, "the counter counts");
}
