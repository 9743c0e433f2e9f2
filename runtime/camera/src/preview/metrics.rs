//! Prometheus' text format (version 0.0.4).

use std::fmt::Write as _;

use super::hub::Hub;
use crate::sensors::resident_bytes;

/// Everything that is counted.
pub(super) fn text(hub: &Hub) -> String {
    let counts = hub.counts();
    let mut page = Page(String::new());
    let hello = &hub.hello;
    let labels = [
        ("version", hello.version.as_str()),
        ("model", &hello.model),
        ("kernel", &hello.kernel),
        ("source", &hello.source),
    ];
    page.family("vitlet_info", "gauge", "What runs.");
    page.sample("vitlet_info", &labels, 1.0);
    for (name, help, value) in [
        ("captured", "Frames of the source.", counts.captured),
        (
            "classified",
            "Frames that went through the network.",
            counts.classified,
        ),
        (
            "dropped",
            "Frames dropped since later ones came first.",
            counts.dropped,
        ),
        ("damaged", "Frames that could not be used.", counts.damaged),
        (
            "late",
            "Frames older than a period and an interval.",
            counts.late,
        ),
    ] {
        page.single(
            &format!("vitlet_frames_{name}_total"),
            "counter",
            help,
            value as f64,
        );
    }
    page.family(
        "vitlet_stage_seconds",
        "summary",
        "Time of a frame by stage.",
    );
    for (stage, meter) in counts.meters.named() {
        let percentiles = meter.percentiles();
        for (quantile, ms) in [
            ("0.5", percentiles.p50),
            ("0.9", percentiles.p90),
            ("0.99", percentiles.p99),
        ] {
            let labels = [("stage", stage), ("quantile", quantile)];
            page.sample("vitlet_stage_seconds", &labels, ms / 1e3);
        }
        let labels = [("stage", stage)];
        page.sample(
            "vitlet_stage_seconds_sum",
            &labels,
            meter.total().as_secs_f64(),
        );
        page.sample("vitlet_stage_seconds_count", &labels, meter.count() as f64);
    }
    let connected = f64::from(u8::from(counts.connected));
    page.single(
        "vitlet_camera_up",
        "gauge",
        "1 while the camera delivers.",
        connected,
    );
    let (temperature, clock) = (counts.readings.temperature_c, counts.readings.clock_mhz);
    drop(counts);
    for (name, help, value) in [
        (
            "vitlet_cpu_temperature_celsius",
            "The CPU's temperature.",
            temperature,
        ),
        (
            "vitlet_cpu_clock_hertz",
            "The fastest core's clock.",
            clock.map(|mhz| mhz * 1e6),
        ),
        (
            "process_resident_memory_bytes",
            "Memory of this process.",
            resident_bytes().map(|bytes| bytes as f64),
        ),
    ] {
        if let Some(value) = value {
            page.single(name, "gauge", help, value);
        }
    }
    page.0
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// A label's value: backslash, quote and line break are escaped.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page(String::new());
        page.sample("a", &[("b", "c\"\\\n")], 0.5);
        assert_eq!(page.0, "a{b=\"c\\\"\\\\\\n\"} 0.5\n");
    }
}
