//! Without a working GPU, errors give the correct reason and TensorRT is not called.

use std::path::Path;

use loftup_tensorrt::cuda::{Cuda, Device};
use loftup_tensorrt::testing::{Fake, cached, in_child, skipped};
use loftup_tensorrt::{Builder, Error, Layout, Library, OnnxParser, Product};

#[test]
fn no_driver_at_all() {
    let error = Cuda::open(Path::new("libcuda-that-is-not-there.so.1")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NoCuda { .. }), "{text}");
    assert!(
        text.contains("not found") && text.contains("install NVIDIA's driver"),
        "{text}"
    );
}

#[test]
fn a_driver_that_is_no_library() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libcuda.so.1");
    std::fs::write(&path, "text").unwrap();
    assert!(matches!(Cuda::open(&path), Err(Error::NoCuda { .. })));
}

#[test]
fn a_driver_that_lacks_a_function() {
    let text = Cuda::open(Path::new("libm.so.6")).unwrap_err().to_string();
    assert!(text.contains("libm.so.6 does not export cuInit"), "{text}");
}

#[test]
fn a_driver_without_a_gpu() {
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    fake.set("devices", "0");
    assert_eq!(Cuda::open(&fake.libcuda()).unwrap_err(), Error::NoDevice);
    fake.set("devices", "-7");
    assert_eq!(Cuda::open(&fake.libcuda()).unwrap_err(), Error::NoDevice);
    fake.set("init", "100");
    assert_eq!(Cuda::open(&fake.libcuda()).unwrap_err(), Error::NoDevice);
}

#[test]
fn a_driver_that_does_not_start() {
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    // The last code is unknown to every version of CUDA.
    for (code, name, remedy) in [
        ("34", "CUDA_ERROR_STUB_LIBRARY", "toolkit's stub"),
        ("999", "CUDA_ERROR_UNKNOWN", "reload it"),
        ("123456", "CUDA error 123456", "kernel module is loaded"),
    ] {
        fake.set("init", code);
        let error = Cuda::open(&fake.libcuda()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::NoCuda { .. }), "{text}");
        assert!(text.contains(name) && text.contains(remedy), "{text}");
    }
}

#[test]
fn gpus_are_counted_from_zero() {
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    fake.set("devices", "2");
    let cuda = Cuda::open(&fake.libcuda()).unwrap();
    assert_eq!(
        (cuda.device_count(), cuda.driver_version().unwrap()),
        (2, (12, 6))
    );
    assert_eq!(Device::new(&cuda, 1).unwrap().ordinal(), 1);
    assert!(matches!(Device::new(&cuda, 2), Err(Error::Argument(_))));
}

#[test]
fn tensorrt_proper_is_not_called_without_a_gpu() {
    for layout in [Layout::V8, Layout::V10, Layout::V11] {
        let Some(fake) = Fake::new(layout) else {
            return;
        };
        let library = Library::open(&fake.library()).unwrap();
        assert!(library.can_build());
        let error = Builder::new(&library, None).unwrap_err();
        assert!(matches!(error, Error::NoCuda { .. }), "{error}");
        assert_eq!(
            fake.calls(),
            Vec::<String>::new(),
            "no function may be called"
        );
    }
}

