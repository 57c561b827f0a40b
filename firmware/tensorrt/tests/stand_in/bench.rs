//! Shared test setup.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loftup_tensorrt::cuda::{Cuda, Device, Stream};
use loftup_tensorrt::testing::Fake;
use loftup_tensorrt::{
    Builder, Engine, Error, Executor, Layout, Library, OnnxParser, Runtime, ShapeRange,
};

pub const FIXED: &[u8] = include_bytes!("../data/small_fp32.onnx");
pub const HALF: &[u8] = include_bytes!("../data/small_fp16.onnx");
pub const DYNAMIC: &[u8] = include_bytes!("../data/small_dynamic.onnx");
pub const SHORT: Duration = Duration::from_millis(60);
pub const LONG: Duration = Duration::from_secs(10);

/// All objects opened with one set of mock libraries.
pub struct Bench {
    pub fake: Fake,
    pub library: Library,
    pub device: Arc<Device>,
}

impl Bench {
    pub fn new(layout: Layout) -> Option<Bench> {
        let fake = Fake::new(layout)?;
        let library = Library::open(&fake.library()).unwrap();
        assert_eq!(library.layout(), layout);
        let device = Device::new(&Cuda::open(&fake.libcuda()).unwrap(), 0).unwrap();
        Some(Bench {
            fake,
            library,
            device,
        })
    }

    pub fn build(&self, onnx: &[u8], range: Option<ShapeRange>) -> Result<Vec<u8>, Error> {
        let builder = Builder::new(&self.library, Some(&self.device))?;
        let mut parser = OnnxParser::new(builder.network()?)?;
        parser.parse(onnx, None)?;
        let mut config = builder.config()?;
        config.set_workspace(1 << 30)?;
        if let Some(range) = range {
            let mut profile = builder.profile()?;
            profile.set(range)?;
            assert_eq!(config.add_profile(&profile)?, 0);
        }
        Ok(builder
            .build(parser.network(), &config)?
            .as_slice()
            .to_vec())
    }

    pub fn engine(&self, onnx: &[u8], range: Option<ShapeRange>) -> Arc<Engine> {
        let bytes = self.build(onnx, range).unwrap();
        Runtime::new(&self.library, &self.device)
            .unwrap()
            .deserialize(&bytes)
            .unwrap()
    }

    pub fn executor(&self, onnx: &[u8], range: Option<ShapeRange>) -> Executor {
        let stream = Stream::new(&self.device).unwrap();
        Executor::new(&self.engine(onnx, range), &stream).unwrap()
    }

    /// Drops everything, then checks for violations.
    pub fn finish(self) {
        let Bench {
            fake,
            library,
            device,
        } = self;
        drop(device);
        drop(library);
        assert_eq!(
            fake.violations(),
            Vec::<String>::new(),
            "{:#?}",
            fake.calls()
        );
        balance(&fake.calls());
    }
}

/// Checks that every object created was deleted.
pub fn balance(calls: &[String]) {
    let mut alive: BTreeMap<&str, i32> = BTreeMap::new();
    for call in calls {
        let (word, change) = match call.strip_prefix("new ") {
            Some(rest) => (rest, 1),
            None => match call.strip_prefix('~') {
                Some(rest) => (rest, -1),
                None => continue,
            },
        };
        let kind = word.split(' ').next().unwrap();
        *alive.entry(kind).or_default() += change;
    }
    // Profiles belong to the builder; of parsers and graphs only the deletion is logged.
    alive.retain(|kind, count| *count != 0 && !["Profile", "Parser", "GraphExec"].contains(kind));
    assert!(alive.is_empty(), "left over: {alive:?}\n{calls:#?}");
}

pub fn range() -> ShapeRange {
    ShapeRange {
        input: "image".into(),
        min: vec![1, 3, 4, 4],
        opt: vec![1, 3, 6, 10],
        max: vec![2, 3, 32, 32],
    }
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

pub fn fill(bytes: &mut [u8], value: f32) {
    for element in bytes.chunks_exact_mut(4) {
        element.copy_from_slice(&value.to_le_bytes());
    }
}

/// The maximum difference from the values that the mock engine computes.
pub fn worst(values: &[f32], mean: f32) -> f32 {
    let off = |(i, v): (usize, &f32)| (v - Fake::expected(mean, i)).abs();
    values.iter().enumerate().map(off).fold(0.0, f32::max)
}

pub fn position(calls: &[String], name: &str) -> usize {
    calls
        .iter()
        .position(|call| call.starts_with(name))
        .unwrap_or_else(|| panic!("no {name}: {calls:#?}"))
}
