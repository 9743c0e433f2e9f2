//! Which cores a session runs on: by number, or the big or the little ones.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Where Linux says what its cores are like.
const SYSFS: &str = "/sys/devices/system/cpu";

/// Cores within this part of the largest are as large as it: favoured cores of desktop CPUs clock a few percent higher, the smaller
/// ones of big.LITTLE reach three quarters at most.
const EQUAL_PERCENT: u64 = 90;

/// Which cores to run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cores {
    /// The fast ones of a machine that has fast and slow ones: those above the middle between the fastest and the slowest.
    Big,
    /// The slow ones.
    Little,
    /// These.
    List(CpuList),
}

impl FromStr for Cores {
    type Err = CoresError;

    /// `big`, `little`, or a [`CpuList`].
    fn from_str(text: &str) -> Result<Self, CoresError> {
        match text {
            "big" => Ok(Self::Big),
            "little" => Ok(Self::Little),
            _ => text.parse().map(Self::List),
        }
    }
}

/// The numbers of cores, written as Linux does: `0-3` or `0,2`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuList([u64; Self::MAX / 64]);

impl CpuList {
    /// Numbers are below this, as the system call has it.
    pub const MAX: usize = 1024;

    /// Adds a core; one that cannot be is left out.
    fn insert(&mut self, cpu: usize) {
        if let Some(word) = self.0.get_mut(cpu / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    /// Whether the core is in it.
    pub fn contains(&self, cpu: usize) -> bool {
        self.0
            .get(cpu / 64)
            .is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<'_> {
        (0..Self::MAX).filter(|&cpu| self.contains(cpu))
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn and(&self, other: &Self) -> Self {
        self.iter().filter(|&cpu| other.contains(cpu)).collect()
    }
}

impl FromIterator<usize> for CpuList {
    /// Numbers from [`CpuList::MAX`] on are left out.
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        let mut list = Self::default();
        cpus.into_iter().for_each(|cpu| list.insert(cpu));
        list
    }
}

impl FromStr for CpuList {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Self, CoresError> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu_number(first)?, cpu_number(last)?);
            (first <= last).then_some(first..=last)
        };
        let ranges = text.split(',').map(range).collect::<Option<Vec<_>>>();
        ranges
            .map(|ranges| ranges.into_iter().flatten().collect())
            .ok_or_else(|| CoresError::Syntax {
                text: text.to_owned(),
            })
    }
}

/// Digits only: `parse` would take a sign.
fn cpu_number(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    (number < CpuList::MAX).then_some(number)
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuList({self})")
    }
}

/// The cores a session runs on, as [`Cores`] chose them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreChoice {
    /// Their numbers.
    pub cpus: CpuList,
    /// Whether big ones were asked for where all are alike, so that all were taken.
    pub all_alike: bool,
}

impl fmt::Display for CoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.all_alike {
            " (all: this machine's cores are alike)"
        } else {
            ""
        };
        write!(f, "{}{note}", self.cpus)
    }
}

/// Why a session cannot run on the cores asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoresError {
    /// Not `big`, `little` or numbers.
    #[error(
        "'{text}' names no cores; give big, little, or numbers below {} as in 0-3 or 0,2",
        CpuList::MAX
    )]
    Syntax {
        /// What was given.
        text: String,
    },
    /// Little cores were asked for, and there are none.
    #[error(
        "there are no little cores: this machine's cores are alike; choose none, or give numbers as in 0-3"
    )]
    AllAlike,
    /// None of the cores may be used.
    #[error(
        "this process may not run on {asked}: those cores are offline, or taken from it by taskset or a cgroup; it may run on {allowed}"
    )]
    NotAllowed {
        /// The cores asked for.
        asked: String,
        /// The cores that it may use.
        allowed: String,
    },
    /// The system refused.
    #[error("the system does not let this process choose its cores ({0}); choose none")]
    System(std::io::Error),
    /// This system has no such call, or none that is known here.
    #[error("cores can be chosen on Linux only; choose none")]
    Unsupported,
}

