//! Finding and loading TensorRT.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::abi::{Object, Pointer};
use crate::error::{Attempt, Error, Result};
use crate::logger::Logger;
use crate::slots::Slots;
use crate::version::{Layout, Version};

/// Environment variable with the path of the library or its directory.
pub const VARIABLE: &str = "LOFTUP_TENSORRT";

/// Names tried by default: newest first, TensorRT before TensorRT-RTX.
const LIBRARIES: [&str; 6] = [
    "libnvinfer.so.11",
    "libnvinfer.so.10",
    "libnvinfer.so.8",
    "libnvinfer.so",
    "libtensorrt_rtx.so.1",
    "libtensorrt_rtx.so",
];

/// Names searched in a directory, in this order. The lean runtime is used only if it is
/// selected explicitly: it cannot build engines.
const IN_DIRECTORY: [&str; 9] = [
    "libnvinfer.so.11",
    "libnvinfer.so.10",
    "libnvinfer.so.8",
    "libnvinfer.so",
    "libtensorrt_rtx.so.1",
    "libtensorrt_rtx.so",
    "libnvinfer_lean.so.11",
    "libnvinfer_lean.so.10",
    "libnvinfer_lean.so.8",
];

/// A loaded TensorRT library of a supported version.
///
/// Loading calls only `getInferLibVersion`, which works without a GPU. Cheap to clone.
///
/// The library is never unloaded. Its static state (plugin registry, CUDA's per-process modules,
/// threads) does not survive being unmapped while the driver still refers to it.
#[derive(Debug, Clone)]
pub struct Library(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    path: String,
    handle: &'static libloading::Library,
    version: Version,
    layout: Layout,
    slots: Slots,
    logger: Logger,
}

type VersionFunction = unsafe extern "C" fn() -> i32;
type Factory = unsafe extern "C" fn(logger: Pointer, version: i32) -> Pointer;

