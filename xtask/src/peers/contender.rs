//! Which engines are compared, on which form of a model.

/// An inference engine, with a program in `benches/peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Engine {
    Vitlet,
    #[value(name = "onnxruntime")]
    OnnxRuntime,
    Tract,
    Rten,
}

impl Engine {
    pub(super) const ALL: [Self; 4] = [Self::Vitlet, Self::OnnxRuntime, Self::Tract, Self::Rten];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Vitlet => "vitlet",
            Self::OnnxRuntime => "ONNX Runtime",
            Self::Tract => "tract",
            Self::Rten => "rten",
        }
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Vitlet => "peer-vitlet",
            Self::OnnxRuntime => "peer-onnxruntime",
            Self::Tract => "peer-tract",
            Self::Rten => "peer-rten",
        }
    }

    /// rten's thread pool never wakes under QEMU's user mode.
    pub(super) const fn runs_under_qemu(self) -> bool {
        !matches!(self, Self::Rten)
    }
}

/// An engine on a form of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) engine: Engine,
    pub(super) int8: bool,
}

impl Contender {
    /// What the others are measured against.
    pub(super) const REFERENCE: Self = Self::int8(Engine::OnnxRuntime);
    /// Whose outputs the others' are compared with.
    pub(super) const TRUTH: Self = Self::f32(Engine::OnnxRuntime);
    pub(super) const VITLET: Self = Self::int8(Engine::Vitlet);

    /// As they are measured and listed.
    pub(super) const ALL: [Self; 7] = [
        Self::VITLET,
        Self::REFERENCE,
        Self::TRUTH,
        Self::int8(Engine::Tract),
        Self::f32(Engine::Tract),
        Self::int8(Engine::Rten),
        Self::f32(Engine::Rten),
    ];

    const fn int8(engine: Engine) -> Self {
        Self { engine, int8: true }
    }

    const fn f32(engine: Engine) -> Self {
        Self {
            engine,
            int8: false,
        }
    }

    /// In tables, and in files of figures.
    pub(super) fn label(self) -> String {
        format!(
            "{} {}",
            self.engine.name(),
            if self.int8 { "int8" } else { "f32" }
        )
    }
}
