//! Opens and verifies bundles.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    BundleError, FORMAT, FeatureLayout, FileEntry, Head, Linear, MANIFEST, Manifest,
    ReferenceOutputs, References, TensorFile, UpsamplerKind, hex, sha256_hex,
};

/// Maximum size of a manifest.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// Maximum size of a file: no graph can be larger.
const LARGEST_FILE: u64 = 2 << 30;

/// Maximum number of channels, heads, layers or extra tokens; products of a few such numbers fit in
/// 64 bits.
const MOST_CHANNELS: usize = 1 << 15;

/// A bundle whose files have been verified.
#[derive(Debug, Clone)]
pub struct Bundle {
    path: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Opens the bundle at `path` and verifies the size and SHA-256 of every file.
    ///
    /// # Errors
    /// A file is missing or does not match the manifest.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let manifest = read_manifest(path)?;
        for (name, entry) in &manifest.files {
            check(&path.join(name), entry)?;
        }
        Ok(Self {
            path: path.to_owned(),
            manifest,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The error for a missing part.
    pub fn lacks(&self, part: &'static str, remedy: &'static str) -> BundleError {
        BundleError::Lacks {
            path: self.path.clone(),
            part,
            remedy,
        }
    }

    /// The reference outputs; `None` if the bundle has none.
    ///
    /// # Errors
    /// The file is damaged or does not match the parts of the bundle.
    pub fn reference_outputs(&self) -> Result<Option<ReferenceOutputs>, BundleError> {
        let Some(References { file, .. }) = &self.manifest.references else {
            return Ok(None);
        };
        let outputs = ReferenceOutputs::from_bytes(&self.read(file)?, &self.manifest);
        let outputs = outputs.map_err(|what| BundleError::Damaged {
            path: self.path.join(file),
            what,
        })?;
        Ok(Some(outputs))
    }

    /// The weights of an upsampler that runs without graphs; `None` if the bundle has none.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn upsampler_weights(&self) -> Result<Option<TensorFile>, BundleError> {
        let upsampler = self.manifest.upsampler.as_ref();
        let file = upsampler.and_then(|u| u.weights.as_ref());
        file.map(|file| Ok(TensorFile::new(self.read(file)?)))
            .transpose()
    }

    /// The head called `name` and its weights.
    ///
    /// # Errors
    /// There is no such head, or its file does not match it.
    pub fn head(&self, name: &str) -> Result<(Head, Linear), BundleError> {
        let Some(head) = self.manifest.heads.get(name) else {
            return Err(BundleError::NoHead {
                path: self.path.clone(),
                name: name.into(),
                known: self.manifest.heads.keys().cloned().collect(),
            });
        };
        let bytes = self.read(&head.file)?;
        let linear = Linear::from_bytes(&bytes, head.dim, head.kind.rows());
        let linear = linear.map_err(|what| BundleError::Damaged {
            path: self.path.join(&head.file),
            what,
        })?;
        Ok((head.clone(), linear))
    }

    /// Reads a file of the bundle, and verifies it again.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        let path = self.path.join(name);
        let entry = self
            .manifest
            .files
            .get(name)
            .ok_or_else(|| BundleError::Damaged {
                path: path.clone(),
                what: "the manifest does not list this file".into(),
            })?;
        let failed = |source| BundleError::Io {
            path: path.clone(),
            source,
        };
        // One byte more than expected: the file may have grown since it was verified.
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(entry.bytes + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        compare(&path, entry, bytes.len() as u64, &sha256_hex(&bytes))?;
        Ok(bytes)
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, BundleError> {
    let not_a_bundle = |what: &str| BundleError::NotABundle {
        path: path.into(),
        what: what.into(),
    };
    let meta = fs::metadata(path).map_err(|source| BundleError::Io {
        path: path.into(),
        source,
    })?;
    if !meta.is_dir() {
        return Err(not_a_bundle("it is a file, but a bundle is a directory"));
    }
    let file = path.join(MANIFEST);
    // Opening a pipe would block until there is a writer.
    if fs::metadata(&file).is_ok_and(|meta| !meta.is_file()) {
        return Err(not_a_bundle("its manifest.json is not a regular file"));
    }
    let text = match File::open(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(not_a_bundle("it has no manifest.json"));
        }
        Err(source) => return Err(BundleError::Io { path: file, source }),
        Ok(f) => {
            let mut text = String::new();
            f.take(LARGEST_MANIFEST)
                .read_to_string(&mut text)
                .map_err(|source| BundleError::Io {
                    path: file.clone(),
                    source,
                })?;
            text
        }
    };
    let wrong = |what: String| BundleError::Manifest {
        path: file.clone(),
        what,
    };
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    // Check the version first: fields may have a different meaning in another version.
    let Version { format } = serde_json::from_str(&text).map_err(|e| {
        wrong(format!(
            "not a manifest: {e}; copy or convert the bundle again"
        ))
    })?;
    if format != FORMAT {
        return Err(wrong(format!(
            "bundle format {format}; this program reads format {FORMAT}: convert again, or use the version that wrote it"
        )));
    }
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| {
        wrong(format!(
            "invalid manifest: {e}; copy or convert the bundle again"
        ))
    })?;
    validate(&manifest).map_err(wrong)?;
    Ok(manifest)
}

/// Validates the manifest beyond its types: every name is a plain file name and listed, and every
/// number is usable.
fn validate(manifest: &Manifest) -> Result<(), String> {
    for (name, entry) in &manifest.files {
        if entry.bytes > LARGEST_FILE {
            return Err(format!(
                "file {name:?} of {} bytes: the maximum is {LARGEST_FILE}",
                entry.bytes
            ));
        }
        let plain = !name.is_empty()
            && name != MANIFEST
            && !name.starts_with('.')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !plain {
            return Err(format!("file name {name:?} is not a plain file name"));
        }
    }
    let listed = |name: &String| {
        let known = manifest.files.contains_key(name);
        known
            .then_some(())
            .ok_or_else(|| format!("graph {name:?} is not among the files"))
    };
    let numbers = manifest
        .normalization
        .mean
        .iter()
        .chain(&manifest.normalization.std);
    if !numbers.clone().all(|x| x.is_finite()) || manifest.normalization.std.contains(&0.0) {
        return Err("normalization: mean and std must be finite, std not 0".into());
    }
    if let Some(b) = &manifest.backbone {
        b.graphs.values().try_for_each(listed)?;
        let sides = [b.size.width, b.size.height];
        let extra = match b.layout {
            FeatureLayout::Map => 0,
            FeatureLayout::Tokens { extra } => extra,
        };
        if extra > MOST_CHANNELS {
            return Err(format!("backbone: {extra} extra tokens are too many"));
        }
        if !(1..=MOST_CHANNELS).contains(&b.dim)
            || b.patch == 0
            || sides
                .iter()
                .any(|s| *s == 0 || *s > super::Size::LONGEST_SIDE || s % b.patch != 0)
        {
            return Err(format!(
                "backbone: dim {}, patch {} and size {} are inconsistent",
                b.dim, b.patch, b.size
            ));
        }
        if let Some(architecture) = &b.architecture {
            architecture
                .validate()
                .map_err(|what| format!("backbone.architecture: {what}"))?;
        }
    }
    if let Some(u) = &manifest.upsampler {
        for files in u.graphs.values() {
            [
                Some(&files.keys),
                Some(&files.queries),
                files.whole.as_ref(),
            ]
            .into_iter()
            .flatten()
            .try_for_each(listed)?;
        }
        u.weights.iter().chain(&u.whole).try_for_each(listed)?;
        let complete = match u.kind {
            UpsamplerKind::LoftUp => u.weights.is_none(),
            UpsamplerKind::Naf => {
                u.weights.is_some() && u.graphs.keys().all(|p| *p == super::Precision::Fp32)
            }
        };
        let divisible = u.kind != UpsamplerKind::Naf || u.dim.is_multiple_of(u.heads.max(1));
        if !complete || !divisible {
            return Err(format!(
                "upsampler: {} of {} channels and {} heads, with {} weights and {} graphs, is inconsistent",
                u.kind.name(),
                u.dim,
                u.heads,
                u.weights.as_deref().unwrap_or("no"),
                u.graphs.len()
            ));
        }
        let extents = [u.dim, u.layers, u.heads, u.head_width];
        if !extents.iter().all(|n| (1..=MOST_CHANNELS).contains(n)) {
            return Err(format!(
                "upsampler: dim, layers, heads and head_width must be 1 to {MOST_CHANNELS}, not {extents:?}"
            ));
        }
        if let Some(b) = &manifest.backbone
            && b.dim != u.dim
        {
            return Err(format!(
                "backbone has {} channels, upsampler {}",
                b.dim, u.dim
            ));
        }
    }
    for (precision, quantization) in &manifest.quantization {
        listed(&quantization.check.file)?;
        quantization
            .validate()
            .map_err(|what| format!("quantization.{precision}: {what}"))?;
    }
    if let Some(references) = &manifest.references {
        listed(&references.file)?;
        references
            .validate()
            .map_err(|what| format!("references: {what}"))?;
    }
    (manifest.provenance.validate()).map_err(|what| format!("provenance.{what}"))?;
    if let Some(clicks) = &manifest.clicks {
        clicks
            .validate()
            .map_err(|what| format!("clicks: {what}"))?;
    }
    for (name, head) in &manifest.heads {
        listed(&head.file)?;
        let dim = head.dim;
        if !Head::is_name(name) {
            return Err(format!("head {name:?}: invalid name"));
        }
        let valid = head.kind.validate(dim);
        valid.map_err(|what| format!("head {name:?}: {what}"))?;
        if let Some(u) = &manifest.upsampler
            && u.dim != dim
        {
            return Err(format!(
                "head {name:?} expects {dim} channels, but the upsampler has {}",
                u.dim
            ));
        }
    }
    Ok(())
}

fn check(path: &Path, entry: &FileEntry) -> Result<(), BundleError> {
    let failed = |source| BundleError::Io {
        path: path.into(),
        source,
    };
    let damaged = |what: &str| BundleError::Damaged {
        path: path.into(),
        what: what.into(),
    };
    // Checked before it is opened: opening a pipe would block until there is a writer.
    let meta = fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => damaged("the file is missing"),
        _ => failed(source),
    })?;
    if !meta.is_file() {
        return Err(damaged("it is not a regular file"));
    }
    let mut file = File::open(path).map_err(failed)?;
    let length = meta.len();
    let mut hash = Sha256::new();
    // A file of another size cannot have the right hash: do not read a huge one.
    if length == entry.bytes {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
    }
    compare(path, entry, length, &hex(&hash.finalize()))
}