impl Library {
    /// Loads the TensorRT given by `LOFTUP_TENSORRT` if that is set, or the one that the
    /// dynamic loader finds.
    ///
    /// # Errors
    /// [`Error::NoLibrary`] with everything that was tried, [`Error::Symbol`]
    /// for a library that is not TensorRT, [`Error::Unsupported`] for a version
    /// whose tables are unknown.
    pub fn find() -> Result<Library> {
        match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            Some(path) => Library::open(Path::new(&path)),
            None => Library::first_of(LIBRARIES.iter().map(PathBuf::from).collect()),
        }
    }

    /// Loads the library `path`, or the newest one in the directory `path`.
    ///
    /// # Errors
    /// Same as for [`Library::find`].
    pub fn open(path: &Path) -> Result<Library> {
        if !path.is_dir() {
            return Library::first_of(vec![path.to_path_buf()]);
        }
        let there: Vec<PathBuf> = IN_DIRECTORY
            .iter()
            .map(|name| path.join(name))
            .filter(|file| file.exists())
            .collect();
        if there.is_empty() {
            let reason = "the directory contains no libnvinfer or libtensorrt_rtx".into();
            let library = path.display().to_string();
            return Err(Error::NoLibrary {
                tried: vec![Attempt { library, reason }],
            });
        }
        Library::first_of(there)
    }

    fn first_of(candidates: Vec<PathBuf>) -> Result<Library> {
        let (path, handle) = open_first(&candidates).map_err(|tried| Error::NoLibrary { tried })?;
        Library::with_handle(path, handle)
    }

    fn with_handle(path: String, handle: &'static libloading::Library) -> Result<Library> {
        let number: VersionFunction = symbol(
            handle,
            &path,
            "getInferLibVersion",
            "it is not a TensorRT library; set LOFTUP_TENSORRT to one",
        )?;
        // SAFETY: `int32_t getInferLibVersion() noexcept` in all versions; it returns a constant.
        let version = Version::decode(unsafe { number() })?;
        let layout = version.layout()?;
        let slots = Slots::of(layout);
        log::info!("opened {version} at {path}");
        if !version.is_checked() {
            log::warn!(
                "{version} is newer than the versions with verified function tables; \
                 NVIDIA keeps them within a major version"
            );
        }
        let logger = Logger::new(&slots);
        Ok(Library(Arc::new(Opened {
            path,
            handle,
            version,
            layout,
            slots,
            logger,
        })))
    }

    /// Path or name of the library.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Its function table.
    pub fn layout(&self) -> Layout {
        self.0.layout
    }

    /// The logger of all objects created with this library.
    pub fn logger(&self) -> &Logger {
        &self.0.logger
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.0.slots
    }

    /// Whether the library can build engines: the lean runtimes cannot.
    pub fn can_build(&self) -> bool {
        self.factory("createInferBuilder_INTERNAL", "").is_ok()
    }

    fn factory(&self, name: &'static str, hint: &'static str) -> Result<Factory> {
        symbol(self.0.handle, &self.0.path, name, hint)
    }

    /// Calls an exported factory.
    ///
    /// # Safety
    /// The caller must have verified that CUDA works ([`crate::cuda::Cuda`]), or that this factory
    /// of this library works without it (the builder of TensorRT-RTX).
    pub(crate) unsafe fn create(&self, name: &'static str, hint: &'static str) -> Result<Object> {
        let factory = self.factory(name, hint)?;
        let mark = self.logger().mark();
        // Pass the version that the library itself reported, as its own headers would.
        let version = self.number();
        // SAFETY: `void* createInfer..._INTERNAL(void* logger, int32_t version) noexcept` in all
        // supported versions; the logger is never freed; the caller guarantees that CUDA works.
        let pointer = unsafe { factory(self.logger().pointer(), version) };
        Object::accept(pointer).ok_or_else(|| match self.refused(name, mark) {
            Error::Refused { message, .. } if message.contains("CUDA initialization failure") => {
                Error::NoCuda {
                    reason: format!("{} could not use the driver: {message}", self.version()),
                }
            }
            other => other,
        })
    }

    /// The number returned by `getInferLibVersion`.
    fn number(&self) -> i32 {
        let Version {
            major,
            minor,
            patch,
            ..
        } = self.0.version;
        let unit = if self.0.layout == Layout::V8 {
            1_000
        } else {
            10_000
        };
        (major * unit + minor * 100 + patch) as i32
    }

    /// The error for a call that TensorRT rejected, with its log messages since `mark`.
    pub(crate) fn refused(&self, call: &'static str, mark: u64) -> Error {
        Error::Refused {
            call,
            message: crate::diagnosis::joined(&self.logger().since(mark)),
        }
    }

    /// The ONNX parser that matches this library.
    pub(crate) fn parser(&self) -> Result<ParserLibrary> {
        let candidates = parser_candidates(&self.0.path, self.0.version, self.0.layout);
        let (path, handle) = open_first(&candidates).map_err(|tried| Error::NoParser { tried })?;
        ParserLibrary::with_handle(path, handle)
    }
}

/// An opened ONNX parser.
#[derive(Debug, Clone)]
pub(crate) struct ParserLibrary {
    path: String,
    version: i32,
    create: unsafe extern "C" fn(network: Pointer, logger: Pointer, version: i32) -> Pointer,
}

impl ParserLibrary {
    fn with_handle(path: String, handle: &'static libloading::Library) -> Result<ParserLibrary> {
        const HINT: &str = "it is not TensorRT's ONNX parser; install libnvonnxparser of the same version as libnvinfer";
        let version: VersionFunction = symbol(handle, &path, "getNvOnnxParserVersion", HINT)?;
        let create = symbol(handle, &path, "createNvOnnxParser_INTERNAL", HINT)?;
        // SAFETY: `int getNvOnnxParserVersion() noexcept`; it returns a constant.
        let version = unsafe { version() };
        log::debug!("opened the ONNX parser {version} at {path}");
        // 0.1.0 up to TensorRT 10 and TensorRT-RTX 1.5, 0.2.0 since.
        if !matches!(version, 100 | 200) {
            return Err(Error::Unsupported {
                version: format!("ONNX parser number {version}"),
            });
        }
        Ok(ParserLibrary {
            path,
            version,
            create,
        })
    }

