//! `loftup head text`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, bail};
use loftup_bundle::{Bundle, Family, Head, HeadKind, Linear, Source};
use loftup_eval::heads;
use loftup_import::{
    text::{TextConfig, TextOptions},
    vit::Activation,
};
use loftup_runtime::ExecutionOptions;
use loftup_words::{Encoder, Templates};
use serde_json::json;

use crate::{args::count, interrupt, output, progress};

/// Make a head of words: the class of a pixel is the word that its feature is most similar to.
///
/// Needs no images and no training, but a bundle with a CLIP backbone, or one of SigLIP converted with
/// --text-space, and the text encoder of the same model. Every word is put into prompt templates and encoded; the bundle gets the mean
/// embeddings. If --out ends in .safetensors, the head is written to a file of its own, which
/// `loftup run --head FILE` and a running program can use with any bundle of this backbone.
///
/// Without --threshold and --negative, every pixel gets the most similar word, even if none fits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup head text robot.loftup --words \"mug, cable, floor\" --text-weights clip.pt --out words.loftup
  loftup run words.loftup --image desk.jpg --head words --out map.png --picture shown.png
  loftup head text robot.loftup --words \"chair, door\" --negative \"wall, ceiling, floor\" \\
      --text-weights clip.pt --out rooms.safetensors
  loftup run robot.loftup --image hall.jpg --head rooms.safetensors --out map.png
  loftup head text siglip.loftup --words \"mug, cable\" --probability 0.5 --text-weights siglip2.safetensors \\
      --tokenizer tokenizer.json --out words.loftup")]
pub struct Args {
    /// The bundle, with a CLIP backbone, or one of SigLIP converted with --text-space
    bundle: PathBuf,
    /// The words or phrases, separated by commas
    #[arg(long, value_name = "WORDS", value_delimiter = ',', required = true)]
    words: Vec<String>,
    /// Words that take pixels away: where one of them is the most similar, there is no class
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    negative: Vec<String>,
    /// Minimum cosine similarity with a word, -1 to 1; below it, there is no class. It depends on the
    /// model: `run --points` prints similarities
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true, value_parser = cosine)]
    threshold: Option<f32>,
    /// Minimum probability of a word, 0 to 1, for SigLIP, which has a scale and a bias for it; the
    /// threshold is the cosine that has this probability
    #[arg(long, value_name = "P", conflicts_with = "threshold", value_parser = probability)]
    probability: Option<f32>,
    /// The model with its text encoder: a checkpoint of OpenAI, open_clip or transformers
    #[arg(long, value_name = "FILE")]
    text_weights: PathBuf,
    /// The tokenizer.json of a SigLIP model; CLIP's tokenizer is built in. Needs a program built with
    /// the feature tokenizers
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Name prefix of the text encoder in --text-weights, if there are several
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Activation of the text encoder: quick-gelu, gelu or gelu-tanh [default: as in OpenAI's files, or in the
    /// config file next to the weights]
    #[arg(long, value_name = "NAME")]
    activation: Option<Activation>,
    /// Attention heads of the text encoder [default: one per 64 channels; 16 in SigLIP so400m]
    #[arg(long, value_name = "N", value_parser = count)]
    heads: Option<usize>,
    /// Prompt templates, one per line, with {} for the word [default: CLIP's 80 for ImageNet]
    #[arg(long, value_name = "FILE")]
    templates: Option<PathBuf>,
    /// Name of the head
    #[arg(long, value_name = "NAME", default_value = "words")]
    name: String,
    /// Output: a bundle, which can be the input bundle with --force, or FILE.safetensors
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    force: bool,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    if args.out.symlink_metadata().is_ok() && !args.force {
        bail!(
            "{}: already exists; choose another --out, or replace it with --force",
            args.out.display()
        );
    }
    let (names, negative) = (trimmed(&args.words)?, trimmed(&args.negative)?);
    let bundle = Bundle::open(&args.bundle)?;
    let dim = features(&bundle)?;
    let templates = match &args.templates {
        Some(path) => Templates::read(path)?,
        None => Templates::imagenet(),
    };
    let options = TextOptions {
        heads: args.heads,
        activation: args.activation,
    };
    let encoder = Encoder::open(
        &args.text_weights,
        args.prefix.as_deref(),
        &options,
        args.tokenizer.as_deref(),
    )?;
    check(args, &bundle, dim, &encoder)?;
    let threshold = threshold(args, encoder.config())?;

    let all = [&names[..], &negative].concat();
    let threads = match args.threads {
        Some(threads) => threads.get(),
        None => ExecutionOptions::default().threads,
    };
    let weight = {
        let mut bar = progress::stages();
        encoder.embed(&all, &templates, threads, &mut bar)?
    };
    let linear = Linear {
        inputs: dim,
        weight,
        bias: vec![0.0; all.len()],
    };
    let head = Head {
        kind: HeadKind::Words {
            names: names.clone(),
            negative: negative.clone(),
            threshold,
        },
        dim,
        file: Head::file_name(&args.name),
    };
    let bytes = head.to_file(&linear).map_err(anyhow::Error::msg)?;
    {
        let _writing = interrupt::Writing::begin()?;
        if is_file(&args.out) {
            // What does not read back is not written.
            Head::from_file(&bytes).map_err(anyhow::Error::msg)?;
            output::write(&args.out, &bytes)?;
        } else {
            let source = Source {
                role: format!("text encoder of head {}", args.name),
                file: encoder.file().into(),
                sha256: encoder.sha256().into(),
            };
            let to = (args.out.as_path(), args.force);
            heads::add_file(&args.bundle, &args.name, (head, &bytes), source, to)?;
        }
    }
    let (seconds, c) = (start.elapsed().as_secs_f64(), encoder.config());
    if args.json {
        let json = json!({
            "out": args.out,
            "head": args.name,
            "words": names,
            "negative": negative,
            "threshold": threshold,
            "probability": args.probability,
            "templates": templates.len(),
            "text_encoder": {
                "file": encoder.file(),
                "width": c.width,
                "depth": c.depth,
                "heads": c.heads,
                "activation": c.activation.to_string(),
                "activation_from": c.activation_from.to_string(),
                "logit_scale": c.logit.map(|l| l.scale),
                "logit_bias": c.logit.map(|l| l.bias),
            },
            "seconds": seconds,
        });
        return output::line(format!("{json:#}"));
    }
    let less = match negative.len() {
        0 => String::new(),
        n => format!(", {n} negative"),
    };
    let least = match (args.probability, threshold) {
        (Some(p), Some(cosine)) => format!(", threshold {cosine:.4} (probability {p})"),
        _ => String::new(),
    };
    output::line(format!(
        "{}: head {}: {} words{less}{least}, {} templates, activation {} ({}), {seconds:.1} s",
        args.out.display(),
        args.name,
        names.len(),
        templates.len(),
        c.activation,
        c.activation_from
    ))
}

