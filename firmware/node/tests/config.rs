//! Configuration errors: one line each, with file, key and hint.

mod common;

use std::time::Duration;

use loftup_node::config::{Config, Level, Upsampler};
use loftup_runtime::backend::{CpuPrecision, Settings};

#[test]
fn each_error_is_one_line_with_file_key_and_hint() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let file = folder.path().join("node.toml");
    let good = common::config_text("");
    Config::parse(&good, &file).unwrap();
    let change = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let add = |more: &str| common::config_text(more);
    let cases = [
        (
            change("head = \"scene\"", "head = \"scenery\""),
            "model.head",
            "scene",
        ),
        (
            change("head = \"scene\"", "head = \"pca\""),
            "model.head",
            "outputs classes",
        ),
        (
            change("descriptors = \"pca\"", "descriptors = \"scene\""),
            "model.descriptors",
            "does not output descriptors",
        ),
        (
            change(
                "head = \"scene\"",
                "head = \"scene\"\ncpu_precision = \"int4\"",
            ),
            "model.cpu_precision",
            "expected auto, fp32, int16",
        ),
        (
            change("robot.loftup", "rabbit.loftup"),
            "model.bundle",
            "loftup convert",
        ),
        (
            change("robot.loftup", "."),
            "model.bundle",
            "make one with `loftup convert`",
        ),
        (
            change("\"tract\"", "\"cuda\""),
            "model.backend",
            "correct the value",
        ),
        (
            add("[tensorrt]\nlibrary = \"nowhere\""),
            "tensorrt.library",
            "use libnvinfer.so",
        ),
        (
            add("[tensorrt]\nworkspace_mib = 0"),
            "tensorrt.workspace_mib",
            "must be 1 to",
        ),
        (
            add("[tensorrt]\ndla_core = 16"),
            "tensorrt.dla_core",
            "0 to 15",
        ),
        (
            add("[tensorrt]\nrun_ms = 5000"),
            "tensorrt.run_ms",
            "less than watchdog.hang_ms",
        ),
        (
            add("[tensorrt]\nframe_graph = true"),
            "tensorrt.frame_graph",
            "model.backend auto or tensorrt",
        ),
        (
            add("[tensorrt]\nframe_graph = true")
                .replace("\"tract\"", "\"auto\"")
                .replace("size = [96, 64]\n", ""),
            "source.size",
            "",
        ),
        (
            add("[tensorrt]\nframe_graph = true")
                .replace("threads = 1", "noise_threshold = 2")
                .replace("\"tract\"", "\"auto\""),
            "tensorrt.frame_graph",
            "or this key",
        ),
        (
            add("[tensorrt]\nworkspace = 5"),
            "tensorrt.workspace",
            "remove or correct",
        ),
        (
            change("size = [42, 42]", "size = [42, 4]"),
            "model.size",
            "8 to 4096",
        ),
        (
            change("size = [42, 42]", "size = [42]"),
            "model.size",
            "correct the value",
        ),
        (change("size = [42, 42]\n", ""), "model", "add the key"),
        (
            change("threads = 1", "threads = 1000"),
            "model.threads",
            "0 to 256",
        ),
        (
            change("threads = 1", "thread = 1"),
            "model.thread",
            "remove or correct",
        ),
        (
            change("threads = 1", "naf_statistics_interval = 0"),
            "model.naf_statistics_interval",
            "1",
        ),
        (
            change("threads = 1", "color_range = [[0,1],[1,0],[0,1]]"),
            "model.color_range",
            "min",
        ),
        (
            change("\"scenes\"", "\"camera\""),
            "source.kind",
            "correct the value",
        ),
        (change("size = [96, 64]\n", ""), "source.size", "width"),
        (
            change("rate_hz = 20", "rate_hz = 0"),
            "source.rate_hz",
            "0.01",
        ),
        (
            change("rate_hz = 20", "path = \"x\""),
            "source.path",
            "remove",
        ),
        (
            change("\"scenes\"", "\"images\""),
            "source.path",
            "directory",
        ),
        (
            change("\"scenes\"", "\"images\"\npath = \"nowhere\""),
            "source.path",
            "readable",
        ),
        (
            change("\"scenes\"", "\"images\"\npath = \"no*.png\""),
            "source.path",
            "glob",
        ),
        (
            change("\"scenes\"", "\"recording\"\npath = \"node.toml\""),
            "source.path",
            "recording",
        ),
        (
            change("rate_hz = 20", "pipeline = \"videotestsrc\""),
            "source.pipeline",
            "remove",
        ),
        (
            change("\"scenes\"", "\"gstreamer\""),
            "source.pipeline",
            "elements",
        ),
        (
            change("\"scenes\"", "\"gstreamer\"\npipeline = \" \""),
            "source.pipeline",
            "elements",
        ),
        (
            change(
                "\"scenes\"",
                "\"gstreamer\"\npipeline = \"a\"\npath = \"b\"",
            ),
            "source.path",
            "remove",
        ),
        (
            change("\"scenes\"", "\"video\"\npath = \"no.mp4\""),
            "source.path",
            "no file",
        ),
        (change("\"scenes\"", "\"video\""), "source.path", "video"),
        #[cfg(not(feature = "v4l"))]
        (
            change("\"scenes\"", "\"v4l\"\npath = \"no-camera\""),
            "source.",
            "--features v4l",
        ),
        #[cfg(not(feature = "zenoh"))]
        (
            change("\"scenes\"", "\"ros2\"\ntopic = \"/image\""),
            "source.kind",
            "--features zenoh",
        ),
        #[cfg(feature = "zenoh")]
        (
            change("\"scenes\"", "\"ros2\""),
            "source.topic",
            "/camera/image_raw",
        ),
        #[cfg(feature = "zenoh")]
        (
            change("\"scenes\"", "\"ros2\"\ntopic = \"image\""),
            "source.topic",
            "full name",
        ),
        #[cfg(feature = "zenoh")]
        (
            change("\"scenes\"", "\"ros2\"\ntopic = \"/a/*\""),
            "source.topic",
            "underscores",
        ),
        #[cfg(feature = "zenoh")]
        (
            change(
                "\"scenes\"",
                "\"ros2\"\ntopic = \"/a\"\nendpoint = \"localhost\"",
            ),
            "source.endpoint",
            "tcp/host:port",
        ),
        #[cfg(feature = "zenoh")]
        (
            change("\"scenes\"", "\"ros2\"\ntopic = \"/a\"\ndomain = 233"),
            "source.domain",
            "0 to 232",
        ),
        #[cfg(feature = "zenoh")]
        (
            change("\"scenes\"", "\"ros2\"\ntopic = \"/a\"\nqueue = 0"),
            "source.queue",
            "1 to 10",
        ),
        #[cfg(feature = "zenoh")]
        (
            change("\"scenes\"", "\"ros2\"\ntopic = \"/a\"\npath = \"b\""),
            "source.path",
            "remove",
        ),
        (
            change("\"scenes\"", "\"ros2\"\ndistro = \"foxy\""),
            "source.distro",
            "correct",
        ),
        (
            change("rate_hz = 20", "topic = \"/image\""),
            "source.topic",
            "remove",
        ),
        (
            change("rate_hz = 20", "distro = \"humble\""),
            "source.distro",
            "remove",
        ),
        (
            add("[[sink]]\nkind = \"zenoh\"\nendpoint = \"tcp/a\""),
            "sink[0].endpoint",
            "tcp/host:port",
        ),
        (
            add("[[sink]]\nkind = \"zenoh\"\ndomain = 300"),
            "sink[0].domain",
            "0 to 232",
        ),
        (
            add("[[sink]]\nkind = \"zenoh\"\npath = \"x\""),
            "sink[0].",
            if cfg!(feature = "zenoh") {
                "remove"
            } else {
                "--features zenoh"
            },
        ),
        (
            add("[[sink]]\nkind = \"mcap\"\npath = \"a\"\nendpoint = \"tcp/a:1\""),
            "sink[0].endpoint",
            "remove",
        ),
        (add("[pipeline]\nqueue = 3"), "pipeline.queue", "1 to 2"),
        (
            add("[pipeline]\ndeadline_ms = 0"),
            "pipeline.deadline_ms",
            "1 to",
        ),
        (
            add("[pipeline]\ndeadline_ms = 300\nmax_age_ms = 100"),
            "pipeline.max_age_ms",
            "deadline_ms",
        ),
        (
            add("[pipeline]\ndeadline = 3"),
            "pipeline.deadline",
            "remove or correct",
        ),
        (
            add("[degrade]\nmiss_limit = 0"),
            "degrade.miss_limit",
            "1 to",
        ),
        (add("[degrade]\nearly = 2.0"), "degrade.early", "0.01 to 1"),
        (add("[[degrade.step]]"), "degrade.step[0]", "smaller"),
        (
            add("[[degrade.step]]\nsize = [84, 84]"),
            "degrade.step[0].size",
            "smaller",
        ),
        (
            add("[[degrade.step]]\nrate_hz = 5.0\n[[degrade.step]]\nrate_hz = 6.0"),
            "degrade.step[1].rate_hz",
            "lower",
        ),
        (
            add("[[degrade.step]]\nupsampler = \"jbu\""),
            "degrade.step[0].upsampler",
            "add [model.jbu]",
        ),
        (
            add("[model.jbu]\n[[degrade.step]]\nupsampler = \"loftup\""),
            "degrade.step[0]",
            "upsampler = \"jbu\"",
        ),
        (
            add(
                "[model.jbu]\n[[degrade.step]]\nupsampler = \"jbu\"\n[[degrade.step]]\nupsampler = \"loftup\"",
            ),
            "degrade.step[1].upsampler",
            "use jbu from one step on",
        ),
        (
            add("[model.jbu]\nhead = \"words\""),
            "model.jbu.head",
            "the same classes",
        ),
        (
            add("[model.jbu]\ndepth = \"scene\""),
            "model.jbu.depth",
            "outputs depth",
        ),
        (
            add("[thermal]\nzones = [\"nowhere\"]"),
            "thermal.zones",
            "/sys/class/thermal",
        ),
        (
            add("[thermal]\nzones = []"),
            "thermal.zones",
            "/sys/class/thermal",
        ),
        (
            add("[thermal]\nzones = [\"/proc/version\"]\nhot_c = 90.0\ncritical_c = 92.0"),
            "thermal.critical_c",
            "higher",
        ),
        (add("[watchdog]\nhang_ms = 1"), "watchdog.hang_ms", "10 to"),
        (
            add("[metrics]\nlisten = \"0.0.0.0:9184\""),
            "metrics.listen",
            "127.0.0.1",
        ),
        (
            add("[metrics]\nlisten = \"here\""),
            "metrics.listen",
            "correct the value",
        ),
        (
            add("[[query]]\nslot = 8\nwant = \"classes\""),
            "query[0].slot",
            "0 to 7",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"everything\""),
            "query.want",
            "correct the value",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"features-u8\""),
            "query[0].want",
            "points",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"classes\"\nregion = [90, 0, 10, 5]"),
            "query[0].region",
            "source.size",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"classes\"\npoints = [[0, 64]]"),
            "query[0].points",
            "source.size",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"classes\"\npoints = []"),
            "query[0].points",
            "1 to 64",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"classes\"\n[[query]]\nslot = 1\nwant = \"regions\""),
            "query[1].slot",
            "its own",
        ),
        (
            change("threads = 1", "depth = \"scene\""),
            "model.depth",
            "outputs depth",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"depth\""),
            "query[0].want",
            "model.depth",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"words\""),
            "query[0].want",
            "add [words]",
        ),
        (
            add("[[query]]\nslot = 1\nwant = \"objects\""),
            "query[0].want",
            "add [track]",
        ),
        (
            add("[track]\n[[query]]\nslot = 1\nwant = \"objects\"\npoints = [[0, 0]]"),
            "query[0].want",
            "the whole frame",
        ),
        (
            add("[words]\nhead = \"scene\""),
            "words.head",
            "outputs words",
        ),
        (
            add("[words]\nhead = \"kitchen\""),
            "words.head",
            "available: depth, pca, scene, words",
        ),
        (
            add("[words]\ndirectory = \"nowhere\""),
            "words.directory",
            "create it",
        ),
        (add("[track]\ngrid = [0, 5]"), "track.grid", "1 to 1024"),
        (
            add("[track]\nmax_objects = 255"),
            "track.max_objects",
            "1 to 64",
        ),
        (
            add("[track]\ntemperature = 0.0"),
            "track.temperature",
            "0.01",
        ),
        (
            add("[track]\nupsampler = \"bicubic\""),
            "track.upsampler",
            "correct the value",
        ),
        (
            add("[[track.object]]\nobject = 11\npoint = [1, 1]"),
            "track.object[0].object",
            "1 to 10",
        ),
        (
            add("[[track.object]]\nobject = 1"),
            "track.object[0].region",
            "one of them",
        ),
        (
            add("[[track.object]]\nobject = 1\npoint = [96, 1]"),
            "track.object[0].point",
            "source.size",
        ),
        (
            add("[[track.object]]\nobject = 1\nregion = [90, 1, 7, 1]"),
            "track.object[0].region",
            "source.size",
        ),
        (add("[[sink]]\nkind = \"serial\""), "sink[0].path", "device"),
        (
            add("[[sink]]\nkind = \"udp\"\nbind = \"127.0.0.1:0\""),
            "sink[0].peer",
            "address:port",
        ),
        (
            add("[[sink]]\nkind = \"mcap\"\npath = \"no/such/a.mcap\""),
            "sink[0].path",
            "create it first",
        ),
        (
            add("[[sink]]\nkind = \"mcap\"\npath = \".\""),
            "sink[0].path",
            "use a file name",
        ),
        (
            add("[[sink]]\nkind = \"images\"\npath = \"p\"\nevery = 0"),
            "sink[0].every",
            "1 to",
        ),
        (
            add("[[sink]]\nkind = \"mcap\"\npath = \"a\"\n[[sink]]\nkind = \"mcap\"\npath = \"a\""),
            "sink[1]",
            "its own",
        ),
        (add("[sinks]"), "sinks", "remove or correct"),
        (
            add("[watchdog]\nmost_restarts = 3"),
            "watchdog.most_restarts",
            "use `max_restarts`",
        ),
        (
            change("threads = 1", "hold = 3"),
            "model.hold",
            "use `noise_threshold`",
        ),
        (
            add("[[sink]]\nkind = \"pictures\"\npath = \"p\""),
            "sink.kind",
            "use `images`",
        ),
        ("model = ".into(), "line 1", "TOML"),
        (String::new(), "line 1", "add the key"),
    ];
    for (text, key, hint) in cases {
        let error = match Config::parse(&text, &file) {
            Ok(_) => panic!("accepted: {text}"),
            Err(e) => e.to_string(),
        };
        assert!(!error.contains('\n'), "{error:?}");
        assert!(error.starts_with(&file.display().to_string()), "{error}");
        assert!(error.contains(key), "no {key:?} in: {error}");
        assert!(error.contains(hint), "no {hint:?} in: {error}");
    }
    let missing = Config::open(&folder.path().join("none.toml")).unwrap_err();
    assert!(
        missing.to_string().contains("none.toml: file: "),
        "{missing}"
    );
}

