//! `loftup inspect`

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use loftup_bundle::{Bundle, FeatureLayout, HeadKind, Manifest, Normalization, Training};
use loftup_import::{
    checkpoint::Checkpoint,
    convnext::ConvNext,
    vit::{ConfigFiles, Outline, PositionEmbedding, Vit, VitError, VitOptions},
};
use loftup_onnx::{Interface, Port};

use crate::output;

/// Show the contents of a bundle, a checkpoint or an ONNX file.
///
/// The checksums of a bundle are verified.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle, a checkpoint or an ONNX file
    path: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let path = &args.path;
    if path.is_dir() {
        let bundle = Bundle::open(path)?;
        if args.json {
            output::line(serde_json::to_string_pretty(bundle.manifest())?)?;
        } else {
            print_manifest(path, bundle.manifest())?;
        }
        return Ok(());
    }
    if path.extension().is_some_and(|e| e == "onnx") {
        let bytes = loftup_onnx::read_file(path).with_context(|| path.display().to_string())?;
        let interface = Interface::of(&bytes)
            .with_context(|| format!("{}: not an ONNX model", path.display()))?;
        return print_interface(path, &interface, args.json);
    }
    print_checkpoint(&Checkpoint::open(path)?, args.json)
}

/// Prints a summary of a manifest.
pub fn print_manifest(path: &Path, m: &Manifest) -> Result<()> {
    let bytes: u64 = m.files.values().map(|f| f.bytes).sum();
    output::line(format!(
        "{}: {} files, {:.1} MB",
        path.display(),
        m.files.len(),
        bytes as f64 / 1e6
    ))?;
    if let Some(b) = &m.backbone {
        let any = if b.any_size {
            ", any multiple of the patch"
        } else {
            ""
        };
        let layout = match b.layout {
            FeatureLayout::Map => String::new(),
            FeatureLayout::Tokens { extra } => format!(", tokens ({extra} dropped)"),
        };
        output::line(format!(
            "  backbone   {}: {} channels, patch {}, input {}{any}{layout}",
            b.name, b.dim, b.patch, b.size
        ))?;
        if let Some(a) = &b.architecture {
            output::line(format!(
                "             {}: width {}, depth {}, heads {}, activation {}",
                a.family, a.width, a.depth, a.heads, a.activation
            ))?;
            let positions = match (a.position_grid, a.positions, a.rotary_periods) {
                (Some(n), Some(positions), _) => {
                    format!("position embedding {n}x{n} (weights), interpolated as in {positions}")
                }
                (_, _, Some(from)) => format!("rotary position embedding, periods ({from})"),
                _ => "no position embedding".into(),
            };
            output::line(format!(
                "             {} registers, {positions}",
                a.registers
            ))?;
            if a.text_space {
                output::line(
                    "             features in the space of texts (for `loftup head text`)",
                )?;
            }
        }
    }
    if let Some(u) = &m.upsampler {
        output::line(format!(
            "  upsampler  {}: {} channels, {} layer{}, {} heads",
            u.kind.name(),
            u.dim,
            u.layers,
            if u.layers == 1 { "" } else { "s" },
            u.heads
        ))?;
    }
    for (name, head) in &m.heads {
        let what = match &head.kind {
            HeadKind::Classes { names } => {
                format!("{} classes: {}", names.len(), names.join(", "))
            }
            HeadKind::Descriptors { channels } => format!("{channels} descriptors"),
            HeadKind::Depth {
                min_meters,
                max_meters,
                bins,
            } => {
                let bins = bins.map_or(String::new(), |n| format!(", {n} bins"));
                format!("depth, {min_meters:.2} to {max_meters:.2} m{bins}")
            }
            HeadKind::Words {
                names,
                negative,
                threshold,
            } => {
                let mut text = format!("{} words: {}", names.len(), names.join(", "));
                if !negative.is_empty() {
                    text += &format!("; not {}", negative.join(", "));
                }
                if let Some(threshold) = threshold {
                    text += &format!("; at least {threshold}");
                }
                text
            }
        };
        output::line(format!("  head       {name}: {what}"))?;
    }
    if let Some(clicks) = &m.clicks {
        let each = clicks.thresholds.iter();
        let each: Vec<_> = each.map(|(method, t)| format!("{method} {t:.3}")).collect();
        output::line(format!(
            "  clicks     thresholds {}, from {} objects in {} images",
            each.join(", "),
            clicks.objects,
            clicks.images
        ))?;
    }
    for (precision, q) in &m.quantization {
        output::line(format!(
            "  {precision:10} relative error {:.4}, cosine {:.5} (worst {:.4}), {:.3} % outliers, on {} images; {} layers in fp32",
            q.error.relative_error,
            q.error.cosine,
            q.error.worst_cosine,
            100.0 * q.error.outliers,
            q.calibration.images,
            q.fp32_layers.len()
        ))?;
        if let Some(head) = &q.head {
            output::line(format!(
                "             head {}: mIoU {:.2} % before, {:.2} % after, on {} images",
                head.name,
                100.0 * head.mean_iou_before,
                100.0 * head.mean_iou_after,
                head.images
            ))?;
        }
    }
    let n = &m.normalization;
    let origin = m.backbone.as_ref().and_then(|b| b.architecture.as_ref());
    let origin = origin.map_or(String::new(), |a| format!(" ({})", a.normalization));
    output::line(format!(
        "  images     mean {:?}, std {:?}{origin}",
        n.mean, n.std
    ))?;
    for (name, file) in &m.files {
        output::line(format!(
            "  file       {name}: {} bytes, SHA-256 {}",
            file.bytes, file.sha256
        ))?;
    }
    for s in &m.provenance.sources {
        output::line(format!(
            "  source     {} ({}), SHA-256 {}",
            s.file, s.role, s.sha256
        ))?;
    }
    if let Some(license) = &m.provenance.license {
        output::line(format!("  license    {license}"))?;
    }
    if let Some(t) = &m.provenance.training {
        print_training(t)?;
    }
    output::line(format!("  created by {}", m.provenance.tool))
}

