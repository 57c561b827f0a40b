//! The key of a cached engine.

use loftup_bundle::sha256_hex;

/// Everything that an engine depends on. Two engines with equal keys are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineKey {
    /// Name of the graph, for messages.
    pub graph: String,
    /// SHA-256 of the ONNX file, lowercase hexadecimal.
    pub sha256: String,
    /// Product and version of the library.
    pub library: String,
    /// Compute capability of the GPU, such as `8.7`.
    pub capability: String,
    /// Precision of the graph.
    pub precision: String,
    /// The shapes that the engine is built for.
    pub profiles: String,
    /// Builder settings.
    pub settings: String,
}

impl EngineKey {
    /// Names and values of the fields, in file order.
    fn fields(&self) -> [(&'static str, &str); 7] {
        [
            ("graph", &self.graph),
            ("graph-sha256", &self.sha256),
            ("library", &self.library),
            ("compute-capability", &self.capability),
            ("precision", &self.precision),
            ("profiles", &self.profiles),
            ("settings", &self.settings),
        ]
    }

    /// Serializes the key, one line per field.
    pub(super) fn text(&self) -> String {
        let line = |(name, value): (&str, &str)| format!("{name}: {}\n", value.replace('\n', " "));
        self.fields().into_iter().map(line).collect()
    }

    /// Parses the output of [`EngineKey::text`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| {
            let rest = lines.next()?.strip_prefix(name)?;
            rest.strip_prefix(": ").map(str::to_owned)
        };
        Some(Self {
            graph: field("graph")?,
            sha256: field("graph-sha256")?,
            library: field("library")?,
            capability: field("compute-capability")?,
            precision: field("precision")?,
            profiles: field("profiles")?,
            settings: field("settings")?,
        })
    }

    /// The file name: readable, and unique through the hash of the complete key.
    pub fn file_name(&self) -> String {
        let hash = &sha256_hex(self.text().as_bytes())[..16];
        format!(
            "{}-{}-{}-sm{}-{hash}.engine",
            self.graph_in_file_name(),
            plain(&self.precision),
            plain(&self.library),
            plain(&self.capability.replace('.', "")),
        )
    }

    pub(super) fn graph_in_file_name(&self) -> String {
        let stem = self.graph.rsplit('/').next().unwrap_or_default();
        plain(stem.strip_suffix(".onnx").unwrap_or(stem))
    }

    /// Describes how `other`, found in a file, differs from this key.
    pub(super) fn difference(&self, other: &Self) -> String {
        let differs = |((_, a), (_, b)): &((_, &str), (_, &str))| a != b;
        let pairs = self.fields().into_iter().zip(other.fields());
        // The hash of a graph identifies it better than its name.
        match pairs.skip(1).find(differs) {
            Some(((name, wanted), (_, found))) => {
                format!("it is for {name} {found}, but {wanted} is needed")
            }
            None => "it is for the same graph under another name".into(),
        }
    }
}

/// Replaces characters that are not safe in a file name.
fn plain(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
    let text: String = text
        .chars()
        .map(|c| if keep(c) { c } else { '-' })
        .take(60)
        .collect();
    text.trim_start_matches('.').to_owned()
}