impl Cores {
    /// Has the calling thread, and the threads that it starts from now on, run on these cores only.
    ///
    /// # Errors
    /// If there are no such cores, or the process may not use them.
    pub(crate) fn pin(self) -> Result<CoreChoice, CoresError> {
        let choice = self.choose(Path::new(SYSFS), &affinity::get()?)?;
        affinity::set(&choice.cpus)?;
        Ok(choice)
    }

    /// Which of the `allowed` cores these are, on the machine that `sysfs` describes.
    fn choose(self, sysfs: &Path, allowed: &CpuList) -> Result<CoreChoice, CoresError> {
        let (asked, all_alike) = match (self, Clusters::read(sysfs)) {
            (Self::List(cpus), _) => (cpus, false),
            (Self::Big, Some(clusters)) => (clusters.big, false),
            (Self::Little, Some(clusters)) => (clusters.little, false),
            (Self::Big, None) => (*allowed, true),
            (Self::Little, None) => return Err(CoresError::AllAlike),
        };
        let cpus = asked.and(allowed);
        if cpus.is_empty() {
            return Err(CoresError::NotAllowed {
                asked: asked.to_string(),
                allowed: allowed.to_string(),
            });
        }
        Ok(CoreChoice { cpus, all_alike })
    }
}

/// The two kinds of cores.
struct Clusters {
    big: CpuList,
    little: CpuList,
}

impl Clusters {
    /// `None` where nothing tells the cores apart.
    fn read(sysfs: &Path) -> Option<Self> {
        let sizes = |file| sizes(sysfs, file);
        // The scheduler's own figure where the device tree gives it, else the highest clock.
        let mut cores = sizes("cpu_capacity");
        if cores.is_empty() {
            cores = sizes("cpufreq/cpuinfo_max_freq");
        }
        let largest = cores.iter().map(|&(_, size)| size).max()?;
        let smallest = cores.iter().map(|&(_, size)| size).min()?;
        if smallest.saturating_mul(100) >= largest.saturating_mul(EQUAL_PERCENT) {
            return None;
        }
        let middle = smallest + (largest - smallest) / 2;
        let those = |big| {
            let of_kind = cores.iter().filter(|(_, size)| (*size > middle) == big);
            of_kind.map(|&(cpu, _)| cpu).collect()
        };
        Some(Self {
            big: those(true),
            little: those(false),
        })
    }
}

/// What `file` says of each core that has it; an offline one may not.
fn sizes(sysfs: &Path, file: &str) -> Vec<(usize, u64)> {
    let entries = sysfs.read_dir().into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let cpu = cpu_number(name.to_str()?.strip_prefix("cpu")?)?;
        let text = std::fs::read_to_string(entry.path().join(file)).ok()?;
        Some((cpu, text.trim().parse().ok()?))
    };
    entries.filter_map(size).collect()
}

#[cfg(target_os = "linux")]
mod affinity {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::{CoresError, CpuList};