#[test]
fn steps_accumulate() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let text = common::config_text(
        "[model.jbu]\n[[degrade.step]]\nsize = [28, 28]\n[[degrade.step]]\nupsampler = \"jbu\"\n\
         [[degrade.step]]\nregions_only = true\n[[degrade.step]]\nrate_hz = 2.0",
    );
    let config = Config::parse(&text, &folder.path().join("node.toml")).unwrap();
    let level = |side, upsampler, regions_only, rate_hz| Level {
        size: loftup_node::config::size([side, side]),
        regions_only,
        upsampler,
        rate_hz,
    };
    assert_eq!(
        config.levels(),
        [
            level(42, Upsampler::Loftup, false, 0.0),
            level(28, Upsampler::Loftup, false, 0.0),
            level(28, Upsampler::Jbu, false, 0.0),
            level(28, Upsampler::Jbu, true, 0.0),
            level(28, Upsampler::Jbu, true, 2.0)
        ]
    );
}

#[test]
fn depth_objects_and_words_are_configured() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let file = folder.path().join("node.toml");
    let text = common::config_text(common::DENSE_QUERIES).replace("threads = 1", common::DEPTH);
    let config = Config::parse(&text, &file).unwrap();
    let words = config.words.unwrap();
    assert_eq!(words.directory, Some(folder.path().join("words")));
    assert_eq!(config.track.unwrap().object.len(), 1);
    // Words may be in a file, too.
    let text = text.replace("head = \"words\"", "head = \"kitchen\"");
    Config::parse(&text, &file).unwrap();
}

