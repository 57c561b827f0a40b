//! `loftup head text`: words in, a head out, and what it finds.

use std::{fs, path::Path};

use crate::support::*;

/// Width of the text encoder of the tests.
const WIDTH: usize = 8;
/// Channels of the features of the small CLIP.
const DIM: usize = 32;
/// Side of its images.
const SIDE: usize = 224;

/// A CLIP with a LoftUp, as a bundle in `dir`.
fn clip(dir: &Path) -> std::path::PathBuf {
    let bundle = dir.join("clip.loftup");
    done(
        loftup!(
            "convert",
            "--backbone",
            "clip",
            "--heads",
            "3",
            "--activation",
            "quick-gelu"
        )
        .arg("--backbone-weights")
        .arg(weights("clip.bin"))
        .arg("--upsampler-weights")
        .arg(weights("loftup_wide.safetensors"))
        .arg("--out")
        .arg(&bundle),
    );
    bundle
}

/// A text encoder of one block with the names of OpenAI, and CLIP's vocabulary.
fn text_encoder(dir: &Path, dim: usize) -> std::path::PathBuf {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let block = "transformer.resblocks.0";
    let table: [(String, Vec<usize>, f32); 16] = [
        ("token_embedding.weight".into(), vec![49408, WIDTH], 0.0),
        ("positional_embedding".into(), vec![77, WIDTH], 0.0),
        (format!("{block}.ln_1.weight"), vec![WIDTH], 1.0),
        (format!("{block}.ln_1.bias"), vec![WIDTH], 0.0),
        (
            format!("{block}.attn.in_proj_weight"),
            vec![3 * WIDTH, WIDTH],
            0.0,
        ),
        (format!("{block}.attn.in_proj_bias"), vec![3 * WIDTH], 0.0),
        (
            format!("{block}.attn.out_proj.weight"),
            vec![WIDTH, WIDTH],
            0.0,
        ),
        (format!("{block}.attn.out_proj.bias"), vec![WIDTH], 0.0),
        (format!("{block}.ln_2.weight"), vec![WIDTH], 1.0),
        (format!("{block}.ln_2.bias"), vec![WIDTH], 0.0),
        (
            format!("{block}.mlp.c_fc.weight"),
            vec![4 * WIDTH, WIDTH],
            0.0,
        ),
        (format!("{block}.mlp.c_fc.bias"), vec![4 * WIDTH], 0.0),
        (
            format!("{block}.mlp.c_proj.weight"),
            vec![WIDTH, 4 * WIDTH],
            0.0,
        ),
        (format!("{block}.mlp.c_proj.bias"), vec![WIDTH], 0.0),
        ("ln_final.weight".into(), vec![WIDTH], 1.0),
        ("ln_final.bias".into(), vec![WIDTH], 0.0),
    ];
    let mut tensors = Tensors::new();
    let projection = ("text_projection".to_owned(), vec![WIDTH, dim], 0.0);
    for (name, shape, base) in table.into_iter().chain([projection]) {
        let values = (0..shape.iter().product()).map(|_| base + 0.5 * noise());
        let values = values.collect();
        tensors.insert(name, (shape, values));
    }
    let path = dir.join(format!("text{dim}.safetensors"));
    save(&path, &tensors);
    path
}

fn head_text(bundle: &Path, words: &str, text: &Path, out: &Path) -> std::process::Command {
    let mut command = loftup!("head", "text", bundle, "--words", words, "--heads", "2");
    command.arg("--activation").arg("quick-gelu");
    command
        .arg("--text-weights")
        .arg(text)
        .arg("--out")
        .arg(out);
    command
}

