//! The page when something is missing: the stream, the connection, the program, the token.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::results::moves;
use crate::page_test::Stage;

/// Every network.
const WIDE: &str = "0.0.0.0";

/// The page asks for what it needs and nothing else; if it tried to, the browser would not let it, and this program would know.
pub(super) fn policy(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let heard = stage.browser.heard()?;
    for path in ["/", "/events", "/stream.mjpg"] {
        let start = format!("http://127.0.0.1:{}{path}", stage.program.port);
        ensure!(
            heard
                .requests
                .iter()
                .any(|request| request.starts_with(&start)),
            "no request {start} was heard of, so others may be missed as well: {:?}",
            heard.requests
        );
    }
    let said: Vec<&str> = heard
        .problems
        .iter()
        .map(|problem| problem.text.as_str())
        .collect();
    ensure!(said.is_empty(), "the browser's console says: {said:?}");
    // Port 9 is nobody's; the answer does not matter.
    stage.browser.evaluate(
        "fetch('http://127.0.0.1:9/').catch(() => {});
         document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/' }));
         console.error('a word');
         inPage.sleep(200)",
    )?;
    let heard = stage.browser.heard()?;
    for word in ["connect-src", "img-src", "a word"] {
        ensure!(
            heard
                .problems
                .iter()
                .any(|problem| problem.text.contains(word)),
            "the console did not tell of {word}"
        );
    }
    let there: bool = stage.browser.ask(
        "fetch(location.href).then((answer) => answer.headers.get('content-security-policy').includes(\"default-src 'none'\"))",
    )?;
    ensure!(there, "the page has no Content-Security-Policy");
    Ok(())
}

/// A stream of pictures that is refused, or does not go on, is opened anew.
pub(super) fn picture_lost(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    // As when there are too many viewers; as when a stream was closed that was too slow.
    for instead in ["nothing-here", "snapshot.jpg"] {
        stage.browser.evaluate(&format!(
            "document.getElementById('picture').src = `{instead}${{location.search}}`"
        ))?;
        stage.browser.wait_for(
            &format!("the picture after {instead}"),
            "document.getElementById('picture').src.includes('stream.mjpg')",
        )?;
        moves(stage)?;
    }
    Ok(())
}

/// The program is gone without a word. When it is back, so are the page and the picture.
pub(super) fn connection_lost(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    stage.program.kill()?;
    stage.browser.wait_for_state("lost")?;
    let frozen: bool = stage.browser.ask("inPage.shows('frozen')")?;
    ensure!(frozen, "without a connection, the last picture is gone");
    stage.picture("lost")?;
    stage.restart("127.0.0.1")?;
    stage.browser.wait_for_state("live")?;
    moves(stage)
}

/// The program ends, and says so; the page tells why, and goes on with the next one.
pub(super) fn ended(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let end = stage.program.end()?;
    ensure!(end["reason"] == "signal", "its last event is {end}");
    stage.browser.wait_for_state("ended")?;
    let text: String = stage
        .browser
        .ask("inPage.text('state') + inPage.text('message')")?;
    ensure!(
        text.contains("ended") && text.contains("stopped"),
        "the program has ended, and the page says '{text}'"
    );
    // It is not taken for a lost connection when nobody answers.
    let state: String = stage.browser.ask("inPage.sleep(3000).then(inPage.state)")?;
    ensure!(
        state == "ended",
        "three seconds after the end it is {state}"
    );
    stage.browser.size(800, 600)?;
    stage.picture("ended")?;
    stage.restart("127.0.0.1")?;
    stage.browser.wait_for_state("live")?;
    moves(stage)
}

/// On every network a token is needed, for everything.
pub(super) fn token(stage: &mut Stage<'_>) -> Result<()> {
    stage.start(&format!("{WIDE}:0"))?;
    let token = stage.program.token().to_owned();
    ensure!(token.starts_with("token="), "{WIDE} needs no token");
    stage.open()?;
    moves(stage)?;
    let requests = stage.browser.heard()?.requests;
    for request in requests
        .iter()
        .filter(|request| request.starts_with("http"))
    {
        ensure!(
            request.contains(&token),
            "a request without the token: {request}"
        );
    }
    for path in [
        "/",
        "/events",
        "/stream.mjpg",
        "/snapshot.jpg",
        "/status.json",
        "/metrics",
    ] {
        for query in ["", "?token=0123456789abcdef0123456789abcdef"] {
            let answer: (u16, String) = stage.browser.ask(&format!(
                "fetch('{path}{query}').then(async (answer) => [answer.status, await answer.text()])"
            ))?;
            let (status, text) = &answer;
            ensure!(
                *status == 401 && text.contains("token"),
                "{path}{query} is answered by {status}: {text:.100}"
            );
        }
    }
    Ok(())
}

/// A program that was started anew has another token: the page says what to do.
pub(super) fn new_token(stage: &mut Stage<'_>) -> Result<()> {
    stage.start(&format!("{WIDE}:0"))?;
    stage.open()?;
    stage.program.kill()?;
    stage.browser.wait_for_state("lost")?;
    stage.restart(WIDE)?;
    let asks = "inPage.text('message').includes('token')";
    stage.browser.wait_for("words about the token", asks)?;
    let state: Value = stage.browser.ask("inPage.state()")?;
    ensure!(state == "lost", "without its token the page is {state}");
    stage.browser.size(800, 600)?;
    stage.picture("401")?;
    let address = stage.program.address();
    stage.browser.go(&address)?;
    stage.browser.wait_for_state("live")
}