fn compare(path: &Path, entry: &FileEntry, bytes: u64, sha256: &str) -> Result<(), BundleError> {
    let what = if bytes != entry.bytes {
        format!("{bytes} bytes, but {} in the manifest", entry.bytes)
    } else if sha256 != entry.sha256 {
        format!("SHA-256 {sha256}, but {} in the manifest", entry.sha256)
    } else {
        return Ok(());
    };
    Err(BundleError::Damaged {
        path: path.into(),
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{BundleWriter, Normalization, Provenance},
        *,
    };

    /// A bundle with one file, whose manifest text can be modified by `change`.
    fn bundle(at: &Path, change: impl FnOnce(String) -> String) {
        let mut writer = BundleWriter::create(at, true).unwrap();
        writer.add("graph.onnx", b"seven b").unwrap();
        let manifest = Manifest {
            format: FORMAT,
            files: Default::default(),
            normalization: Normalization::IMAGENET,
            backbone: None,
            upsampler: None,
            heads: Default::default(),
            clicks: None,
            quantization: Default::default(),
            references: None,
            provenance: Provenance {
                tool: "test".into(),
                created: 0,
                sources: Vec::new(),
                license: None,
                training: None,
            },
        };
        writer.seal(manifest).unwrap();
        writer.commit().unwrap();
        let file = at.join(MANIFEST);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, change(text)).unwrap();
    }

    #[test]
    fn a_file_beyond_any_graph_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("large.loftup");
        let with = |bytes: u64| {
            move |text: String| text.replace("\"bytes\": 7", &format!("\"bytes\": {bytes}"))
        };
        bundle(&at, with(7));
        assert_eq!(
            Bundle::open(&at).unwrap().read("graph.onnx").unwrap(),
            b"seven b"
        );
        bundle(&at, with(LARGEST_FILE + 1));
        let text = Bundle::open(&at).unwrap_err().to_string();
        assert!(
            text.contains("graph.onnx") && text.contains("maximum"),
            "{text}"
        );
        bundle(&at, with(LARGEST_FILE));
        let text = Bundle::open(&at).unwrap_err().to_string();
        assert!(
            text.contains("7 bytes, but 2147483648 in the manifest"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_grew_after_the_check_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("grown.loftup");
        bundle(&at, |text| text);
        let opened = Bundle::open(&at).unwrap();
        // Sparse: 64 GiB that take no disk space.
        let file = File::options()
            .write(true)
            .open(at.join("graph.onnx"))
            .unwrap();
        file.set_len(64 << 30).unwrap();
        let text = opened.read("graph.onnx").unwrap_err().to_string();
        assert!(text.contains("8 bytes, but 7 in the manifest"), "{text}");
    }

    #[test]
    fn a_license_is_one_line_of_text() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("licensed.loftup");
        let open = |license: &str| {
            let license = serde_json::to_string(license).unwrap();
            let field = format!("\"license\": {license}, \"sources\"");
            bundle(&at, |text| text.replace("\"sources\"", &field));
            Bundle::open(&at).map_err(|error| error.to_string())
        };
        let opened = open("Apache-2.0").unwrap();
        let license = &opened.manifest().provenance.license;
        assert_eq!(license.as_deref(), Some("Apache-2.0"));
        for wrong in ["", "two\nlines", &"x".repeat(257)] {
            let text = open(wrong).unwrap_err();
            assert!(text.contains("provenance.license: expected"), "{text}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["graph.onnx", MANIFEST] {
            let at = folder.path().join(name).with_extension("loftup");
            bundle(&at, |text| text);
            let file = at.join(name);
            fs::remove_file(&file).unwrap();
            let made = std::process::Command::new("mkfifo")
                .arg(&file)
                .status()
                .unwrap();
            assert!(made.success());
            let text = Bundle::open(&at).unwrap_err().to_string();
            assert!(text.contains("not a regular file"), "{text}");
        }
    }
}