    /// The cores that the calling thread may run on.
    pub(super) fn get() -> Result<CpuList, CoresError> {
        let set = sched_getaffinity(None).map_err(|error| CoresError::System(error.into()))?;
        Ok((0..CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect())
    }

    /// Restricts the calling thread to them.
    pub(super) fn set(cpus: &CpuList) -> Result<(), CoresError> {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(cpu));
        sched_setaffinity(None, &set).map_err(|error| CoresError::System(error.into()))
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    use super::{CoresError, CpuList};

    pub(super) fn get() -> Result<CpuList, CoresError> {
        Err(CoresError::Unsupported)
    }

    pub(super) fn set(_: &CpuList) -> Result<(), CoresError> {
        Err(CoresError::Unsupported)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    /// A machine whose cores have these sizes in `file`; 0 stands for a core without it.
    fn machine(file: &str, sizes: &[u64]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (cpu, size) in sizes.iter().enumerate() {
            let path = folder.path().join(format!("cpu{cpu}")).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if *size > 0 {
                std::fs::write(path, format!("{size}\n")).unwrap();
            }
        }
        // What else lies there.
        for name in ["cpufreq", "cpuidle", "cpu"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        folder
    }

    fn chosen(cores: &str, machine: &TempDir, allowed: &str) -> Result<String, String> {
        let cores: Cores = cores.parse().unwrap();
        let choice = cores.choose(machine.path(), &list(allowed));
        choice
            .map(|choice| choice.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn lists_are_read_and_written() {
        for (text, shown) in [
            ("0", "0"),
            ("0-3", "0-3"),
            ("0,2", "0,2"),
            ("4,2-3,0,1", "0-4"),
            ("0-1,3,5-6", "0-1,3,5-6"),
            ("1023", "1023"),
        ] {
            assert_eq!(list(text).to_string(), shown);
        }
        for text in [
            "", "x", "3-1", "-1", "1-", "0,,1", "1024", "+1", "0 1", "Big",
        ] {
            let error = text.parse::<Cores>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("'{text}' names no cores")),
                "{error}"
            );
        }
    }

    #[test]
    fn big_and_little_by_capacity() {
        let two = machine("cpu_capacity", &[446, 446, 446, 446, 1024, 1024]);
        assert_eq!(chosen("big", &two, "0-5").unwrap(), "4-5");
        assert_eq!(chosen("little", &two, "0-5").unwrap(), "0-3");
        // Three kinds: the middle one counts to the nearer.
        let three = machine("cpu_capacity", &[325, 325, 325, 325, 744, 744, 744, 1024]);
        assert_eq!(chosen("big", &three, "0-7").unwrap(), "4-7");
        assert_eq!(chosen("little", &three, "0-7").unwrap(), "0-3");
    }

    #[test]
    fn big_and_little_by_clock_where_there_is_no_capacity() {
        let clocks = machine(
            "cpufreq/cpuinfo_max_freq",
            &[1_800_000, 1_800_000, 2_400_000],
        );
        assert_eq!(chosen("big", &clocks, "0-2").unwrap(), "2");
        assert_eq!(chosen("little", &clocks, "0-2").unwrap(), "0-1");
    }

    #[test]
    fn cores_that_are_alike() {
        let none = "there are no little cores: this machine's cores are alike; \
                    choose none, or give numbers as in 0-3";
        let all = "0-1,3 (all: this machine's cores are alike)";
        for machine in [
            machine("cpu_capacity", &[1024; 4]),
            machine(
                "cpufreq/cpuinfo_max_freq",
                &[5_700_000, 5_700_000, 5_400_000, 5_400_000],
            ),
            machine("topology/core_id", &[1; 4]),
        ] {
            assert_eq!(chosen("big", &machine, "0-1,3").unwrap(), all);
            assert_eq!(chosen("little", &machine, "0-1,3").unwrap_err(), none);
        }
    }

    #[test]
    fn only_cores_that_may_be_used() {
        let board = machine("cpu_capacity", &[446, 446, 446, 446, 1024, 1024]);
        assert_eq!(chosen("big", &board, "0-4").unwrap(), "4");
        assert_eq!(chosen("0-3", &board, "2-5").unwrap(), "2-3");
        for (cores, asked) in [("big", "4-5"), ("5", "5"), ("4-7", "4-7")] {
            assert_eq!(
                chosen(cores, &board, "0-3").unwrap_err(),
                format!(
                    "this process may not run on {asked}: those cores are offline, or taken from it by taskset or a cgroup; \
                     it may run on 0-3"
                )
            );
        }
        // An offline core says nothing of itself.
        let offline = machine("cpufreq/cpuinfo_max_freq", &[1_800_000, 0, 2_400_000, 0]);
        assert_eq!(chosen("big", &offline, "0,2").unwrap(), "2");
        assert_eq!(chosen("little", &offline, "0,2").unwrap(), "0");
        assert!(chosen("1,3", &offline, "0,2").is_err());
    }

    /// On a thread of its own, which the other tests do not share.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_and_its_children_stay_there() {
        let pinned = std::thread::spawn(|| {
            let one: CpuList = affinity::get().unwrap().iter().take(1).collect();
            let choice = Cores::List(one).pin().unwrap();
            let child = std::thread::spawn(|| affinity::get().unwrap());
            (
                one,
                choice.cpus,
                affinity::get().unwrap(),
                child.join().unwrap(),
            )
        });
        let (one, chosen, here, child) = pinned.join().unwrap();
        assert_eq!([chosen, here, child], [one; 3]);
    }
}
