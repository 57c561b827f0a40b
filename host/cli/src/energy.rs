//! Energy used by the machine, where its sensors can be read.
//!
//! - RAPL (Intel and AMD): `/sys/class/powercap/intel-rapl:N`, a counter of microjoules for each package. Most
//!   systems let only root read it.
//! - INA3221 (Jetson): `/sys/class/hwmon/hwmonN`, voltage in millivolts and current in milliamperes of each rail,
//!   sampled by a thread.
//!
//! Both measure everything that runs on the machine, and idle power with it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Interval between two samples of voltage and current. The sensor averages over a longer time.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);
/// An INA3221 has three channels.
const CHANNELS: std::ops::RangeInclusive<u32> = 1..=3;

/// The sensors of a machine.
#[derive(Debug)]
pub struct Sensors {
    packages: Vec<Package>,
    rails: Vec<Rail>,
}

/// A RAPL counter.
#[derive(Debug, Clone)]
struct Package {
    name: String,
    counter: PathBuf,
    /// Where the counter wraps around, in microjoules.
    range: u64,
}

/// A channel of an INA3221.
#[derive(Debug, Clone)]
struct Rail {
    name: String,
    millivolts: PathBuf,
    milliamperes: PathBuf,
}

impl Sensors {
    /// The sensors below `sys` (`/sys`) that can be read.
    pub fn find(sys: &Path) -> Self {
        let mut packages: Vec<Package> = entries(&sys.join("class/powercap"))
            .into_iter()
            .filter_map(|directory| {
                // `intel-rapl:0` is a package, `intel-rapl:0:1` a part of one.
                let file = directory.file_name()?.to_str()?;
                let index = file.strip_prefix("intel-rapl:")?;
                if index.contains(':') {
                    return None;
                }
                let package = Package {
                    name: read(&directory.join("name"))?,
                    counter: directory.join("energy_uj"),
                    range: read(&directory.join("max_energy_range_uj"))?,
                };
                read::<u64>(&package.counter).map(|_| package)
            })
            .collect();
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rails = Vec::new();
        for directory in entries(&sys.join("class/hwmon")) {
            if read::<String>(&directory.join("name")).as_deref() != Some("ina3221") {
                continue;
            }
            rails.extend(CHANNELS.filter_map(|channel| {
                let rail = Rail {
                    name: read(&directory.join(format!("in{channel}_label")))?,
                    millivolts: directory.join(format!("in{channel}_input")),
                    milliamperes: directory.join(format!("curr{channel}_input")),
                };
                rail.watts().map(|_| rail)
            }));
        }
        rails.sort_by(|a, b| a.name.cmp(&b.name));
        Self { packages, rails }
    }

    /// Whether there is anything to measure.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.rails.is_empty()
    }

    /// Starts a measurement.
    pub fn start(&self) -> Measurement {
        let packages = self.packages.iter().cloned();
        let packages = packages.filter_map(|p| Some((p.microjoules()?, p)));
        let (rails, stop) = (self.rails.clone(), Arc::new(AtomicBool::new(false)));
        let sampler = (!rails.is_empty()).then(|| {
            let stop = stop.clone();
            let began = Instant::now();
            thread::spawn(move || integrate(&rails, began, &stop))
        });
        Measurement {
            packages: packages.collect(),
            sampler,
            stop,
        }
    }
}

/// A measurement that is running.
pub struct Measurement {
    packages: Vec<(u64, Package)>,
    sampler: Option<JoinHandle<BTreeMap<String, f64>>>,
    stop: Arc<AtomicBool>,
}

impl Measurement {
    /// Joules since the start, by package or rail.
    pub fn finish(self) -> BTreeMap<String, f64> {
        self.stop.store(true, Relaxed);
        let mut joules: BTreeMap<String, f64> = self
            .packages
            .iter()
            .filter_map(|(before, package)| {
                let after = package.microjoules()?;
                let used = match after.checked_sub(*before) {
                    Some(used) => used,
                    None => after + package.range.saturating_sub(*before),
                };
                Some((package.name.clone(), used as f64 / 1e6))
            })
            .collect();
        if let Some(Ok(rails)) = self.sampler.map(JoinHandle::join) {
            joules.extend(rails);
        }
        joules
    }
}