#[test]
fn an_oversized_file_is_not_read_completely() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    // Sparse: 64 GiB of zeros without disk blocks.
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(64 << 30).unwrap();
    let text = Config::open(&path).unwrap_err().to_string();
    assert!(
        text.contains("node.toml: file: it is longer than 1048576 bytes"),
        "{text}"
    );
}

#[test]
fn tensorrt_settings_reach_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let file = folder.path().join("node.toml");
    let more = "[tensorrt]\nworkspace_mib = 64\ndla_core = 1\ncuda_graph = true\nzero_copy = false\nframe_graph = true\nengine_cache = \"engines\"\nrun_ms = 150\nretry_s = 30\nwarm = true";
    let text = common::config_text(more).replace("\"tract\"", "\"auto\"");
    let config = Config::parse(&text, &file).unwrap();
    assert!(config.tensorrt.frame_graph);
    let settings = config.tensorrt.settings(config.model.cpu_precision);
    let tensorrt = &settings.tensorrt;
    assert!(!tensorrt.zero_copy);
    assert_eq!(tensorrt.workspace, 64 << 20);
    assert_eq!(tensorrt.dla_core, Some(1));
    assert!(tensorrt.cuda_graph);
    assert_eq!(
        tensorrt.cache.directory(),
        Some(&*folder.path().join("engines"))
    );
    let fallback = &settings.fallback;
    assert_eq!(fallback.run_limit, Duration::from_millis(150));
    assert_eq!(fallback.retry_after, Some(Duration::from_secs(30)));
    assert!(fallback.warm);
    let text = common::config_text("");
    let auto = text.replace(
        "head = \"scene\"",
        "head = \"scene\"\ncpu_precision = \"auto\"",
    );
    let auto = Config::parse(&auto, &file).unwrap();
    let settings = auto.tensorrt.settings(auto.model.cpu_precision);
    assert_eq!(settings.cpu_precision, CpuPrecision::Auto);
    let config = Config::parse(&text, &file).unwrap();
    assert_eq!(
        format!("{:?}", config.tensorrt.settings(config.model.cpu_precision)),
        format!("{:?}", Settings::default())
    );
}

