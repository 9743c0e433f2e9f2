//! What the system says of itself: temperature and clock of the CPU, memory of this process. Nothing where it says nothing.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The readings of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Readings {
    /// The CPU's temperature in degrees Celsius: of several sensors, the hottest.
    pub temperature_c: Option<f64>,
    /// The CPU's clock in megahertz: of several cores, the fastest.
    pub clock_mhz: Option<f64>,
}

impl Readings {
    /// Reads sysfs (Linux: `thermal` and `cpufreq`).
    pub fn now() -> Self {
        Self {
            temperature_c: temperature(Path::new("/sys/class/thermal")),
            clock_mhz: clock(Path::new("/sys/devices/system/cpu")),
        }
    }
}

/// Of the zones that are the CPU's by name, or of all where none is.
fn temperature(thermal: &Path) -> Option<f64> {
    let zones = fs::read_dir(thermal)
        .ok()?
        .flatten()
        .map(|zone| zone.path());
    let zones: Vec<(String, f64)> = zones
        .filter_map(|zone| {
            let kind = fs::read_to_string(zone.join("type")).ok()?;
            let millidegrees: f64 = number(&zone.join("temp"))?;
            Some((kind.to_lowercase(), millidegrees / 1e3))
        })
        .collect();
    // cpu-thermal (Raspberry Pi), cpu_thermal, CPU-therm (Jetson), soc-thermal (RK3588), x86_pkg_temp.
    let is_cpu = |kind: &str| ["cpu", "soc", "pkg"].iter().any(|part| kind.contains(part));
    let hottest = |cpu_only: bool| {
        let wanted = zones.iter().filter(|(kind, _)| !cpu_only || is_cpu(kind));
        wanted.map(|(_, degrees)| *degrees).reduce(f64::max)
    };
    hottest(true).or_else(|| hottest(false))
}

fn clock(cpus: &Path) -> Option<f64> {
    let cpus = fs::read_dir(cpus).ok()?.flatten();
    let kilohertz = cpus.filter_map(|cpu| number(&cpu.path().join("cpufreq/scaling_cur_freq")));
    kilohertz.reduce(f64::max).map(|kilohertz| kilohertz / 1e3)
}

fn number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bytes of memory that this process occupies (Linux).
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = kilobytes.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_cpus_own_sensors_count() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(temperature(&folder.join("none")), None);
        put(folder, "thermal_zone0/type", "gpu-thermal\n");
        put(folder, "thermal_zone0/temp", "70000\n");
        assert_eq!(temperature(folder), Some(70.0));
        put(folder, "thermal_zone1/type", "CPU-therm\n");
        put(folder, "thermal_zone1/temp", "51234\n");
        put(folder, "thermal_zone2/type", "cpu-big\n");
        assert_eq!(temperature(folder), Some(51.234));
    }

    #[test]
    fn the_fastest_core_counts() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "cpu0/cpufreq/scaling_cur_freq", "600000\n");
        put(folder.path(), "cpu4/cpufreq/scaling_cur_freq", "1800000\n");
        put(folder.path(), "cpuidle/x", "");
        assert_eq!(clock(folder.path()), Some(1800.0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory() {
        assert!(resident_bytes().unwrap() > 100_000);
    }
}
