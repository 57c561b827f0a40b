//! The properties checked by fuzzing. The fuzzer calls these functions with generated inputs,
//! `tests/tests/fuzz_seeds.rs` with the seeds and mutations of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Display,
    fs,
    io::{Cursor, Write},
    path::Path,
};

use loftup_bundle::{Bundle, Head, Linear, MANIFEST, Manifest, ReferenceOutputs, sha256_hex};
use loftup_import::{
    checkpoint::Checkpoint,
    loftup,
    onnx::{Arrangement, Border, Import},
};
use loftup_node::config::Config;
use loftup_onnx::{
    Interface,
    loftup::read_queries,
    rewrite::{self, Model},
};
use loftup_runtime::{
    image::{self, MAX_SIDE},
    npy,
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Errors must be one line.
fn one_line(error: impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(['\n', '\r']), "{text:?}");
}

/// A directory with one file of these bytes.
fn file(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join(name), bytes).expect("a temporary file");
    directory
}

/// Opens a checkpoint and reads all its tensors. The memory used must be bounded by the file size.
fn checkpoint(name: &str, bytes: &[u8]) {
    let directory = file(name, bytes);
    let opened = match Checkpoint::open(&directory.path().join(name)) {
        Ok(opened) => opened,
        Err(error) => return one_line(error),
    };
    let (mut described, mut values) = (0, 0);
    for name in opened.names() {
        assert!(!name.contains(char::is_control), "{name:?}");
        described += name.len();
        let Ok(shape) = opened.shape(name) else {
            continue;
        };
        described += 16 * shape.len();
        match opened.tensor(name, shape) {
            Ok(tensor) => {
                assert_eq!(tensor.data().len(), shape.iter().product::<usize>());
                assert!(tensor.data().iter().all(|x| x.is_finite()));
                values += 4 * tensor.data().len();
            }
            Err(error) => one_line(error),
        }
    }
    assert!(values <= 4 * bytes.len(), "{values} of {}", bytes.len());
    let most = 64 * bytes.len() + (1 << 17);
    assert!(described <= most, "{described} of {}", bytes.len());
    if let Err(error) = loftup::read(&opened) {
        one_line(error);
    }
}

/// The input is the `data.pkl` of an archive with two storages.
pub fn pickle(bytes: &[u8]) {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let storage = [0x3c; 256];
    let entries: [(&str, &[u8]); 3] = [
        ("a/data.pkl", bytes),
        ("a/data/0", &storage),
        ("a/data/1", &storage[..64]),
    ];
    for (name, content) in entries {
        archive.start_file(name, stored).expect("an entry");
        archive.write_all(content).expect("an entry");
    }
    let archive = archive.finish().expect("an archive").into_inner();
    checkpoint("model.pt", &archive);
}

/// The input is a file of `torch.save` before PyTorch 1.6.
pub fn torch_legacy(bytes: &[u8]) {
    checkpoint("model.pth", bytes);
}

/// The input is a zip archive.
pub fn torch_zip(bytes: &[u8]) {
    checkpoint("model.pt", bytes);
}

/// The input is a safetensors file: a checkpoint, the weights of a head, or reference outputs.
pub fn safetensors(bytes: &[u8]) {
    checkpoint("model.safetensors", bytes);
    match Linear::from_bytes(bytes, 3, 2) {
        Ok(linear) => {
            assert_eq!((linear.weight.len(), linear.bias.len()), (6, 2));
            let again = linear.to_bytes().expect("weights of a head");
            let again = Linear::from_bytes(&again, 3, 2).expect("weights of a head");
            assert_eq!(again, linear);
        }
        Err(error) => one_line(error),
    }
}

/// The input is an array. An array that can be read must survive a round trip.
pub fn npy(bytes: &[u8]) {
    let directory = file("array.npy", bytes);
    let array = match npy::read(&directory.path().join("array.npy")) {
        Ok(array) => array,
        Err(error) => return one_line(error),
    };
    // The other axes may be of any size if one is empty.
    if !array.shape.contains(&0) {
        assert_eq!(array.data.len(), array.shape.iter().product::<usize>());
    }
    assert!(array.data.len() <= bytes.len());
    let copy = directory.path().join("copy.npy");
    npy::write(&copy, &array.shape, &array.data).expect("a copy of an array");
    let again = npy::read(&copy).expect("a copy of an array");
    assert_eq!(again.shape, array.shape);
    let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&again.data), bits(&array.data));
}

/// Writes the files listed by the manifests of the seeds.
fn bundle_files(directory: &Path) -> Vec<u8> {
    let head = Linear {
        inputs: 3,
        weight: vec![0.5; 6],
        bias: vec![0.25; 2],
    };
    let head = head.to_bytes().expect("weights of a head");
    let files: [(&str, &[u8]); 2] = [
        ("graph.onnx", b"seven b"),
        ("head-ground.safetensors", &head),
    ];
    for (name, content) in files {
        fs::write(directory.join(name), content).expect("a file of the bundle");
    }
    head
}