    /// Creates a parser that populates `network`.
    ///
    /// # Safety
    /// `network` must be a live `INetworkDefinition` of `library` and outlive the parser.
    pub(crate) unsafe fn create(&self, library: &Library, network: Object) -> Result<Object> {
        let mark = library.logger().mark();
        // SAFETY: `void* createNvOnnxParser_INTERNAL(void* network, void* logger, int version)
        // noexcept`; the caller guarantees the network, and the logger is never freed.
        let pointer =
            unsafe { (self.create)(network.pointer(), library.logger().pointer(), self.version) };
        Object::accept(pointer).ok_or_else(|| {
            log::debug!("the parser library {} returned no parser object", self.path);
            library.refused("createNvOnnxParser_INTERNAL", mark)
        })
    }
}

/// Candidate paths of the parser of a library: its directory, then the loader's search path.
fn parser_candidates(library: &str, version: Version, layout: Layout) -> Vec<PathBuf> {
    let names: Vec<String> = if layout.is_rtx() {
        [
            "libtensorrt_onnxparser_rtx.so.1",
            "libtensorrt_onnxparser_rtx.so",
        ]
        .map(String::from)
        .to_vec()
    } else {
        vec![format!("libnvonnxparser.so.{}", version.major)]
    };
    let beside = Path::new(library)
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let beside = beside
        .into_iter()
        .flat_map(|parent| names.iter().map(|name| parent.join(name)));
    beside
        .filter(|path| path.exists())
        .chain(names.iter().map(PathBuf::from))
        .collect()
}

/// Opens the first candidate that can be opened, and never closes it.
fn open_first(
    candidates: &[PathBuf],
) -> std::result::Result<(String, &'static libloading::Library), Vec<Attempt>> {
    let mut tried = Vec::new();
    for candidate in candidates {
        let path = candidate.display().to_string();
        // SAFETY: opening a library runs its initializers. NVIDIA's only set up static state, with
        // and without a GPU. Any other file with this name can run arbitrary code, as with every
        // dynamically linked library.
        match unsafe { libloading::Library::new(candidate) } {
            Ok(handle) => return Ok((path, Box::leak(Box::new(handle)))),
            Err(error) => tried.push(Attempt {
                reason: loader_reason(&error, &path),
                library: path,
            }),
        }
    }
    Err(tried)
}

/// The dynamic loader's message without the path, which the caller adds.
pub(crate) fn loader_reason(error: &libloading::Error, path: &str) -> String {
    let cause = std::error::Error::source(error).map(|source| source.to_string());
    let text = cause.unwrap_or_else(|| error.to_string());
    let own = text
        .strip_prefix(path)
        .and_then(|rest| rest.strip_prefix(": "));
    match own {
        Some(rest) if rest.contains("No such file") => "not found".into(),
        Some(rest) => rest.to_string(),
        None => text,
    }
}

/// Looks up an exported function.
fn symbol<F: Copy>(
    handle: &'static libloading::Library,
    path: &str,
    name: &'static str,
    hint: &'static str,
) -> Result<F> {
    // SAFETY: every caller names a function of NVIDIA's C API with the type declared in NVIDIA's
    // headers.
    match unsafe { handle.get::<F>(name.as_bytes()) } {
        Ok(found) => Ok(*found),
        Err(_) => Err(Error::Symbol {
            library: path.into(),
            name: name.into(),
            hint,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_reported_with_a_hint() {
        let error = Library::open(Path::new("/nowhere/libnvinfer.so.10")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/libnvinfer.so.10: not found"),
            "{text}"
        );
        assert!(text.contains("LOFTUP_TENSORRT"), "{text}");
    }

    #[test]
    fn an_empty_directory_is_an_error_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let text = Library::open(directory.path()).unwrap_err().to_string();
        assert!(text.contains("contains no libnvinfer"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_the_loaders_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("libnvinfer.so.10");
        std::fs::write(&path, b"not a library").unwrap();
        let text = Library::open(directory.path()).unwrap_err().to_string();
        assert!(
            text.contains("file too short") || text.contains("invalid ELF"),
            "{text}"
        );
    }

    #[test]
    fn a_library_that_is_not_tensorrt_is_told_by_its_missing_version() {
        let text = Library::open(Path::new("libm.so.6"))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("libm.so.6 does not export getInferLibVersion"),
            "{text}"
        );
    }

    #[test]
    fn the_parser_is_looked_for_with_the_librarys_major_version() {
        let version = Version::decode(100300).unwrap();
        let names = parser_candidates("libnvinfer.so.10", version, Layout::V10);
        assert_eq!(names, [PathBuf::from("libnvonnxparser.so.10")]);
    }
}