/// Channels of the features that the head will be applied to.
fn features(bundle: &Bundle) -> Result<usize> {
    let (manifest, path) = (bundle.manifest(), bundle.path().display());
    let Some(backbone) = &manifest.backbone else {
        bail!("{path}: has no backbone; words need a CLIP or SigLIP backbone");
    };
    match &backbone.architecture {
        Some(a) if a.has_words() => {}
        Some(a) if a.family == Family::SigLip => bail!(
            "{path}: the features of this SigLIP backbone are not in the space of its texts, because the pooling head is between them; convert it with --text-space"
        ),
        Some(a) => bail!(
            "{path}: the features of {} are not in the space of any text encoder; words need a CLIP or SigLIP backbone",
            a.family
        ),
        None => log::warn!(
            "{path}: nothing is known about backbone {}; words only make sense if its features are in the space of --text-weights",
            backbone.name
        ),
    }
    Ok(backbone.dim)
}

/// Checks that the text encoder can belong to the backbone.
fn check(args: &Args, bundle: &Bundle, dim: usize, encoder: &Encoder) -> Result<()> {
    let (text, path) = (args.text_weights.display(), args.bundle.display());
    let config = encoder.config();
    if config.dim != dim {
        bail!(
            "{text}: embeddings of {} channels, but the features of {path} have {dim}; use the text encoder of the same model",
            config.dim
        );
    }
    let architecture = bundle.manifest().backbone.as_ref();
    let Some(image) = architecture.and_then(|b| b.architecture.as_ref()) else {
        return Ok(());
    };
    if image.family != config.family {
        bail!(
            "{text}: a text encoder of {}, but the backbone of {path} is {}; use the text encoder of the same model",
            config.family,
            image.family
        );
    }
    // Some libraries run the two parts of a SigLIP with different forms of GELU.
    if image.family == Family::Clip && image.activation.value != config.activation {
        log::warn!(
            "{text}: activation {} ({}), but the backbone of {path} has {}; are they of the same CLIP model?",
            config.activation,
            config.activation_from,
            image.activation.value
        );
    }
    Ok(())
}

/// The cosine below which there is no class.
fn threshold(args: &Args, config: &TextConfig) -> Result<Option<f32>> {
    let Some(probability) = args.probability else {
        return Ok(args.threshold);
    };
    let text = args.text_weights.display();
    let Some(logit) = config.logit else {
        bail!(
            "{text}: cosines have no probability here: only whole SigLIP models have logit_scale and logit_bias; use --threshold"
        );
    };
    let cosine = logit.cosine(probability.into());
    if !(-1.0..=1.0).contains(&cosine) {
        bail!(
            "{text}: a probability of {probability} needs a cosine of {cosine:.3}, which no word has (logit_scale {}, logit_bias {}); choose another --probability",
            logit.scale,
            logit.bias
        );
    }
    Ok(Some(cosine as f32))
}

fn trimmed(words: &[String]) -> Result<Vec<String>> {
    let mut trimmed: Vec<String> = Vec::new();
    for word in words.iter().map(|word| word.trim()) {
        if word.is_empty() {
            bail!("a word is empty; separate words by one comma, as in --words \"mug, cable\"");
        }
        if trimmed.iter().any(|w| w == word) {
            bail!("{word:?} is given twice");
        }
        trimmed.push(word.into());
    }
    Ok(trimmed)
}

fn is_file(out: &Path) -> bool {
    out.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("safetensors"))
}

fn probability(s: &str) -> Result<f32, String> {
    s.parse()
        .ok()
        .filter(|p| *p > 0.0 && *p < 1.0)
        .ok_or_else(|| "expected a probability between 0 and 1".into())
}

fn cosine(s: &str) -> Result<f32, String> {
    s.parse()
        .ok()
        .filter(|t| (-1.0..=1.0).contains(t))
        .ok_or_else(|| "expected a cosine from -1 to 1".into())
}