/// The input is the manifest of a bundle with the files listed by the seeds.
pub fn manifest(bytes: &[u8]) {
    let directory = file(MANIFEST, bytes);
    let head = bundle_files(directory.path());
    let bundle = match Bundle::open(directory.path()) {
        Ok(bundle) => bundle,
        Err(error) => return one_line(error),
    };
    let manifest = bundle.manifest();
    for (name, entry) in &manifest.files {
        let content = bundle.read(name).expect("a file that was checked");
        assert_eq!(sha256_hex(&content), entry.sha256);
    }
    for name in manifest.heads.keys() {
        assert!(Head::is_name(name));
        match bundle.head(name) {
            Ok((head, linear)) => assert_eq!(linear.outputs(), head.kind.outputs()),
            Err(error) => one_line(error),
        }
    }
    if let Err(error) = bundle.reference_outputs() {
        one_line(error);
    }
    if let Err(error) = ReferenceOutputs::from_bytes(&head, manifest) {
        one_line(error);
    }
    let text = serde_json::to_string(manifest).expect("a manifest");
    serde_json::from_str::<Manifest>(&text).expect("a manifest that was serialized");
}

/// The input is an ONNX model: tests its interface, all rewriting passes, the reader of queries
/// graphs, and import.
pub fn onnx(bytes: &[u8]) {
    let interface = Interface::of(bytes);
    for port in interface
        .iter()
        .flat_map(|i| i.inputs.iter().chain(&i.outputs))
    {
        assert!(!port.element.to_string().is_empty());
    }
    for layers in 1..=2 {
        if let Some(weights) = read_queries(bytes, layers) {
            assert_eq!(weights.layers.len(), layers);
        }
    }
    match Model::decode(bytes) {
        Ok(model) => passes(&model),
        Err(error) => one_line(error),
    }
    let directory = file("model.onnx", bytes);
    fs::write(directory.path().join("model.data"), [0x3c; 64]).expect("a weight file");
    match Import::open(&directory.path().join("model.onnx")) {
        Ok(import) => {
            let interface = interface.expect("the interface of a model that was imported");
            assert_eq!(&interface, import.interface());
            border(&import);
        }
        Err(error) => one_line(error),
    }
}

/// Every pass returns a model or a one-line error.
fn passes(model: &Model) {
    let again = Model::decode(&model.encode()).expect("a model that was encoded");
    assert_eq!(again.encode(), model.encode());
    model.is_quantized();
    model.not_finite();
    let layers = rewrite::layers(model);
    let chosen: HashSet<String> = layers.iter().map(|l| l.output.clone()).collect();
    let ranges: BTreeMap<String, f32> =
        layers.iter().map(|l| (l.activation.clone(), 1.5)).collect();
    if let Err(error) = rewrite::weights_in_half(model) {
        one_line(error);
    }
    let written = [
        rewrite::to_fp32(model),
        rewrite::fake_quantize(model),
        rewrite::half_weights(model),
        rewrite::to_half(model, &BTreeSet::new()),
        rewrite::to_int8(model, &chosen, &ranges),
        Ok(model.with_outputs(&rewrite::half_values(model))),
    ];
    let alone = layers
        .iter()
        .map(|layer| Ok(model.alone(layer, &[1, 3, 4, 4])));
    for result in written.into_iter().chain(alone) {
        match result {
            Ok(model) => {
                if let Err(error) = Model::decode(&model.encode()) {
                    panic!("a model that cannot be decoded again: {error}");
                }
            }
            Err(error) => one_line(error),
        }
    }
}

/// Adds the inputs and outputs of a bundle to an imported graph.
fn border(import: &Import) {
    let ports = import.interface();
    let (Some(input), Some(output)) = (ports.inputs.first(), ports.outputs.first()) else {
        return;
    };
    for (channels_last, arrangement) in [
        (false, Arrangement::Keep),
        (true, Arrangement::TokensFirst),
        (false, Arrangement::ChannelsFirst),
    ] {
        let graph = import.graph(&Border {
            input: &input.name,
            channels_last,
            size: channels_last.then_some([28, 42]),
            output: &output.name,
            element: output.element,
            arrangement,
            shape: output.shape.clone(),
        });
        let interface = Interface::of(&graph).expect("a graph that was encoded");
        assert_eq!(interface.outputs.len(), 1);
    }
}

/// The input is an image. Missing JPEG data must never be filled in: if the file is accepted
/// without its last bytes, those bytes must not matter.
pub fn image(bytes: &[u8]) {
    let decoded = image::decode(bytes, "x");
    let checked = match &decoded {
        Ok(image) => {
            let (width, height) = (image.width(), image.height());
            assert!((1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height));
            assert_eq!(image.data().len(), width * height * 3);
            width * height <= 1 << 16
        }
        Err(error) => {
            one_line(error);
            false
        }
    };
    if checked && bytes.starts_with(b"\xff\xd8") {
        let cut = bytes.len() - 1 - usize::from(bytes[bytes.len() / 2]) % (bytes.len() - 1);
        if let Ok(image) = image::decode(&bytes[..cut], "x") {
            assert!(Some(&image) == decoded.as_ref().ok(), "cut at {cut}");
        }
    }
}

/// The input is the configuration of a node with a bundle.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bundle = directory.path().join("robot.loftup");
    fs::create_dir(&bundle).expect("the directory of a bundle");
    bundle_files(&bundle);
    let manifest = include_bytes!("seeds/manifest/full");
    fs::write(bundle.join(MANIFEST), manifest).expect("a manifest");
    match Config::parse(text, &directory.path().join("node.toml")) {
        Ok(config) => {
            assert_eq!(config.levels().len(), 1 + config.degrade.step.len());
            assert!(config.queries().iter().flatten().count() >= 1);
            config.warnings().iter().for_each(one_line);
        }
        Err(error) => one_line(error),
    }
}