fn print_training(t: &Training) -> Result<()> {
    let start = match (&t.start_sha256, &t.init) {
        (Some(hash), _) => format!("weights with SHA-256 {hash}"),
        (None, Some(init)) => format!("{init} initialization"),
        (None, None) => "random weights".into(),
    };
    output::line(format!(
        "  trained    by {}, stage {}, {} steps, seed {}, from {start}",
        t.tool, t.stage, t.steps, t.seed
    ))?;
    let losses: Vec<_> = t
        .losses
        .iter()
        .map(|(name, value)| format!("{name} {value:.4}"))
        .collect();
    output::line(format!(
        "  trained on {} images, {} with masks; final losses: {}",
        t.images,
        t.images_with_masks,
        losses.join(", ")
    ))
}

fn print_interface(path: &Path, interface: &Interface, json: bool) -> Result<()> {
    let needs = loftup_convert::onnx_remarks(interface);
    if json {
        let ports = |ports: &[Port]| {
            let port = |p: &Port| {
                serde_json::json!({
                    "name": p.name,
                    "type": p.element.to_string(),
                    "shape": p.shape,
                })
            };
            ports.iter().map(port).collect::<Vec<_>>()
        };
        let opsets: Vec<_> = interface
            .opsets
            .iter()
            .map(|(domain, version)| serde_json::json!({ "domain": domain, "version": version }))
            .collect();
        let json = serde_json::json!({
            "inputs": ports(&interface.inputs),
            "outputs": ports(&interface.outputs),
            "nodes": interface.nodes,
            "opsets": opsets,
            "producer": interface.producer,
            "external_files": interface.external_files,
            "convert": needs,
        });
        return output::line(format!("{json:#}"));
    }
    let opsets = interface.opsets.iter().map(|(domain, version)| {
        if domain.is_empty() {
            format!(", opset {version}")
        } else {
            format!(", {domain} {version}")
        }
    });
    output::line(format!(
        "{}: ONNX, {} nodes{}",
        path.display(),
        interface.nodes,
        opsets.collect::<String>()
    ))?;
    if !interface.producer.is_empty() {
        output::line(format!("  created by {}", interface.producer))?;
    }
    for (what, ports) in [("input", &interface.inputs), ("output", &interface.outputs)] {
        for port in ports {
            let extent = |n: &Option<usize>| n.map_or("?".into(), |n| n.to_string());
            let shape = port.shape.as_ref().map_or("?".into(), |s| {
                s.iter().map(extent).collect::<Vec<_>>().join(", ")
            });
            output::line(format!(
                "  {what:6} {} {} [{shape}]",
                port.name, port.element
            ))?;
        }
    }
    for file in &interface.external_files {
        let found = path.with_file_name(file).is_file();
        let state = if found { "" } else { " (missing)" };
        output::line(format!("  weights in {file}{state}"))?;
    }
    for need in needs {
        output::line(format!("  convert: {need}"))?;
    }
    Ok(())
}

