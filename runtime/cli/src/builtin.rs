//! The plan inside the program: `models/zoo/sepvit_lite_trashnet`, what is in front of the camera: cardboard, glass, metal, paper,
//! plastic, trash.

use vitlet::Model;

/// The built-in plan.
#[cfg(feature = "builtin-plan")]
pub(crate) fn model() -> anyhow::Result<Model> {
    /// A plan's bytes, aligned as the reader asks.
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    static PLAN: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/zoo/sepvit_lite_trashnet/model.vitlet"
    )));
    Ok(Model::from_static(&PLAN.0, "built-in plan"))
}

/// This program was built without one.
#[cfg(not(feature = "builtin-plan"))]
pub(crate) fn model() -> anyhow::Result<Model> {
    Err(crate::failure::invalid(
        "this program was built without a plan inside: name one with -m PLAN",
    ))
}
