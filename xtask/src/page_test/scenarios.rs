//! Every scenario by name.

use anyhow::Result;

use super::Stage;

mod controls;
mod look;
mod results;
mod scripted;
mod states;

/// One thing that people do with the page.
#[derive(Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) play: fn(&mut Stage<'_>) -> Result<()>,
    /// The program is away for a while, or refuses: the browser's console says so.
    pub(super) loads_fail: bool,
}

/// In the order in which they are played. Each opens a page of its own.
pub(super) const ALL: &[Scenario] = &[
    scenario("live", results::live),
    scenario("picture", results::picture),
    scenario("bars", results::bars),
    scenario("numbers", results::numbers),
    scenario("latency", results::latency),
    scenario("bounded", results::bounded),
    scenario("pause-button", controls::pause_button),
    scenario("pause-keys", controls::pause_keys),
    scenario("snapshot", controls::snapshot),
    scenario("theme", controls::theme),
    scenario("keyboard", controls::keyboard),
    scenario("hidden-tab", controls::hidden_tab),
    scenario("widths", look::widths),
    scenario("contrast", look::contrast),
    scenario("motion", look::motion),
    scenario("accessibility", look::accessibility),
    scenario("waiting", scripted::waiting),
    scenario("labels", scripted::labels),
    scenario("announcements", scripted::announcements),
    scenario("policy", states::policy),
    breaking("picture-lost", states::picture_lost),
    breaking("connection-lost", states::connection_lost),
    breaking("ended", states::ended),
    // From here on the program asks for a token.
    breaking("token", states::token),
    breaking("new-token", states::new_token),
];

const fn scenario(name: &'static str, play: fn(&mut Stage<'_>) -> Result<()>) -> Scenario {
    Scenario {
        name,
        play,
        loads_fail: false,
    }
}

const fn breaking(name: &'static str, play: fn(&mut Stage<'_>) -> Result<()>) -> Scenario {
    Scenario {
        loads_fail: true,
        ..scenario(name, play)
    }
}