#[test]
fn words_become_classes_of_a_bundle_and_of_a_file() {
    let dir = dir();
    let dir = dir.path();
    let (bundle, text) = (clip(dir), text_encoder(dir, DIM));
    let templates = dir.join("templates.txt");
    fs::write(&templates, "a {}.\nthe {} there\n").unwrap();
    let words = "mug, cable ,potted plant";
    let out = dir.join("words.loftup");
    let templates = ["--templates", templates.to_str().unwrap()];
    let said = done(head_text(&bundle, words, &text, &out).args(templates));
    names(
        &said,
        &["words.loftup", "3 words", "2 templates", "quick-gelu"],
    );
    let said = done(&mut loftup!("inspect", &out));
    names(
        &said,
        &[
            "3 words: mug, cable, potted plant",
            "text encoder of head words",
        ],
    );

    let file = dir.join("words.safetensors");
    done(head_text(&bundle, words, &text, &file).args(templates));
    let image = png(dir);
    let points = dir.join("points.csv");
    fs::write(&points, "0,0\n31,17\n95,95\n").unwrap();
    let run = |bundle: &Path, head: &Path, out: &str, more: &[&str]| {
        let out = dir.join(out);
        done(
            loftup!(
                "run",
                bundle,
                "--backend",
                "tract",
                "--image",
                &image,
                "--head",
                head
            )
            .args(more)
            .arg("--out")
            .arg(&out),
        );
        out
    };
    let at = ["--points", points.to_str().unwrap()];
    for more in [&[][..], &["--upsampler", "jbu"]] {
        let map = fs::read(run(&out, "words".as_ref(), "map.npy", more)).unwrap();
        let other = fs::read(run(&bundle, &file, "other.npy", more)).unwrap();
        assert_eq!(map, other, "{more:?}");
        let cosines = read(run(&bundle, &file, "cosines.npy", &[more, &at].concat()));
        assert_eq!(cosines.shape, [3, 3]);
        assert!(
            cosines.data.iter().all(|c| (-1.0..=1.0).contains(c)),
            "{:?}",
            cosines.data
        );
        // The class of a point is its largest cosine.
        let classes = &map[map.len() - SIDE * SIDE..];
        for (cosines, at) in cosines
            .data
            .chunks(3)
            .zip([0, 17 * SIDE + 31, 95 * SIDE + 95])
        {
            let best = cosines.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(cosines[usize::from(classes[at])], best);
        }
    }
    // The other activation than that of the backbone is that of another model.
    let mut other = loftup!("head", "text", &bundle, "--words", "mug", "--heads", "2");
    other.args(templates).arg("--activation").arg("gelu");
    other
        .arg("--text-weights")
        .arg(&text)
        .arg("--out")
        .arg(dir.join("o.safetensors"));
    names(&told(&mut other).1, &["quick-gelu", "same CLIP model"]);
    // Of two words of the same meaning, the negative one wins.
    let none = dir.join("none.safetensors");
    done(
        head_text(&bundle, "MUG", &text, &none)
            .arg("--negative")
            .arg("mug"),
    );
    let map = fs::read(run(&bundle, &none, "none.npy", &[])).unwrap();
    assert!(
        map[map.len() - SIDE * SIDE..]
            .iter()
            .all(|class| *class == 255)
    );
    let strict = dir.join("strict.safetensors");
    done(
        head_text(&bundle, "mug", &text, &strict)
            .arg("--threshold")
            .arg("1"),
    );
    let map = fs::read(run(&bundle, &strict, "strict.npy", &[])).unwrap();
    assert!(
        map[map.len() - SIDE * SIDE..]
            .iter()
            .all(|class| *class == 255)
    );
}

#[test]
fn what_cannot_become_words_is_refused_in_one_line() {
    let dir = dir();
    let dir = dir.path();
    let (bundle, text) = (clip(dir), text_encoder(dir, DIM));
    let other = text_encoder(dir, 16);
    let templates = dir.join("templates.txt");
    fs::write(&templates, "a photo\n").unwrap();
    let out = dir.join("out.loftup");
    let asked = |words: &str, text: &Path| head_text(&bundle, words, text, &out);
    let refuse = |command: &mut std::process::Command, parts: &[&str]| {
        names(&refused(dir, command), parts);
    };
    refuse(&mut asked("mug,,cup", &text), &["empty", "comma"]);
    refuse(&mut asked("mug, mug", &text), &["\"mug\"", "twice"]);
    refuse(
        &mut asked("mug", &other),
        &["text16.safetensors", "16 channels", "have 32"],
    );
    refuse(
        &mut asked("mug", &weights("clip.bin")),
        &["clip.bin", "no text encoder"],
    );
    refuse(
        &mut asked(&"mug ".repeat(80), &text),
        &["tokens", "at most 77"],
    );
    refuse(
        asked("mug", &text).arg("--templates").arg(&templates),
        &["templates.txt", "line 1", "{}"],
    );
    let mut no_activation = loftup!("head", "text", &bundle, "--words", "mug", "--heads", "2");
    no_activation
        .arg("--text-weights")
        .arg(&text)
        .arg("--out")
        .arg(&out);
    refuse(
        &mut no_activation,
        &["text32.safetensors", "--activation", "config.json"],
    );
    let dinov2 = backbone();
    let mut of_dinov2 = head_text(&dinov2.path(), "mug", &text, &out);
    refuse(&mut of_dinov2, &["DINOv2", "CLIP or SigLIP backbone"]);
    fs::write(&out, "").unwrap();
    refuse(&mut asked("mug", &text), &["out.loftup", "--force"]);
}
