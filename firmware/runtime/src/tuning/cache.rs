//! Cache of tuning results on disk.
//!
//! One text file per key: a line with the format, a line for each part of the key, and the result. Any
//! other content counts as a cache miss.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use loftup_bundle::sha256_hex;

use super::Tuning;
use crate::{RuntimeError, image::atomic::AtomicFile, user_cache};

const FORMAT: &str = "loftup tuning 1";
/// Maximum size of a cache file; valid ones are far smaller.
const LONGEST: u64 = 4096;

/// The cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuningKey {
    /// The processor.
    pub processor: String,
    /// Number of threads that can run at the same time.
    pub cores: usize,
    /// Instruction set of the kernels.
    pub instructions: String,
    /// Shape of the upsampler.
    pub upsampler: String,
    /// Version of this program.
    pub version: String,
}

impl TuningKey {
    fn text(&self) -> String {
        let plain = |s: &str| s.replace(char::is_control, " ");
        format!(
            "{FORMAT}\nprocessor: {}\ncores: {}\ninstructions: {}\nupsampler: {}\nversion: {}\n",
            plain(&self.processor),
            self.cores,
            plain(&self.instructions),
            plain(&self.upsampler),
            plain(&self.version),
        )
    }

    fn file_name(&self) -> String {
        format!("{}.tuning", &sha256_hex(self.text().as_bytes())[..16])
    }
}

/// The cache directory, or no cache.
#[derive(Debug, Clone)]
pub struct TuningCache {
    directory: Option<PathBuf>,
}

impl TuningCache {
    /// The cache in this directory, which is created on the first write.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(directory.into()),
        }
    }

    /// `loftup-edge/tuning` in the user's cache directory (`XDG_CACHE_HOME`, else `~/.cache`); no
    /// cache if neither is set.
    pub fn of_user() -> Self {
        Self {
            directory: user_cache::directory("tuning"),
        }
    }

    /// No cache.
    pub fn none() -> Self {
        Self { directory: None }
    }

    /// The cached result for `key`; on a miss, the result of `measure`, which is then cached.
    ///
    /// # Errors
    /// Errors of `measure`.
    pub fn get_or_measure(
        &self,
        key: &TuningKey,
        measure: impl FnOnce() -> Result<Option<Tuning>, RuntimeError>,
    ) -> Result<Option<Tuning>, RuntimeError> {
        let path = self.directory.as_ref().map(|d| d.join(key.file_name()));
        if let Some(path) = &path {
            match read(path, key) {
                Ok(Some(tuning)) => return Ok(Some(tuning)),
                Ok(None) => {}
                Err(why) => log::debug!("{}: {why}; measured anew", path.display()),
            }
        }
        let found = measure()?;
        if let (Some(path), Some(tuning)) = (&path, &found)
            && let Err(e) = write(path, key, tuning)
        {
            log::debug!("{}: {e}; the measurement is not kept", path.display());
        }
        Ok(found)
    }
}

/// Returns `None` if there is no file, and the reason if the file cannot be used.
fn read(path: &Path, key: &TuningKey) -> Result<Option<Tuning>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.map_err(|e| e.to_string())?;
    parse(&text, key).map(Some)
}

fn parse(text: &str, key: &TuningKey) -> Result<Tuning, String> {
    let rest = text
        .strip_prefix(&key.text())
        .ok_or("it is for something else, or damaged")?;
    let mut lines = rest.split_terminator('\n');
    let mut number = |name: &str| {
        let value = lines.next()?.strip_prefix(name)?.strip_prefix(": ")?;
        value.parse::<usize>().ok()
    };
    let (tile, threads) = (number("tile"), number("threads"));
    match (tile, threads, lines.next()) {
        (Some(tile), Some(threads), None)
            if super::TILES.contains(&tile) && (1..=key.cores).contains(&threads) =>
        {
            Ok(Tuning { tile, threads })
        }
        _ => Err("its result is damaged".into()),
    }
}

fn write(path: &Path, key: &TuningKey, tuning: &Tuning) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = AtomicFile::create(path)?;
    let Tuning { tile, threads } = tuning;
    write!(
        file.file(),
        "{}tile: {tile}\nthreads: {threads}\n",
        key.text()
    )?;
    file.commit()
}

/// Model name of this machine's CPU, or its architecture.
pub(super) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    name_in(&text).unwrap_or_else(|| std::env::consts::ARCH.into())
}