/// Integrates the power of the rails from `began` until `stop` is set.
fn integrate(rails: &[Rail], began: Instant, stop: &AtomicBool) -> BTreeMap<String, f64> {
    let mut joules: BTreeMap<String, f64> = BTreeMap::new();
    let mut last = began;
    loop {
        let stopped = stop.load(Relaxed);
        let now = Instant::now();
        let seconds = (now - last).as_secs_f64();
        last = now;
        for rail in rails {
            if let Some(watts) = rail.watts() {
                *joules.entry(rail.name.clone()).or_default() += watts * seconds;
            }
        }
        if stopped {
            return joules;
        }
        thread::sleep(SAMPLE_INTERVAL);
    }
}

impl Package {
    fn microjoules(&self) -> Option<u64> {
        read(&self.counter)
    }
}

impl Rail {
    fn watts(&self) -> Option<f64> {
        let millivolts: f64 = read(&self.millivolts)?;
        let milliamperes: f64 = read(&self.milliamperes)?;
        Some(millivolts * milliamperes / 1e6)
    }
}

/// The directories and links in a directory; none if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn read<T: FromStr>(path: &Path) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn package(sys: &Path, index: &str, name: &str, counter: u64) {
        let directory = sys.join("class/powercap").join(index);
        write(directory.join("name"), name);
        write(directory.join("max_energy_range_uj"), "262143328850");
        write(directory.join("energy_uj"), &counter.to_string());
    }

    #[test]
    fn packages_are_counted_across_a_wrap() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        package(sys, "intel-rapl:0", "package-0", 262_143_000_000);
        package(sys, "intel-rapl:1", "package-1", 5_000_000);
        package(sys, "intel-rapl:0:0", "core", 1);
        let sensors = Sensors::find(sys);
        assert!(!sensors.is_empty());
        let measurement = sensors.start();
        package(sys, "intel-rapl:0", "package-0", 1_671_150);
        package(sys, "intel-rapl:1", "package-1", 7_500_000);
        let joules = measurement.finish();
        assert_eq!(
            joules.keys().collect::<Vec<_>>(),
            ["package-0", "package-1"]
        );
        assert!((joules["package-0"] - 2.0).abs() < 1e-9, "{joules:?}");
        assert!((joules["package-1"] - 2.5).abs() < 1e-9, "{joules:?}");
    }

    #[test]
    fn power_of_rails_is_integrated() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        let directory = sys.join("class/hwmon/hwmon3");
        write(directory.join("name"), "ina3221");
        for (channel, label) in [(1, "VDD_IN"), (2, "VDD_CPU_GPU_CV")] {
            write(directory.join(format!("in{channel}_label")), label);
            write(directory.join(format!("in{channel}_input")), "5000");
            write(
                directory.join(format!("curr{channel}_input")),
                &(channel * 1000).to_string(),
            );
        }
        write(sys.join("class/hwmon/hwmon0/name"), "nvme");
        let sensors = Sensors::find(sys);
        let start = Instant::now();
        let measurement = sensors.start();
        thread::sleep(Duration::from_millis(60));
        let joules = measurement.finish();
        let most = 5.0 * start.elapsed().as_secs_f64();
        assert!(
            joules["VDD_IN"] >= 5.0 * 0.06 && joules["VDD_IN"] <= most,
            "{joules:?}"
        );
        let ratio = joules["VDD_CPU_GPU_CV"] / joules["VDD_IN"];
        assert!((ratio - 2.0).abs() < 1e-9, "{joules:?}");
    }

    #[test]
    fn a_machine_without_sensors_has_none() {
        let sys = tempfile::tempdir().unwrap();
        assert!(Sensors::find(sys.path()).is_empty());
        // A counter that only root can read, or that is broken.
        package(sys.path(), "intel-rapl:0", "package-0", 1);
        write(
            sys.path().join("class/powercap/intel-rapl:0/energy_uj"),
            "no number",
        );
        assert!(Sensors::find(sys.path()).is_empty());
    }
}