#[test]
fn an_address_that_is_no_object_is_refused() {
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    let library = Library::open(&fake.library()).unwrap();
    let device = Device::new(&Cuda::open(&fake.libcuda()).unwrap(), 0).unwrap();
    // The value that the real library returns if CUDA fails internally.
    fake.set("runtime", "0x228");
    let error = loftup_tensorrt::Runtime::new(&library, &device).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                call: "createInferRuntime_INTERNAL",
                ..
            }
        ),
        "{error}"
    );
    let error = Builder::new(&library, Some(&device)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                call: "createInferBuilder_INTERNAL",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn real_lean_runtimes_are_recognized_and_cannot_build() {
    for (name, version, layout) in [
        ("lean-10.16", "TensorRT 10.16.1", Layout::V10),
        ("lean-11.4", "TensorRT 11.4.0", Layout::V11),
        ("lean-11.4-13", "TensorRT 11.4.0", Layout::V11),
    ] {
        let Some(directory) = cached(name) else {
            continue;
        };
        let library = Library::open(&directory).unwrap();
        assert_eq!(library.version().to_string(), version);
        assert_eq!(
            (library.layout(), library.version().product),
            (layout, Product::TensorRt)
        );
        assert!(library.version().is_checked() && !library.can_build());
        // Nothing is called without a GPU.
        assert!(matches!(
            Builder::new(&library, None),
            Err(Error::NoCuda { .. })
        ));
    }
}

#[test]
fn a_real_runtime_without_a_builder_says_which_function_is_missing() {
    let Some(directory) = cached("lean-10.16") else {
        return;
    };
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    in_child(
        "a_real_runtime_without_a_builder_says_which_function_is_missing",
        || {
            let library = Library::open(&directory).unwrap();
            let device = Device::new(&Cuda::open(&fake.libcuda()).unwrap(), 0).unwrap();
            let text = Builder::new(&library, Some(&device))
                .unwrap_err()
                .to_string();
            assert!(
                text.contains("does not export createInferBuilder_INTERNAL"),
                "{text}"
            );
            assert!(text.contains("install the full TensorRT"), "{text}");
        },
    );
}

/// A real runtime returns an invalid address if it is called without a GPU. The mock libcuda, which
/// only this crate uses, reports a GPU to get that far.
fn refused_without_gpu(test: &str, name: &str) {
    let Some(directory) = cached(name) else {
        return;
    };
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    if Cuda::find().is_ok() {
        skipped("this machine has a GPU");
        return;
    }
    in_child(test, || {
        let library = Library::open(&directory).unwrap();
        let device = Device::new(&Cuda::open(&fake.libcuda()).unwrap(), 0).unwrap();
        let error = loftup_tensorrt::Runtime::new(&library, &device).unwrap_err();
        println!("{name}: {error}");
        assert!(matches!(error, Error::NoCuda { .. }), "{error}");
    });
}

#[test]
fn the_real_runtime_of_10_that_finds_no_gpu_is_refused() {
    refused_without_gpu(
        "the_real_runtime_of_10_that_finds_no_gpu_is_refused",
        "lean-10.16",
    );
}

#[test]
fn the_real_runtime_of_11_that_finds_no_gpu_is_refused() {
    refused_without_gpu(
        "the_real_runtime_of_11_that_finds_no_gpu_is_refused",
        "lean-11.4",
    );
}

#[test]
fn this_machine_gives_a_gpu_or_a_reason() {
    match Cuda::find() {
        Ok(cuda) => println!(
            "{} GPUs, CUDA {:?}",
            cuda.device_count(),
            cuda.driver_version()
        ),
        Err(error) => {
            println!("{error}");
            assert!(!error.to_string().contains('\n'));
        }
    }
}

/// TensorRT 8.5, of which only the parser can be used without a GPU: it gets the mock library's
/// network, and models that fail before it accesses the network.
#[test]
fn the_real_parser_of_8_5_is_called_at_the_right_slots() {
    let Some(directory) = cached("full-8.5") else {
        return;
    };
    let Some(fake) = Fake::new(Layout::V8) else {
        return;
    };
    in_child(
        "the_real_parser_of_8_5_is_called_at_the_right_slots",
        || {
            let real = Library::open(&directory).unwrap();
            assert_eq!(real.version().to_string(), "TensorRT 8.5.3");
            assert!(real.can_build());
            assert!(matches!(
                Builder::new(&real, None),
                Err(Error::NoCuda { .. })
            ));
            // Place NVIDIA's parser next to the mock libnvinfer.
            let parser = fake.directory().join("libnvonnxparser.so.8");
            std::fs::remove_file(&parser).unwrap();
            std::os::unix::fs::symlink(directory.join("libnvonnxparser.so.8"), &parser).unwrap();
            // It is linked against the plugin library, which needs cuBLAS and cuDNN: replace that
            // by an empty one.
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
            let plugins = fake.directory().join("libnvinfer_plugin.so.8");
            let source = fake.directory().join("plugins.cc");
            let body =
                "extern \"C\" bool initLibNvInferPlugins(void*, char const*) { return true; }\n";
            std::fs::write(&source, body).unwrap();
            let made = std::process::Command::new(compiler)
                .args(["-shared", "-fPIC"])
                .arg(source)
                .arg("-o")
                .arg(plugins)
                .status();
            assert!(made.unwrap().success());
            let library = Library::open(&fake.library()).unwrap();
            let device = Device::new(&Cuda::open(&fake.libcuda()).unwrap(), 0).unwrap();
            let builder = Builder::new(&library, Some(&device)).unwrap();
            for model in [&b"this is no protobuf"[..], &[], &[0xff; 100]] {
                let mut parser = OnnxParser::new(builder.network().unwrap()).unwrap();
                let error = parser.parse(model, None).unwrap_err();
                println!("{error}");
                assert!(matches!(error, Error::Parse { .. }), "{error}");
            }
        },
    );
}