/// x86 has a model name; ARM has implementer and part numbers for each kind of core.
fn name_in(cpuinfo: &str) -> Option<String> {
    let fields = || {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.trim(), value.trim()))
    };
    let model = fields().find(|(name, _)| *name == "model name");
    if let Some((_, model)) = model {
        // Virtual machines on the same CPU may expose different features.
        let of = |wanted: &str| fields().find(|(name, _)| *name == wanted);
        let detail = ["model", "stepping", "cache size"]
            .into_iter()
            .filter_map(of)
            .map(|(name, value)| format!(", {name} {value}"));
        return Some(model.to_owned() + &detail.collect::<String>());
    }
    let mut parts = Vec::new();
    for (name, value) in fields() {
        if matches!(name, "CPU implementer" | "CPU part") && !parts.contains(&value) {
            parts.push(value);
        }
    }
    (!parts.is_empty()).then(|| format!("ARM {}", parts.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TuningKey {
        TuningKey {
            processor: "Some Processor".into(),
            cores: 4,
            instructions: "avx2".into(),
            upsampler: "384 channels, 2 layers, 4 heads".into(),
            version: "1.2.3".into(),
        }
    }

    const FOUND: Tuning = Tuning {
        tile: 48,
        threads: 2,
    };

    /// The result, and whether it was measured.
    fn get(cache: &TuningCache, key: &TuningKey) -> (Option<Tuning>, bool) {
        let mut measured = false;
        let tuning = cache.get_or_measure(key, || {
            measured = true;
            Ok(Some(FOUND))
        });
        (tuning.expect("nothing fails"), measured)
    }

    #[test]
    fn a_measurement_is_made_once_for_each_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = TuningCache::at(directory.path().join("not/there"));
        assert_eq!(get(&cache, &key()), (Some(FOUND), true));
        assert_eq!(get(&cache, &key()), (Some(FOUND), false));
        let changes: [fn(&mut TuningKey); 5] = [
            |k| k.processor.push('2'),
            |k| k.cores += 1,
            |k| k.instructions = "avx512".into(),
            |k| k.upsampler = "768 channels, 2 layers, 4 heads".into(),
            |k| k.version = "1.2.4".into(),
        ];
        for change in changes {
            let mut other = key();
            change(&mut other);
            assert_eq!(get(&cache, &other), (Some(FOUND), true), "{other:?}");
        }
        assert_eq!(get(&cache, &key()), (Some(FOUND), false));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_measured_anew_and_mended() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = TuningCache::at(directory.path());
        get(&cache, &key());
        let path = directory.path().join(key().file_name());
        let whole = fs::read(&path).expect("the file");
        let mut damages: Vec<Vec<u8>> = (0..whole.len() - 1)
            .step_by(5)
            .map(|n| whole[..n].to_vec())
            .collect();
        // The last newline does not matter.
        damages.extend((0..whole.len() - 1).step_by(5).map(|i| {
            let mut bytes = whole.clone();
            bytes[i] = 0xFF;
            bytes
        }));
        let text = String::from_utf8(whole.clone()).expect("text");
        for (from, to) in [
            ("tile: 48", "tile: 4800"),
            ("tile: 48", "tile: 0"),
            ("threads: 2", "threads: 5"),
            ("threads: 2", "threads: 0"),
            ("threads: 2", "threads: 2\nmore: 1"),
            ("Some Processor", "Same Processor"),
        ] {
            assert!(text.contains(from));
            damages.push(text.replace(from, to).into_bytes());
        }
        damages.push(vec![b'x'; 1 << 20]);
        for damage in damages {
            fs::write(&path, &damage).expect("written");
            assert_eq!(get(&cache, &key()), (Some(FOUND), true));
            assert_eq!(fs::read(&path).expect("the file"), whole, "mended");
        }
        assert_eq!(get(&cache, &key()), (Some(FOUND), false));
    }

    #[test]
    fn where_nothing_can_be_kept_it_is_measured_each_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "no directory").expect("written");
        for cache in [TuningCache::none(), TuningCache::at(&file)] {
            assert_eq!(get(&cache, &key()), (Some(FOUND), true));
            assert_eq!(get(&cache, &key()), (Some(FOUND), true));
        }
        // Failed measurements are not cached.
        let cache = TuningCache::at(directory.path());
        let nothing = cache.get_or_measure(&key(), || Ok(None));
        assert_eq!(nothing.expect("nothing fails"), None);
        assert_eq!(get(&cache, &key()), (Some(FOUND), true));
    }

    #[test]
    fn a_processor_is_known_by_its_name_or_its_numbers() {
        let x86 = "processor\t: 0\nmodel\t\t: 167\nmodel name\t: Some(R) CPU\nstepping\t: 1\ncache size\t: 16384 KB\n\nprocessor\t: 1\nmodel name\t: Some(R) CPU\n";
        assert_eq!(
            name_in(x86).as_deref(),
            Some("Some(R) CPU, model 167, stepping 1, cache size 16384 KB")
        );
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n\nprocessor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n";
        assert_eq!(name_in(arm).as_deref(), Some("ARM 0x41 0xd42 0xd0b"));
        assert_eq!(name_in(""), None);
        assert!(!processor().is_empty());
    }
}