fn print_checkpoint(checkpoint: &Checkpoint, json: bool) -> Result<()> {
    let unreadable: BTreeMap<&str, &str> = checkpoint.unreadable().collect();
    let tensors = checkpoint
        .names()
        .filter(|name| !unreadable.contains_key(name))
        .map(|name| Ok((name, checkpoint.shape(name)?)))
        .collect::<Result<Vec<_>>>()?;
    if json {
        let json: serde_json::Map<_, _> = tensors
            .iter()
            .map(|(name, shape)| ((*name).into(), serde_json::json!(shape)))
            .collect();
        output::line(format!("{:#}", serde_json::Value::Object(json)))?;
        return Ok(());
    }
    let values: usize = tensors
        .iter()
        .map(|(_, s)| s.iter().product::<usize>())
        .sum();
    let path = checkpoint.path().display();
    output::line(format!(
        "{path}: checkpoint, {} tensors, {:.3} million values",
        tensors.len(),
        values as f64 / 1e6
    ))?;
    let files = ConfigFiles::next_to(checkpoint.path());
    let outline = files.and_then(|files| Vit::outline(checkpoint, &VitOptions::default(), &files));
    match outline {
        Ok(outline) => print_outline(&outline)?,
        // Usually an upsampler checkpoint.
        Err(VitError::NotAVit { .. }) => {}
        Err(error) => {
            let backbone = ConvNext::outline(checkpoint).map(|found| format!("{found} (weights)"));
            output::line(format!(
                "  backbone   {}",
                backbone.unwrap_or_else(|_| error.to_string())
            ))?;
        }
    }
    for (name, shape) in tensors {
        output::line(format!("  {name} {shape:?}"))?;
    }
    for (name, why) in unreadable {
        output::line(format!("  {name} {why}"))?;
    }
    Ok(())
}

fn print_outline(o: &Outline) -> Result<()> {
    let decided = |setting: Result<String, &VitError>| match setting {
        Ok(setting) => setting,
        Err(error) => format!("unknown: {error}"),
    };
    let heads = o.heads.as_ref().map(ToString::to_string);
    let activation = o.activation.as_ref().map(ToString::to_string);
    output::line(format!(
        "  backbone   {} ({}), {} (weights)",
        o.family,
        o.names().join(" or "),
        o.dimensions
    ))?;
    output::line(format!("  heads      {}", decided(heads)))?;
    output::line(format!("  activation {}", decided(activation)))?;
    output::line(format!("  registers  {} (weights)", o.registers))?;
    output::line(match o.position {
        PositionEmbedding::Learned { grid, .. } => {
            format!("  positions  {grid}x{grid} (weights)")
        }
        PositionEmbedding::Rotary { from, .. } => format!("  positions  rotary, periods ({from})"),
    })?;
    let colors = o.colors.as_ref().map(|colors| {
        let Normalization { mean, std } = colors.value;
        format!("mean {mean:?}, std {std:?} ({})", colors.from)
    });
    output::line(format!("  images     {}", decided(colors)))
}