#[test]
fn arrays_have_a_fixed_length() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let file = folder.path().join("node.toml");
    let good = common::config_text("");
    let query = |what: &str| {
        common::config_text(&format!(
            "[[query]]\nslot = 1\nwant = \"classes\"\n{what}\n"
        ))
    };
    let range = |what: &str| good.replace("threads = 1", &format!("color_range = {what}"));
    let step = |what: &str| common::config_text(&format!("[[degrade.step]]\n{what}"));
    let cases = [
        ("model.size", good.replace("[42, 42]", "[42, 42, 3]"), 2),
        ("model.size", good.replace("[42, 42]", "[42]"), 2),
        ("model.size", good.replace("[42, 42]", "[]"), 2),
        (
            "model.size",
            good.replace("[42, 42]", "[\n  42,\n  42,\n  3,\n]"),
            2,
        ),
        ("source.size", good.replace("[96, 64]", "[96, 64, 9, 9]"), 2),
        ("degrade.step.size", step("size = [28, 28, 28]"), 2),
        ("query.region", query("region = [0, 0, 9, 9, 9]"), 4),
        ("query.region", query("region = [0, 0, 9]"), 4),
        ("query.points", query("points = [[1, 2], [1, 2, 3]]"), 2),
        (
            "query.points",
            query("points = [\n  [1, 2],\n  [1, 2, 3],\n]"),
            2,
        ),
        (
            "model.color_range",
            range("[[0, 1], [0, 1], [0, 1], [0, 1]]"),
            3,
        ),
        ("model.color_range", range("[[0, 1], [0, 1, 2], [0, 1]]"), 2),
    ];
    for (key, text, elements) in cases {
        let error = match Config::parse(&text, &file) {
            Ok(_) => panic!("accepted: {text}"),
            Err(e) => e.to_string(),
        };
        assert!(!error.contains('\n'), "{error:?}");
        assert!(
            error.contains(&format!(": {key}: ")),
            "no {key} in: {error}"
        );
        let expected = format!("expected {elements} elements");
        assert!(error.contains(&expected), "no {expected:?} in: {error}");
    }
    for text in [
        query("region = [0, 0, 9, 9]"),
        query("points = [[1, 2], [3, 4]]"),
        range("[[0, 1], [0, 1], [0, 1]]"),
        step("size = [28, 28]"),
    ] {
        Config::parse(&text, &file).unwrap();
    }
}

#[test]
fn a_missing_device_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let file = folder.path().join("node.toml");
    let text = common::config_text("[[sink]]\nkind = \"serial\"\npath = \"ttyNone\"");
    let config = Config::parse(&text, &file).unwrap();
    let warnings = config.warnings();
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(warning.contains("sink[0].path"), "{warning}");
    assert!(warning.contains("ttyNone"), "{warning}");
    std::fs::write(folder.path().join("ttyNone"), "").unwrap();
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn the_address_of_a_stream_is_not_a_path() {
    let file = tempfile::tempdir().unwrap();
    common::bundle(file.path());
    let file = file.path().join("node.toml");
    std::fs::write(file.with_file_name("a.mp4"), "").unwrap();
    let source = |path: &str| {
        let kind = format!("\"video\"\npath = \"{path}\"");
        let text = common::config_text("").replace("\"scenes\"", &kind);
        Config::parse(&text, &file).unwrap().source.path.unwrap()
    };
    assert_eq!(source("rtsp://camera/1").to_str(), Some("rtsp://camera/1"));
    assert_eq!(source("a.mp4"), file.with_file_name("a.mp4"));
}
